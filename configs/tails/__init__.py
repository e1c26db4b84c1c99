"""Experiments on tails, one a file: python -m experiments.high_probability --config FILE."""
