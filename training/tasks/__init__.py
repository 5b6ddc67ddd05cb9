"""One file a training task."""
