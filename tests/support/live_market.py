"""One awkward market replayed on paper: what the tests of running, killing and damaging share."""

import json
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtcore import Params
from qtcore.types import Bars
from research.data import load_bars, save_bars
from research.live.session.controls import Controls
from research.live.session.runner import Runner
from research.live.start import LiveOptions, start_live
from research.live.storage.codec import hash_state
from research.runs.config import Config
from research.training import registry
from research.training.predictions import Predictions
from tests.conftest import awkward_bars
from tests.support.as_published import CONFIG

COUNTED = ("bars", "decisions", "orders", "fills", "book")
CLOCKS = (3, 4)  # received, latency
PAPER = ("account", "orders", "fills")
STEERING = "steering.json"  # in the folder of a market: what happens before which bar
NOTED = {
    "versions": "SELECT id, from_bar, params, models, cause FROM versions",
    "events": "SELECT bar, time, kind, text FROM events WHERE kind IN ('params', 'reload', 'reload_refused')",
    "control": "SELECT id, command, applied_bar FROM control",
}


def make_market(folder: Path, n: int) -> tuple[Bars, Predictions]:
    """Write `bars.parquet` and `predictions.parquet` of n bars."""
    bars = awkward_bars(n, seed=3)
    predictions = Predictions.random(bars, seed=5)
    save_bars(bars, folder / "bars.parquet")
    predictions.save(folder / "predictions.parquet")
    return load_bars(folder / "bars.parquet", symbols=bars.symbols), predictions


def replay_of(folder: Path, journal: Path, config: Config = CONFIG, **how) -> LiveOptions:
    """Replay the market of `folder`, with models where it was not given predictions; without symbols in alphabetical order."""
    feed, predictions = f"replay:{folder / 'bars.parquet'}", folder / "predictions.parquet"
    if predictions.exists():
        return LiveOptions(feed, journal, config, predictions=predictions, **how)
    return LiveOptions(feed, journal, config, models="mine", allow_rejected=True, allow_synthetic=True, **how)


@dataclass
class Steered:
    """Controls of a market in which every bar of `plan` brings a command, or a promotion: once, however often the bar is decided."""

    controls: Controls
    plan: dict[int, dict[str, Any]]

    def params(self, bar: int, now: int) -> tuple[Params, str] | None:
        what = self.plan.get(bar, {})
        if "promote" in what and registry.find("mine").version == what["after"]:
            registry.promote(what["promote"], "mine")
        if "do" in what:
            row = (bar, time.time_ns(), json.dumps(what))
            self.controls.journal.db.execute("INSERT OR IGNORE INTO control (id, time, command) VALUES (?, ?, ?)", row)
        return self.controls.params(bar, now)


def start_market(folder: Path, journal: Path) -> tuple[Runner, Callable[[], None]]:
    """Put a runner of the market of `folder` together, steered as the folder says."""
    runner, close = start_live(replay_of(folder, journal))
    if (plan := folder / STEERING).exists():
        runner.controls = Steered(runner.controls, {int(bar): what for bar, what in json.loads(plan.read_text()).items()})
    return runner, close


def run_market(folder: Path, journal: Path):
    """Run to the end; returns (outcome, hash of the state)."""
    runner, close = start_market(folder, journal)
    try:
        return runner.run(), hash_state(runner.engine.state)
    finally:
        close()


def run_live(asked: LiveOptions, until: int | None = None):
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


def notes(path: Path) -> dict[str, list]:
    """Everything that steering left in a journal: versions, what was told of them, commands and when they held."""
    with sqlite3.connect(path) as db:
        return {name: db.execute(f"{query} ORDER BY id").fetchall() for name, query in NOTED.items()}


def paper_content(journal: Path) -> dict[str, list]:
    """Everything two paper accounts must have in common."""
    with sqlite3.connect(f"{journal}.paper") as db:
        return {name: db.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in PAPER}


def events_of(journal: Path, kind: str) -> int:
    """Count the events of a kind."""
    with sqlite3.connect(journal) as db:
        return int(db.execute("SELECT COUNT(*) FROM events WHERE kind = ?", (kind,)).fetchone()[0])
