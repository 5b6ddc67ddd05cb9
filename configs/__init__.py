"""Typed settings (schema.py) and the YAML files that fill them."""
