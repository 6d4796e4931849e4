"""Where images come from, one file a data set."""
