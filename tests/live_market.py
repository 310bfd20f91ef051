"""One awkward market replayed on paper: what the tests of running, killing and damaging share."""

import sqlite3
from pathlib import Path

from qtcore.types import Bars
from research.data import load_bars, save_bars
from research.live.codec import hash_state
from research.live.start import Wish, start_live
from research.predictions import Predictions
from tests.conftest import awkward_bars

COUNTED = ("bars", "decisions", "orders", "fills", "book")
CLOCKS = (3, 4)  # received, latency
PAPER = ("account", "orders", "fills")


def make_market(folder: Path, n: int) -> tuple[Bars, Predictions]:
    """Write `bars.parquet` and `predictions.parquet` of n bars."""
    bars = awkward_bars(n, seed=3)
    predictions = Predictions.random(bars, seed=5)
    save_bars(bars, folder / "bars.parquet")
    predictions.save(folder / "predictions.parquet")
    return load_bars(folder / "bars.parquet", symbols=bars.symbols), predictions


def replay_of(folder: Path, journal: Path, **how) -> Wish:
    """Replay the market of `folder`; without symbols in alphabetical order."""
    return Wish(f"replay:{folder / 'bars.parquet'}", journal, predictions=folder / "predictions.parquet", **how)


def run_live(asked: Wish, until: int | None = None):
    """Run and close; returns (outcome, hash of the state). until: stop after this many bars."""
    runner, close = start_live(asked)
    try:
        if until is not None:
            runner.watchers = (lambda entry: runner.stop() if entry.bar + 1 >= until else None,)
        outcome = runner.run()
        return outcome, hash_state(runner.engine.state)
    finally:
        close()


def content(path: Path) -> dict[str, list]:
    """Everything two journals must have in common, the digest of the account at every bar included; not the clocks."""
    with sqlite3.connect(path) as db:
        kept = {name: db.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in COUNTED}
    kept["bars"] = [tuple(x for i, x in enumerate(row) if i not in CLOCKS) for row in kept["bars"]]
    return kept


def paper_content(journal: Path) -> dict[str, list]:
    """Everything two paper accounts must have in common."""
    with sqlite3.connect(f"{journal}.paper") as db:
        return {name: db.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in PAPER}


def events_of(journal: Path, kind: str) -> int:
    """Count the events of a kind."""
    with sqlite3.connect(journal) as db:
        return int(db.execute("SELECT COUNT(*) FROM events WHERE kind = ?", (kind,)).fetchone()[0])
