"""SR networks, one a file."""
