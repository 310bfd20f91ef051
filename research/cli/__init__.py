"""The `qt` command: research, backtest and prove trading decisions."""

import io
import sys
import warnings

from research.cli.app import app
from research.cli.common import guarded
from research.errors import visible


def main() -> None:
    """Run the command line; exit codes: 0 done, 1 a check failed, 2 the user's mistake, 3 our fault."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without some letter shows its number
    warnings.formatwarning = _formatted
    sys.exit(guarded(lambda: app(standalone_mode=False)))


def _formatted(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    """Write a warning without the place in the code, safe to show; one of a library keeps its kind."""
    told = visible(message, chr(10))
    return f"qt: {told if category.__module__.startswith('research.') else f'{category.__name__}: {told}'}\n"
