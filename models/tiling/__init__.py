"""Images in tiles: the only tiling code."""
