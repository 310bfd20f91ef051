"""Self-checks of the runner: envelope, budget and whether models are due for training, now and then, kept in the journal.

Every 24 bars (168 of a replay), after a bar is in the journal, the last window is read back from there and compared with the backtest's
envelope. What comes out lies in the table `looks`, one row a topic, so that a page or a script reads it without computing; what changes is
an event: `envelope` where a figure left its band, `envelope_ok` where it came back, `due` where a reason to train appeared. Nothing here
touches a decision.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qtcore.chain.price import VOLATILITY_NAME
from qtcore.features import FEATURES, FeatureBank
from qtcore.types import Bars
from research.errors import UserError
from research.evidence.envelope import DECISIONS, FILE, REGIME, Counts, Envelope, bar_counts
from research.files import misfit
from research.live.journal.journal import Entry, Journal
from research.live.monitoring.journal_source import JournalSource
from research.live.monitoring.retraining import retrain_reasons
from research.live.monitoring.status_source import StatusSource
from research.live.records import Event
from research.live.session.reload import SOURCE
from research.live.session.runner import Runner
from research.live.storage.cells import DamagedError, Row, parsed, rows_of
from research.live.storage.codec import joined, unpack_bar, vote_names
from research.live.storage.files import guarded
from research.training.registry import resolve

EVERY, REPLAY_EVERY = 24, 168  # bars between looks; a look takes about ten milliseconds, which a replay at full speed would notice
WARM = 400  # bars before a window that exponential means need to come within a bin's width of a full history
TABLE = "CREATE TABLE IF NOT EXISTS looks (name TEXT PRIMARY KEY, bar INTEGER NOT NULL, value TEXT NOT NULL) WITHOUT ROWID"
KNOWN = "SELECT name, value FROM looks"
FIGURE = {"name": str, "value": float, "low": float, "high": float, "n": int, "usual": float, "is_out": bool}
SHAPE = {
    "envelope?": {"bar": int, "time": int, "window": (int, None), "rows": [FIGURE], "out": {...: str}},
    "due?": {...: {"text": str, "since": int}},
    "budget?": {"ms": float},
}


def known_of(rows: list[Row]) -> dict[str, Any]:
    """Read what the last looks found. Raises DamagedError."""
    known = {name: parsed(value, object, "looks") for name, value in rows}
    if found := misfit(known, SHAPE):
        raise DamagedError(f"looks with {found}")
    return known


@dataclass
class LiveWindow:
    """The last window of a journal, read bar by bar; what was read is not read again."""

    envelope: Envelope
    source: JournalSource
    _bar: int | None = None
    _counts: Counts = field(default_factory=dict)
    _bank: FeatureBank | None = None
    _tail: dict[str, Any] = field(default_factory=dict)  # last rows, whose labels are not known yet
    _candles: Bars | None = None  # of those rows

    def advance(self) -> Counts | None:
        """Read what came since and return the counts of the last window; None while the journal is shorter."""
        first, last = self.source.rows("SELECT MIN(bar) AS first_bar, MAX(bar) AS last_bar FROM bars")[0]
        if last is None:
            return None
        window = self.envelope.window
        if self._bar is None:
            self._bar = max(first - 1, last - window - self.envelope.horizon - WARM)
        if last > self._bar:
            fresh = self._read(self._bar + 1, last)
            known = self._counts or {name: part[:0] for name, part in fresh.items()}
            self._counts = {name: np.concatenate([known[name], part])[-window:] for name, part in fresh.items()}
            self._bar = last
        return self._counts if len(next(iter(self._counts.values()))) == window else None

    def _read(self, first: int, last: int) -> Counts:
        envelope, source = self.envelope, self.source
        names_of_voters = (*source.voters, "ensemble")
        columns = (*DECISIONS, *REGIME, *vote_names(names_of_voters))
        symbols, interval = source.symbols, int(source.about["interval"])
        rows = source.rows("SELECT open_time, close_time, candles FROM bars WHERE bar BETWEEN ? AND ? ORDER BY bar", first, last)
        cells = source.rows(f"SELECT {', '.join(columns)} FROM decisions WHERE bar BETWEEN ? AND ? ORDER BY cell", first, last)
        with guarded(source.path):
            bars = joined([unpack_bar(candles, o, c, symbols, interval) for o, c, candles in rows])
            if len(cells) != len(rows) * len(symbols):
                raise DamagedError(f"{len(cells)} decisions of {len(rows)} bars")
        table = np.array(cells, np.float64).reshape(bars.n, len(symbols), len(columns))
        planes = {name: np.ascontiguousarray(table[:, :, k]) for k, name in enumerate(columns)}
        names = tuple(name for name in envelope.features if name in FEATURES)
        if self._bank is None:
            self._bank = FeatureBank(source.params(), symbols, interval, tuple(dict.fromkeys((*names, VOLATILITY_NAME))))
        made = self._bank.compute(bars)
        features = {name: made[name] for name in names} | {name: planes[name] for name in REGIME if name in envelope.features}
        kept = {VOLATILITY_NAME: made[VOLATILITY_NAME], **planes}
        before = len(self._tail[VOLATILITY_NAME]) if self._tail else 0
        candles = bars if self._candles is None else joined([self._candles, bars])
        self._candles = candles[max(0, candles.n - envelope.horizon) :]
        long = {name: np.concatenate([self._tail[name], plane]) if self._tail else plane for name, plane in kept.items()}
        self._tail = {name: plane[len(plane) - min(len(plane), envelope.horizon) :] for name, plane in long.items()}
        voters = {name: (long[f"{name}_action"].astype(np.int8), long[f"{name}_confidence"]) for name in names_of_voters}
        labels = envelope.labels(candles, long[VOLATILITY_NAME])
        told = bar_counts(long, voters, labels, envelope.horizon, {}, {})
        seen = bar_counts(planes, {}, labels[:0], 0, features, envelope.edges)
        return {name: part[before:] for name, part in told.items()} | {
            name: part for name, part in seen.items() if name.startswith("drift.")
        }


@dataclass
class SelfChecks:
    """The duty that looks. envelope: where it lies, None for what the models bring along."""

    journal: Journal
    envelope_file: Path | None = None
    every: int = EVERY
    _window: LiveWindow | None = None
    _source: str = ""
    _out: dict[str, str] = field(default_factory=dict)
    _due: dict[str, dict[str, Any]] = field(default_factory=dict)
    _last: int | None = None

    def before(self, runner: Runner, bar: int, now: int) -> Iterator[Event]:
        """Take other models' envelope; at the start, what was noticed before."""
        if self._last is None:
            self._begin(runner, bar)
        if str(runner.models_about.get(SOURCE, "")) != self._source:
            try:
                self._open(runner)
            except UserError as error:
                yield Event(now, "envelope_missing", str(error))

    def after(self, runner: Runner, entry: Entry) -> Iterator[Event]:
        """Look, if it is time."""
        assert self._last is not None
        if entry.bar - self._last < self.every:
            return
        self._last, now = entry.bar, int(entry.result.close_time[0])
        counts = None if self._window is None else self._window.advance()
        rows = [] if counts is None or self._window is None else self._window.envelope.compare(counts)
        yield from self._noticed(rows, now)
        found = dict(retrain_reasons(runner.models, runner.meta, rows, now))
        yield from (Event(now, "due", f"retraining is due: {text}") for cause, text in found.items() if cause not in self._due)
        self._due = {cause: {"text": text, "since": self._due.get(cause, {"since": now})["since"]} for cause, text in found.items()}
        said = {"bar": entry.bar, "time": now, "window": self._window.envelope.window if self._window else None, "rows": rows}
        self._keep(entry.bar, {"envelope": said | {"out": self._out}, "due": self._due})

    def _noticed(self, rows: list[dict[str, Any]], now: int) -> Iterator[Event]:
        out = {row["name"]: said(row) for row in rows if row["is_out"]}
        yield from (Event(now, "envelope", text) for name, text in out.items() if name not in self._out)
        yield from (Event(now, "envelope_ok", f"{name} is back in its band") for name in self._out if name not in out)
        self._out = out

    def _begin(self, runner: Runner, bar: int) -> None:
        with self.journal.transaction() as db:
            db.execute(TABLE)
            known = known_of(rows_of(db.execute(KNOWN)))
        self._last = bar - 1
        self._out, self._due = dict(known.get("envelope", {}).get("out", {})), dict(known.get("due", {}))
        self._keep(bar - 1, {"budget": {"ms": runner.options.budget / 1e6}})
        self._open(runner)

    def _open(self, runner: Runner) -> None:
        """Load the envelope of the models that are served."""
        source, self._window = str(runner.models_about.get(SOURCE, "")), None
        self._source = source
        file = self.envelope_file if not source else resolve(source) / FILE
        found = None if file is None else Envelope.load(file)
        self._window = None if found is None else LiveWindow(found, JournalSource(self.journal.path))

    def _keep(self, bar: int, values: dict[str, Any]) -> None:
        with self.journal.transaction() as db:
            db.executemany("REPLACE INTO looks VALUES (?, ?, ?)", [(name, bar, json.dumps(value)) for name, value in values.items()])


def said(row: dict[str, Any]) -> str:
    """Say in words which figure left its band.

    >>> said({"name": "drift.rsi", "value": 0.8, "low": 0.0, "high": 0.3, "n": 900, "usual": 0.1})
    'drift.rsi is 0.800 over the last 900 cells, above its band of 0.000 to 0.300'
    """
    side = "above" if row["value"] > row["high"] else "below"
    return f"{row['name']} is {row['value']:.3f} over the last {row['n']} cells, {side} its band of {row['low']:.3f} to {row['high']:.3f}"


def looked(source: StatusSource) -> dict[str, Any]:
    """Return what the status says of budget, envelope and training: from a journal, empty answers for a finished run."""
    out: dict[str, Any] = {"budget": None, "envelope": None, "retrain_due": []}
    if not isinstance(source, JournalSource) or not source.rows("SELECT COUNT(*) AS n FROM sqlite_master WHERE name = 'looks'")[0][0]:
        return out
    with guarded(source.path):
        known = known_of(source.rows(KNOWN))
    (n_bars,) = source.rows("SELECT COUNT(*) AS n FROM bars")[0]
    late = source.event_counts()["slow"]
    out["budget"] = known["budget"] | {"bars_over": late, "bars": n_bars} if "budget" in known else None
    out["envelope"] = known.get("envelope")
    out["retrain_due"] = [{"cause": cause, **rest} for cause, rest in known.get("due", {}).items()]
    return out
