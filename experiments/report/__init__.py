"""One page about a grid: `python -m experiments.report --workdir runs/demo`.

Reads the grid's folder (see `experiments.report.results`) and writes report.md, report.html (one
file that shows nothing outside itself), each figure as figures/*.png and *.pdf, and each table as
tables/*.csv and *.tex; the page links to them. Every number on the page comes from the files of the
runs. Matplotlib is imported here and nowhere else; the style is chosen once, in
`experiments.report.style`.
"""

from experiments.report.write import show, write_report

__all__ = ["show", "write_report"]
