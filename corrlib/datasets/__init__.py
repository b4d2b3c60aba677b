"""One reader a data set, each from its official layout on disk to `samples`.

Every module has `names(root, ...)`, sorted names of what there is, and `read(root, name, ...)`,
one of them as a sample. `root` holds all data sets, each in its own folder (data/README.md).
Nothing is downloaded, written, shuffled or resized, and nothing is read before it is asked for.
"""
