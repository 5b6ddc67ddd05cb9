"""The whole comparison as one command: what to train, running it, measuring, putting figures together, reporting."""
