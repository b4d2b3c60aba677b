"""One reader a data set, each from its official layout on disk to `samples`."""
