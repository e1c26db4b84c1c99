"""Write the report of a grid from the command line."""

import sys

from experiments.report.write import main
from experiments.setup.cli import explain

if __name__ == "__main__":
    sys.exit(explain(main))
