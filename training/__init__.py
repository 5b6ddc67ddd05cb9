"""Everything that has a gradient."""
