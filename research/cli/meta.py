"""Tables of a training from logs: counts of what was read, then one row a fold."""

from pathlib import Path
from typing import Any

from rich.table import Table

from research.cli import show
from research.cli.common import print_json


def show_log(schedule: Any, counts: dict[str, int], out: Path, quiet: bool, json: bool) -> None:
    """Show counts, figures and warnings of a meta schedule that was trained from logs, then its folder."""
    if json:
        print_json({"counts": counts, "folds": schedule.table(), "warnings": list(schedule.warnings)})
        return
    if not quiet:
        read = Table("read", "count", box=None, padding=(0, 2, 0, 0))
        for name, count in counts.items():
            read.add_row(name, f"{count:,}")
        folds = Table("model", "fold", "scored", "balanced", "status", box=None, padding=(0, 2, 0, 0))
        for row in schedule.table():
            balanced = "" if row["balanced_accuracy"] is None else f"{row['balanced_accuracy']:.1%}"
            folds.add_row(row["model"], str(row["fold"] + 1), f"{row['n_scored']:,}", balanced, row["status"])
        show.console.print(read)
        show.console.print(folds)
        for text in (*schedule.notes, *schedule.warnings):
            show.console.print(text, soft_wrap=True, markup=False)
    show.path(out)
