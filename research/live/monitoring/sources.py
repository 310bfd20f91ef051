"""Opening of a status source by its path: a live journal or a finished run."""

from pathlib import Path

from research.live.monitoring.journal_source import JournalSource
from research.live.monitoring.run_source import RunSource
from research.runs.folder import read_run


def open_source(path: str | Path) -> JournalSource | RunSource:
    """Open a journal or a run's folder. Raises UserError where it is neither."""
    path = Path(path)
    return RunSource(read_run(path)) if path.is_dir() else JournalSource(path)
