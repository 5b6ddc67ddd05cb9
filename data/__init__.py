"""Reading images and labels, degrading them, and serving them as batches."""
