"""Images in, boxes and pictures out."""
