"""Makes this folder the package `tests`: a library that is installed may bring one of that name."""
