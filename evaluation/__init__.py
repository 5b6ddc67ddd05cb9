"""Methods on a data set, numbers out."""
