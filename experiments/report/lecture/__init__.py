"""The pictures of `experiments.lecture`: a file for each experiment, and the page of all."""
