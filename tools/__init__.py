"""Programs beside the stage scripts: python -m tools.NAME --help."""
