"""The `qt` command: research, backtest and prove trading decisions."""

import sys

from research.cli.app import app
from research.cli.common import guarded


def main() -> None:
    """Run the command line; exit codes: 0 done, 1 a check failed, 2 the user's mistake, 3 our fault."""
    sys.exit(guarded(lambda: app(standalone_mode=False)))
