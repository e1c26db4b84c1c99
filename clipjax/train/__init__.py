"""Training: state, step, loop, mesh, checkpoints, log. Knows models and tasks by protocol only."""
