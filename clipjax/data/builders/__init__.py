"""TFDS builders, one data set a file. They import TFDS: reach them through `clipjax.data`."""
