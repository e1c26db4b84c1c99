"""The implicit bias: which separator a method turns to, and how fast.

    python -m experiments.implicit_bias --workdir runs/implicit_bias

- `sets`: points in the plane, pairs of MNIST's digits, LIBSVM files.
- `methods`: losses of the margin and rules of descent.
- `trajectories`: the weights at log-spaced steps, many methods in one program.
- `robust`: logistic regression with asymptotes, for labels of which some are wrong.
- `run`: all of it, and what is written.
"""
