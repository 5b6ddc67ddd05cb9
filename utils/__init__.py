"""Small tools that the scripts share: resizing, metrics, losses, configuration, checkpoints, logs."""
