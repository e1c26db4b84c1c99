"""The scripts: train, evaluate, compare, report, high_probability, demo."""
