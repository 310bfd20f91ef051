"""Tables of the trial ledger, and how an older file gets those that it lacks."""

import math
import sqlite3
import uuid
from typing import Any

from research.errors import ConfigError
from research.evidence.family import KEEPING
from research.evidence.family import TABLES as FAMILY
from research.evidence.ledger_tallies import TABLE as TALLIES
from research.evidence.standing import TABLE as RESULTS
from research.evidence.trials import Trial
from research.runs.former import command_now

# One tuple of statements per version of the file; an older file gets those it has not seen.
SCHEMA: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE data (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, lineage INTEGER NOT NULL, level INTEGER NOT NULL,"
        " candles INTEGER NOT NULL, sketch BLOB NOT NULL)",
        "CREATE TABLE trials (id INTEGER PRIMARY KEY, data INTEGER NOT NULL REFERENCES data, params TEXT NOT NULL,"
        " predictions TEXT NOT NULL, time INTEGER NOT NULL, name TEXT NOT NULL, sharpe REAL, first_day INTEGER NOT NULL,"
        " returns BLOB NOT NULL, UNIQUE (data, params, predictions))",
    ),
    (
        *(f"ALTER TABLE trials ADD COLUMN {column}" for column in ("n_bars INTEGER", "skew REAL", "kurtosis REAL", "bars_per_year REAL")),
        "CREATE INDEX sampled ON trials (data, id) WHERE length(returns) > 0",
        "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
        "CREATE TRIGGER kept BEFORE DELETE ON trials BEGIN SELECT RAISE(ABORT, 'a trial is never deleted'); END",
        "CREATE TRIGGER unchanged BEFORE UPDATE ON trials BEGIN SELECT RAISE(ABORT, 'a trial is never changed'); END",
    ),
    RESULTS,
    FAMILY,
    ("ALTER TABLE trials ADD COLUMN autocorrelation REAL",),
    TALLIES,
    KEEPING,
)
REAL = (int, float, type(None))
COLUMNS: dict[str, Any] = {  # of a trial, each with the types that it may hold
    "params": str,
    "predictions": str,
    "time": int,
    "name": str,
    "sharpe": REAL,
    "first_day": int,
    "returns": bytes,
    "n_bars": (int, type(None)),
    "skew": REAL,
    "kurtosis": REAL,
    "bars_per_year": REAL,
    "autocorrelation": REAL,  # of a run
    "votes": (str, type(None)),  # an older file does not tell them from the predictions
}


def upgrade(db: sqlite3.Connection) -> None:
    """Create the tables, or those that an older file lacks; one process does it, the others wait."""
    db.execute("BEGIN IMMEDIATE")
    for statements in SCHEMA[db.execute("PRAGMA user_version").fetchone()[0] :]:
        for statement in statements:
            db.execute(statement)
    db.execute("INSERT OR IGNORE INTO facts VALUES ('name', ?)", (uuid.uuid4().hex,))
    db.execute(f"PRAGMA user_version = {len(SCHEMA)}")
    db.execute("COMMIT")


def check_version(db: sqlite3.Connection) -> None:
    """Raise ConfigError on a file that a newer version wrote: what it holds beyond this one's tables would not count."""
    found = db.execute("PRAGMA user_version").fetchone()[0]
    if found > len(SCHEMA):
        raise ConfigError(f"a trial ledger must be of version {len(SCHEMA)} or older, was {found}; install the version that wrote it")


def ledger_name(db: sqlite3.Connection) -> str:
    """Return the name that the file got when it was made."""
    return str(db.execute("SELECT value FROM facts WHERE name = 'name'").fetchone()[0])


def count_rows(db: sqlite3.Connection, table: str = "trials") -> int:
    """Return the number of rows. Raises ValueError where one was taken away: none is ever deleted, so their ids have no gap."""
    n, last = db.execute(f"SELECT COUNT(*), COALESCE(MAX(id), 0) FROM {table}").fetchone()
    if n != last:
        raise ValueError(f"{last - n:,} of {last:,} {table} missing")
    return int(n)


def holdings(db: sqlite3.Connection) -> dict[str, Any]:
    """Return what the file is to hold from now on. Raises ValueError where a row was taken away, or trials are in no tally."""
    n = count_rows(db)
    tallied = int(db.execute("SELECT COALESCE(SUM(n), 0) FROM tallies").fetchone()[0])
    if tallied != n:
        raise ValueError(f"{tallied:,} of {n:,} trials in the tallies")
    return {"ledger": ledger_name(db), "trials": n, "results": count_rows(db, "results")}


def row_of(trial: Trial, now: int) -> tuple[Any, ...]:
    """One row of the table, in the order of COLUMNS; NaN as NULL."""
    values = [getattr(trial, name, now) for name in COLUMNS]
    values[list(COLUMNS).index("returns")] = trial.returns.tobytes()
    return tuple(None if isinstance(value, float) and math.isnan(value) else value for value in values)


def read_row(row: tuple[Any, ...]) -> dict[str, Any]:
    """Name the cells of a row that begins with COLUMNS, without the returns; the command with its profile.

    Raises ValueError on a cell of another type.
    """
    named = dict(zip(COLUMNS, row))
    for name, value in named.items():
        if not isinstance(value, COLUMNS[name]):
            raise ValueError(f"{name} of a trial as {str(value)[:40]!r}")
    return {name: value for name, value in named.items() if name != "returns"} | {"name": command_now(named["name"])}
