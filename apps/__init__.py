"""Programs on top of the Python API, for people: the browser app, and whole folders at once."""
