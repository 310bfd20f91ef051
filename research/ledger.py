"""How many tries did it take? The ledger of everything that was ever tried on the same candles.

`spec` D-97. One trial = (data lineage, resolved parameters, hash of predictions); an identical rerun is none. The ledger is one SQLite
file in `QT_HOME` (default `~/.qt`); several processes may write at once.

**Lineage.** Two data sets that share half of the smaller one's candles belong together, whatever symbols and files are called, and so do
data sets linked by a third. A data set is remembered by a sketch: every candle is hashed (open, high, low, close, volume to six
significant digits; neither time nor name), and the hashes below 2**64 / 2**k are kept, with the smallest k that leaves at most 16,384.
Two sketches are compared at the larger k of the two; the share of common hashes estimates the share of common candles. Candles of
another interval look unrelated.
"""

import hashlib
import json
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from qtcore.types import NS_PER_DAY, Bars, Votes
from research.errors import UserError

SKETCH_SIZE = 16_384
COMPARED = 200  # latest trials whose returns are correlated for the effective number
MIN_COMMON_DAYS = 30
BUSY_SECONDS = 60.0
T = TypeVar("T")

SCHEMA = """
CREATE TABLE IF NOT EXISTS data (
    id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, lineage INTEGER NOT NULL, level INTEGER NOT NULL, candles INTEGER NOT NULL,
    sketch BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS trials (
    id INTEGER PRIMARY KEY, data INTEGER NOT NULL REFERENCES data, params TEXT NOT NULL, predictions TEXT NOT NULL, time INTEGER NOT NULL,
    name TEXT NOT NULL, sharpe REAL, first_day INTEGER NOT NULL, returns BLOB NOT NULL, UNIQUE (data, params, predictions));
PRAGMA user_version = 1;
"""


@dataclass(frozen=True)
class Sketch:
    """A sample of a data set's candles, by content. level: each candle is kept with probability 2**-level; candles: how many there are."""

    hashes: NDArray[np.uint64]
    level: int
    candles: int

    @property
    def digest(self) -> str:
        """Name of the content."""
        return hashlib.sha256(self.hashes.tobytes() + f"{self.level},{self.candles}".encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Trial:
    """One try. sharpe: per bar, NaN when there is none; returns: net return of each UTC day from `first_day` on."""

    sketch: Sketch
    params: str
    predictions: str
    sharpe: float
    first_day: int
    returns: NDArray[np.float32]
    name: str = ""


@dataclass(frozen=True)
class Tried:
    """What has been tried on a lineage. variance: of the trials' per-bar Sharpe ratios; effective: trials worth of independent ones."""

    trials: int
    variance: float
    effective: float


def sketch(bars: Bars) -> Sketch:
    """Sample the candles of `bars` by content; holes are no candles."""
    planes = np.stack([getattr(bars, name) for name in ("open", "high", "low", "close", "volume")], axis=-1).reshape(-1, 5)
    planes = planes[~np.isnan(planes[:, 3])]
    hashes = np.unique(_hash_rows(_six_digits(planes)))
    level = 0
    while np.count_nonzero(kept := hashes < _limit(level)) > SKETCH_SIZE:
        level += 1
    return Sketch(hashes[kept], level, len(planes))


def _six_digits(x: NDArray[np.float64]) -> NDArray[np.int64]:
    """Round to six significant digits, as whole numbers that two ways of writing the same price agree on."""
    size = np.abs(x)
    exponent = np.floor(np.log10(np.where(size > 0.0, size, 1.0)))
    digits = np.rint(x / 10.0**exponent * 1e5)
    return digits.astype(np.int64) * 1_000 + exponent.astype(np.int64)


def _hash_rows(rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Mix five numbers a row into 64 bits (the finaliser of splitmix64 after each)."""
    out = np.zeros(len(rows), np.uint64)
    for column in rows.T:
        out = (out ^ column.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        out = (out ^ (out >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        out = (out ^ (out >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        out ^= out >> np.uint64(31)
    return out


def _limit(level: int) -> np.uint64:
    return np.uint64((1 << (64 - level)) - 1)


def shared(a: Sketch, b: Sketch) -> float:
    """Estimate which share of the smaller data set's candles is in both, a fraction."""
    limit = _limit(max(a.level, b.level))
    x, y = a.hashes[a.hashes < limit], b.hashes[b.hashes < limit]
    smaller = min(len(x), len(y))
    return len(np.intersect1d(x, y, assume_unique=True)) / smaller if smaller else 0.0


def hash_params(values: Mapping[str, Any]) -> str:
    """Name a set of resolved parameters."""
    return hashlib.sha256(json.dumps(dict(values), sort_keys=True).encode()).hexdigest()[:32]


def hash_votes(votes: Votes) -> str:
    """Name what the base models said, by content."""
    digest = hashlib.sha256()
    for plane in (votes.action, votes.confidence, votes.probs):
        if plane is not None:
            digest.update(np.ascontiguousarray(plane).data)
    return digest.hexdigest()[:32]


def daily_returns(close_time: NDArray[np.int64], equity: NDArray[np.float64]) -> tuple[int, NDArray[np.float32]]:
    """Net return of each UTC day: (first day number, one return a day, 0 where no bar closed)."""
    day = (close_time - 1) // NS_PER_DAY
    last = np.flatnonzero(np.append(day[1:] != day[:-1], True)) if len(day) else np.empty(0, np.int64)
    if len(last) == 0:
        return 0, np.empty(0, np.float32)
    start = np.concatenate([equity[:1], equity[last[:-1]]])
    out = np.zeros(int(day[-1] - day[0]) + 1, np.float32)
    out[day[last] - day[0]] = equity[last] / start - 1.0
    return int(day[0]), out


def trial_of(run: Any, sharpe: float) -> Trial:
    """Describe a run as a trial; `sharpe` is its per-bar ratio over the tested bars, NaN or None when there is none."""
    first_day, returns = daily_returns(run.bars.close_time, run.result.equity)
    value = math.nan if sharpe is None else float(sharpe)
    params, predictions = hash_params(run.params.flat()), hash_votes(run.result.votes)
    return Trial(sketch(run.bars), params, predictions, value, first_day, returns, run.command)


class Ledger:
    """The trials of one `QT_HOME`.

    >>> Ledger(Path("nowhere") / "trials.sqlite").count()
    0
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = home() / "trials.sqlite" if path is None else path

    def record(self, trial: Trial) -> Tried:
        """Count a trial, once, and say what its lineage has seen so far, itself included.

        Raises UserError when the file cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return self._patiently(lambda: self._record(trial))
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"trial ledger must be writable, was {self.path} ({error}); set QT_HOME to another folder") from error

    def look(self, trial: Trial) -> Tried:
        """Say what `record` would, and write nothing."""
        if not self.path.exists():
            return _tried([trial])
        try:
            return self._patiently(lambda: self._look(trial))
        except sqlite3.Error as error:
            raise UserError(f"trial ledger must be readable, was {self.path} ({error}); set QT_HOME to another folder") from error

    def count(self) -> int:
        """Trials of all lineages."""
        if not self.path.exists():
            return 0
        with self._open() as db:
            return int(db.execute(f"SELECT COUNT(*) FROM ({_DISTINCT})").fetchone()[0])

    def table(self) -> list[dict[str, Any]]:
        """List every trial, oldest first: id, lineage, time (ns UTC), name, params, predictions, sharpe per bar."""
        if not self.path.exists():
            return []
        columns = ("id", "lineage", "time", "name", "params", "predictions", "sharpe")
        query = f"SELECT trials.{', '.join(columns)} FROM trials JOIN data ON data.id = trials.data ORDER BY trials.id"
        with self._open() as db:
            return [dict(zip(columns, row)) for row in db.execute(query)]

    def _record(self, trial: Trial) -> Tried:
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            lineages = self._lineages(db, trial.sketch)
            lineage = min(lineages, default=1 + int(db.execute("SELECT COALESCE(MAX(lineage), 0) FROM data").fetchone()[0]))
            db.executemany("UPDATE data SET lineage = ? WHERE lineage = ?", [(lineage, other) for other in lineages - {lineage}])
            row = (trial.sketch.digest, lineage, trial.sketch.level, trial.sketch.candles, trial.sketch.hashes.tobytes())
            db.execute("INSERT OR IGNORE INTO data (digest, lineage, level, candles, sketch) VALUES (?, ?, ?, ?, ?)", row)
            data = db.execute("SELECT id FROM data WHERE digest = ?", (trial.sketch.digest,)).fetchone()[0]
            sharpe = None if math.isnan(trial.sharpe) else trial.sharpe
            db.execute(
                "INSERT OR IGNORE INTO trials (data, params, predictions, time, name, sharpe, first_day, returns)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (data, trial.params, trial.predictions, time.time_ns(), trial.name, sharpe, trial.first_day, trial.returns.tobytes()),
            )
            known = self._trials(db, {lineage})
            db.execute("COMMIT")
        return _tried(known)

    def _look(self, trial: Trial) -> Tried:
        with self._open() as db:
            known = self._trials(db, self._lineages(db, trial.sketch))
        return _tried(known if any(_same(trial, other) for other in known) else [*known, trial])

    @staticmethod
    def _lineages(db: sqlite3.Connection, mine: Sketch) -> set[int]:
        """Lineages that share half their candles with `mine`."""
        if known := db.execute("SELECT lineage FROM data WHERE digest = ?", (mine.digest,)).fetchone():
            return {int(known[0])}
        found = set()
        for lineage, level, candles, blob in db.execute("SELECT lineage, level, candles, sketch FROM data"):
            if lineage not in found and shared(mine, Sketch(np.frombuffer(blob, np.uint64), level, candles)) >= 0.5:
                found.add(int(lineage))
        return found

    @staticmethod
    def _trials(db: sqlite3.Connection, lineages: set[int]) -> list[Trial]:
        """Distinct trials of lineages, oldest first, without their sketches."""
        empty = Sketch(np.empty(0, np.uint64), 0, 0)
        marks = ", ".join("?" * len(lineages))
        rows = db.execute(f"{_DISTINCT_FULL} WHERE lineage IN ({marks}) GROUP BY params, predictions ORDER BY 1", tuple(lineages))
        return [
            Trial(empty, params, predictions, math.nan if sharpe is None else sharpe, day, np.frombuffer(blob, np.float32), name)
            for _, params, predictions, sharpe, day, blob, name in rows
        ]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            if db.execute("PRAGMA user_version").fetchone()[0] == 0:
                db.executescript(SCHEMA)
            yield db
        finally:
            db.close()

    @staticmethod
    def _patiently(work: Callable[[], T]) -> T:
        """Do `work` again while another process creates the file or holds it: SQLite's own patience does not cover the switch to WAL."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                return work()
            except sqlite3.OperationalError as error:
                if not ("locked" in str(error) or "busy" in str(error)) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


_DISTINCT = "SELECT DISTINCT lineage, params, predictions FROM trials JOIN data ON data.id = trials.data"
_DISTINCT_FULL = (
    "SELECT MIN(trials.id), params, predictions, sharpe, first_day, returns, name FROM trials JOIN data ON data.id = trials.data"
)


def home() -> Path:
    """Folder of what outlives a run: `QT_HOME`, else `~/.qt`."""
    return Path(os.environ.get("QT_HOME") or Path.home() / ".qt")


def _same(a: Trial, b: Trial) -> bool:
    return (a.params, a.predictions) == (b.params, b.predictions)


def _tried(trials: list[Trial]) -> Tried:
    sharpes = np.array([t.sharpe for t in trials if not math.isnan(t.sharpe)])
    variance = float(np.var(sharpes, ddof=1)) if len(sharpes) > 1 else 0.0
    return Tried(len(trials), variance, effective_trials(trials))


def effective_trials(trials: list[Trial]) -> float:
    """How many independent trials these are worth: `r + (1 - r) * n`, r the mean correlation of their daily returns.

    Pairs need 30 common days; the latest 200 trials stand for all. Bailey and Lopez de Prado 2014, appendix 3.
    """
    n = len(trials)
    latest = [t for t in trials[-COMPARED:] if len(t.returns)]
    if n < 2 or len(latest) < 2:
        return float(n)
    first = min(t.first_day for t in latest)
    days = max(t.first_day + len(t.returns) for t in latest) - first
    table = np.zeros((len(latest), days))
    known = np.zeros((len(latest), days))
    for row, t in enumerate(latest):
        at = slice(t.first_day - first, t.first_day - first + len(t.returns))
        table[row, at], known[row, at] = t.returns, 1.0
    common, sums, squares = known @ known.T, table @ known.T, (table**2) @ known.T
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt(np.maximum(squares / common - (sums / common) ** 2, 0.0))
        correlation = (table @ table.T / common - sums / common * (sums / common).T) / (spread * spread.T)
    pairs = np.triu(common >= MIN_COMMON_DAYS, 1) & np.isfinite(correlation)
    mean = float(np.clip(correlation[pairs].mean(), 0.0, 1.0)) if pairs.any() else 0.0
    return mean + (1.0 - mean) * n
