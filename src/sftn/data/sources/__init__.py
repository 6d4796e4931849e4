"""Sources of images, one file per data set."""
