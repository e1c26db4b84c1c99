"""The lecture's laboratory: each of its pictures computed, each of its claims checked.

    python -m experiments.lecture                      # what there is
    python -m experiments.lecture sgd_on_a_line --workdir runs/lecture
    python -m experiments.lecture all --workdir runs/lecture

- `experiment`: what an experiment consists of.
- `catalogue`: all of them.
- `laboratory`: runs them, keeps results, makes the page.
- one file for each experiment. Its figures are drawn in `experiments.report.lecture`.
"""
