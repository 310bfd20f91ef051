"""Family of trials: what the trial ledger keeps of everything tried on a market, so that one more can be judged against all of it.

A row of a sweep leaves its t value in the maxima of its data set (`research.evidence.sign_test`), 2,000 numbers; the sums of the KEPT
highest ones stay, so that an edge among them can be left out when the rest is judged, and what falls out of these joins the maxima. The
order in which rows come changes nothing, nor does entering one twice. A run keeps its own sums, and counts by them once its proof passed.
What has no sums here (a trial of an older ledger, a run that is pending or did not pass) counts as an independent one.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qtcore.sweep.hedge import Hedged
from research.evidence.alpha import Outcome
from research.evidence.sign_test import ALONE, DRAWS, F4, maxima

KEPT = 1_000  # rows of sweeps whose sums stay, those with the highest t values of a lineage
LEAST_T = 1.0  # a row below it can never be an edge

TABLES = (
    "CREATE TABLE spans (id INTEGER PRIMARY KEY, keys BLOB NOT NULL UNIQUE)",
    "CREATE TABLE run_sums (trial INTEGER PRIMARY KEY REFERENCES trials, span INTEGER NOT NULL REFERENCES spans, t REAL,"
    " units BLOB NOT NULL)",
    "CREATE TABLE swept_sums (id INTEGER PRIMARY KEY, data INTEGER NOT NULL REFERENCES data, span INTEGER NOT NULL REFERENCES spans,"
    " t REAL NOT NULL, units BLOB NOT NULL, digest TEXT NOT NULL, UNIQUE (data, digest))",
    "CREATE TABLE maxima (data INTEGER PRIMARY KEY REFERENCES data, n INTEGER NOT NULL, draws BLOB NOT NULL)",
    "CREATE TABLE entered (data INTEGER NOT NULL, trial INTEGER NOT NULL, PRIMARY KEY (data, trial)) WITHOUT ROWID",
    "CREATE TABLE declared (data INTEGER PRIMARY KEY REFERENCES data, n INTEGER NOT NULL, time INTEGER NOT NULL)",
    "CREATE INDEX ratios ON trials (data, sharpe)",
    "CREATE TRIGGER entered_kept BEFORE DELETE ON entered BEGIN SELECT RAISE(ABORT, 'a trial is never deleted'); END",
    "CREATE TRIGGER run_sums_kept BEFORE DELETE ON run_sums BEGIN SELECT RAISE(ABORT, 'a run is never deleted'); END",
    "CREATE TRIGGER run_sums_unchanged BEFORE UPDATE ON run_sums BEGIN SELECT RAISE(ABORT, 'a run is never changed'); END",
    "CREATE TRIGGER declared_kept BEFORE DELETE ON declared BEGIN SELECT RAISE(ABORT, 'a declaration is never deleted'); END",
    "CREATE TRIGGER declared_unchanged BEFORE UPDATE ON declared BEGIN SELECT RAISE(ABORT, 'a declaration is never changed'); END",
)

KEEPING = (  # what else the database refuses; of the sums those that fall out of the KEPT are deleted, and maxima are replaced
    "CREATE TRIGGER data_kept BEFORE DELETE ON data BEGIN SELECT RAISE(ABORT, 'candles are never deleted'); END",
    "CREATE TRIGGER data_unchanged BEFORE UPDATE OF id, digest, level, candles, sketch ON data"
    " BEGIN SELECT RAISE(ABORT, 'candles are never changed'); END",
    "CREATE TRIGGER spans_kept BEFORE DELETE ON spans BEGIN SELECT RAISE(ABORT, 'a span is never deleted'); END",
    "CREATE TRIGGER spans_unchanged BEFORE UPDATE ON spans BEGIN SELECT RAISE(ABORT, 'a span is never changed'); END",
    f"CREATE TRIGGER swept_sums_kept BEFORE DELETE ON swept_sums WHEN (SELECT COUNT(*) FROM swept_sums) <= {KEPT}"
    " BEGIN SELECT RAISE(ABORT, 'kept rows of sweeps are not deleted'); END",
    "CREATE TRIGGER swept_sums_unchanged BEFORE UPDATE ON swept_sums BEGIN SELECT RAISE(ABORT, 'a row is never changed'); END",
    "CREATE TRIGGER maxima_kept BEFORE DELETE ON maxima BEGIN SELECT RAISE(ABORT, 'maxima are never deleted'); END",
    "CREATE TRIGGER maxima_unchanged BEFORE UPDATE ON maxima BEGIN SELECT RAISE(ABORT, 'maxima are never changed'); END",
    "CREATE TRIGGER entered_known BEFORE INSERT ON entered WHEN NOT EXISTS (SELECT 1 FROM trials WHERE id = NEW.trial AND data = NEW.data)"
    " BEGIN SELECT RAISE(ABORT, 'only a trial of the candles is entered'); END",
)


@dataclass(frozen=True)
class Drawn:
    """What rows of a sweep leave of themselves: the `highest` t value of each draw [DRAWS] among those not kept, and the `kept`."""

    highest: F4 = field(default_factory=lambda: ALONE)
    kept: tuple[Outcome, ...] = ()

    @classmethod
    def of(cls, lineage: str, outcome: Outcome) -> "Drawn":
        """Draw for all accounts of an outcome; those that could be among the KEPT are kept."""
        t = np.nan_to_num(outcome.t, nan=-np.inf)
        rows: dict[bytes, int] = {}  # settings that differ in nothing are one
        for row, units in enumerate(outcome.units):
            rows.setdefault(units.tobytes(), row)
        first = np.array(list(rows.values()), np.int64)
        order = first[np.argsort(-t[first], kind="stable")]
        kept = order[:KEPT][t[order[:KEPT]] >= LEAST_T]
        rest = np.setdiff1d(first, kept)
        return cls(maxima(lineage, outcome.keys, outcome.units[rest]), (outcome.rows(kept),) if len(kept) else ())

    def __add__(self, other: "Drawn") -> "Drawn":
        return Drawn(np.maximum(self.highest, other.highest), self.kept + other.kept)


def enter(db: sqlite3.Connection, data: int, lineage: Sequence[int], name: str, trials: Iterable[int], drawn: Drawn) -> None:
    """Enter rows of a sweep: the ids of its `trials` on the set `data`, and what they `drawn` left. lineage: ids of all its sets."""
    db.executemany("INSERT OR IGNORE INTO entered VALUES (?, ?)", ((data, trial) for trial in trials))
    for outcome in drawn.kept:
        span = _span(db, outcome.keys)
        for t, units in zip(outcome.t.tolist(), outcome.units, strict=True):
            blob = units.tobytes()
            digest = hashlib.sha256(outcome.keys.tobytes() + blob).hexdigest()[:32]
            row = (data, span, t, blob, digest)
            db.execute("INSERT OR IGNORE INTO swept_sums (data, span, t, units, digest) VALUES (?, ?, ?, ?, ?)", row)
    highest, marks = drawn.highest, _marks(lineage)
    beyond = f"SELECT id FROM swept_sums WHERE data IN ({marks}) ORDER BY t DESC, digest LIMIT -1 OFFSET {KEPT}"
    fallen = [row[0] for row in db.execute(beyond, lineage)]
    query = f"SELECT keys, t, units FROM swept_sums JOIN spans ON spans.id = span WHERE swept_sums.id IN ({beyond})"
    for outcome in _outcomes(db, query, lineage):
        highest = maxima(name, outcome.keys, outcome.units, highest)
    db.executemany("DELETE FROM swept_sums WHERE id = ?", ((each,) for each in fallen))
    known = db.execute("SELECT draws FROM maxima WHERE data = ?", (data,)).fetchone()
    if known is not None:
        highest = np.maximum(highest, _draws(known[0]))
    n = db.execute("SELECT COUNT(*) FROM entered WHERE data = ?", (data,)).fetchone()[0]
    db.execute("INSERT OR REPLACE INTO maxima VALUES (?, ?, ?)", (data, n, highest.tobytes()))


def keep_run(db: sqlite3.Connection, trial: int, outcome: Outcome) -> None:
    """Keep the sums of a run, which count when its proof passed."""
    row = (trial, _span(db, outcome.keys), float(outcome.t[0]), outcome.units.tobytes())
    db.execute("INSERT OR IGNORE INTO run_sums VALUES (?, ?, ?, ?)", row)


def swept(db: sqlite3.Connection, data: Sequence[int]) -> tuple[list[Outcome], F4]:
    """Return the sums of the rows of sweeps that are kept, and the maxima of the others. Raises ValueError where a row was taken away."""
    marks, highest = _marks(data), ALONE
    for each, n, draws in db.execute(f"SELECT data, n, draws FROM maxima WHERE data IN ({marks})", data).fetchall():
        if db.execute("SELECT COUNT(*) FROM entered WHERE data = ?", (each,)).fetchone()[0] != n:
            raise ValueError("rows of sweeps without their maxima")
        highest = np.maximum(highest, _draws(draws))
    query = f"SELECT keys, t, units FROM swept_sums JOIN spans ON spans.id = span WHERE data IN ({marks}) ORDER BY digest"
    return list(_outcomes(db, query, data)), highest


def runs_of(db: sqlite3.Connection, trials: Sequence[int]) -> tuple[list[int], list[Outcome]]:
    """Return which of some runs, ids of trials, have sums here, and these."""
    chosen, values = "(SELECT value FROM json_each(?))", [json.dumps(list(trials))]  # however many there are
    query = f"SELECT keys, t, units FROM run_sums JOIN spans ON spans.id = span WHERE trial IN {chosen} ORDER BY trial"
    known = [row[0] for row in db.execute(f"SELECT trial FROM run_sums WHERE trial IN {chosen} ORDER BY trial", values)]
    return known, list(_outcomes(db, query, values))


def _outcomes(db: sqlite3.Connection, query: str, values: Sequence[Any]) -> Iterable[Outcome]:
    """Read rows of keys, t and units, those of the same blocks together."""
    spans: dict[bytes, list[tuple[float | None, bytes]]] = {}
    for keys, t, units in db.execute(query, values):
        spans.setdefault(keys, []).append((t, units))
    for blob, rows in spans.items():
        keys = np.frombuffer(blob, np.int64)
        units = np.frombuffer(b"".join(row[1] for row in rows), np.int32).reshape(len(rows), len(keys))
        measured = np.zeros((len(rows), len(Hedged)))
        measured[:, Hedged.T] = [np.nan if t is None else t for t, _ in rows]
        yield Outcome(keys, units, measured)


def _span(db: sqlite3.Connection, keys: np.ndarray) -> int:
    blob = np.ascontiguousarray(keys, np.int64).tobytes()
    db.execute("INSERT OR IGNORE INTO spans (keys) VALUES (?)", (blob,))
    return int(db.execute("SELECT id FROM spans WHERE keys = ?", (blob,)).fetchone()[0])


def _draws(blob: bytes) -> F4:
    found = np.frombuffer(blob, np.float32)
    if len(found) != DRAWS or np.isnan(found).any():
        raise ValueError("maxima of other draws")
    return found


def _marks(values: Sequence[int]) -> str:
    return ", ".join("?" * len(values))
