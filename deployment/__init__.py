"""A trained module made fast or portable."""
