"""Merge of trial ledgers: what was tried elsewhere counts here too, as if it had been tried here.

Every row is added once, so a second merge changes nothing. Where both ledgers call a market by the same first data set, its draws are the
same ones, and what follows is what one ledger would say, bit for bit. Where they do not, the other's maxima stay draws of their own, which
asks for more of an edge; `Merged.renamed` counts such markets.
"""

import json
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from research.data.sketch import Sketch
from research.errors import ConfigError, UserError
from research.evidence.family import Drawn, enter, keep_run, runs_of, swept
from research.evidence.ledger_reading import data_of, name_of
from research.evidence.ledger_tables import COLUMNS, check_version, count_rows, holdings, read_row, upgrade
from research.evidence.trials import check_trials
from research.files import misfit

OF_RESULT = "time, outcome, of_predictions, detail, source"
RESETS = "SELECT value FROM facts WHERE name = 'resets'"


class Merged(NamedTuple):
    """How many trials a ledger gained, and for how many markets the other's draws had another name."""

    trials: int
    renamed: int


@contextmanager
def copied(path: Path) -> Iterator[Path]:
    """Copy a ledger to a temporary file and bring it up to date. Raises ConfigError on a file that is none or is damaged."""
    rule = f"--merge must name a trial ledger, the trials.sqlite of another QT_HOME, was {str(path)!r}"
    if not path.is_file():
        raise ConfigError(f"{rule}, where no file is")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "other.sqlite"
        try:
            with (
                closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as other,
                closing(sqlite3.connect(copy, isolation_level=None)) as db,
            ):
                other.backup(db)
                db.execute("SELECT params FROM trials JOIN data ON data.id = trials.data LIMIT 1")  # of another program: no such table
                check_version(db)
                upgrade(db)
                _check(db)
        except (sqlite3.DatabaseError, TypeError, ValueError, LookupError, OverflowError, UserError) as error:
            raise ConfigError(f"{rule} ({error})") from error
        yield copy


def _check(db: sqlite3.Connection) -> None:
    """Read whatever a merge takes over. Raises on what a cell must not hold: the ledger that gained it could not be read any more."""
    holdings(db)
    if lost := db.execute("PRAGMA foreign_key_check").fetchall():
        raise ValueError(f"{len(lost):,} rows of {lost[0][0]} without their {lost[0][2]}")
    for row in db.execute(f"SELECT {', '.join(COLUMNS)} FROM trials"):
        read_row(row)
    for digest, level, candles, blob in db.execute("SELECT digest, level, candles, sketch FROM data"):
        if Sketch(np.frombuffer(blob, np.uint64), level, candles).digest != digest:
            raise ValueError("candles of another name")
    swept(db, [each for (each,) in db.execute("SELECT id FROM data")])
    runs_of(db, [trial for (trial,) in db.execute("SELECT trial FROM run_sums")])
    for (n,) in db.execute("SELECT n FROM declared"):
        check_trials("a declaration", n)
    for (text,) in db.execute(RESETS):
        if found := misfit(json.loads(text), [{"file": str, "trials": int, "time": int}]):
            raise ValueError(f"resets {found}")


def merge(db: sqlite3.Connection, copy: Path, joined: Callable[[Sketch], int]) -> Merged:
    """Add the rows of `copy`, attached to `db` as `other`, inside a transaction. joined: makes a data set known here, returns its id."""
    before = count_rows(db)
    with closing(sqlite3.connect(copy)) as other:
        sketches = other.execute("SELECT id, level, candles, sketch FROM data ORDER BY id").fetchall()
        sets = {each: joined(Sketch(np.frombuffer(blob, np.uint64), level, candles)) for each, level, candles, blob in sketches}
        ids = _add_trials(db, sets)
        for (trial,) in other.execute("SELECT trial FROM run_sums ORDER BY trial"):
            keep_run(db, ids(trial), runs_of(other, [trial])[1][0])
        renamed = set()
        for there, here in sets.items():
            lineage = _lineage(db, here)
            if (name := name_of(db, lineage)) != name_of(other, _lineage(other, there)):
                renamed.add(name)
            entered = [ids(trial) for (trial,) in other.execute("SELECT trial FROM entered WHERE data = ?", (there,))]
            if entered:
                kept, highest = swept(other, [there])
                enter(db, here, lineage, name, entered, Drawn(highest, tuple(kept)))
            for row in other.execute("SELECT n, time FROM declared WHERE data = ?", (there,)):
                db.execute("INSERT OR IGNORE INTO declared VALUES (?, ?, ?)", (here, *row))
    return Merged(count_rows(db) - before, len(renamed))


def _add_trials(db: sqlite3.Connection, sets: dict[int, int]) -> Callable[[int], int]:
    """Add trials and results, and what was put aside; return what finds the id here of a trial there. sets: ids there and here."""
    db.execute("CREATE TEMP TABLE sets (there INTEGER PRIMARY KEY, here INTEGER)")
    db.executemany("INSERT INTO sets VALUES (?, ?)", sets.items())
    columns = ", ".join(COLUMNS)
    theirs = f"SELECT here, {columns} FROM other.trials JOIN sets ON there = data ORDER BY id"
    db.execute(f"INSERT OR IGNORE INTO main.trials (data, {columns}) {theirs}")
    db.execute(
        "CREATE TEMP TABLE ids AS SELECT o.id AS there, t.id AS here FROM other.trials AS o JOIN sets ON sets.there = o.data"
        " JOIN main.trials AS t ON t.data = sets.here AND t.params = o.params AND t.predictions = o.predictions"
    )
    db.execute("CREATE UNIQUE INDEX temp.by_there ON ids (there)")
    db.execute(
        f"INSERT INTO main.results (trial, {OF_RESULT}) SELECT here, {OF_RESULT} FROM other.results JOIN ids ON there = trial"
        f" EXCEPT SELECT trial, {OF_RESULT} FROM main.results ORDER BY 2"
    )
    rows = {
        (row["time"], row["file"]): row
        for name in ("main", "other")
        for text in db.execute(RESETS.replace("facts", f"{name}.facts"))
        for row in json.loads(*text)
    }
    if rows:
        db.execute("INSERT OR REPLACE INTO main.facts VALUES ('resets', ?)", (json.dumps([rows[key] for key in sorted(rows)]),))
    return lambda trial: int(db.execute("SELECT here FROM ids WHERE there = ?", (trial,)).fetchone()[0])


def _lineage(db: sqlite3.Connection, data: int) -> list[int]:
    return data_of(db, {int(db.execute("SELECT lineage FROM data WHERE id = ?", (data,)).fetchone()[0])})
