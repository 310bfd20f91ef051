"""Trial ledger: append-only record of everything that was ever tried on the same candles. How many tries did it take?

`spec` D-97. One trial = (data lineage, resolved parameters, hash of predictions); an identical rerun is none. The ledger is one SQLite file
in `QT_HOME` (default `~/.qt`); several processes may write at once. Data sets that share half of their candles make one lineage
(`research.data.sketch`), and so do data sets linked by a third. What is tried on a part of the candles, a fold, is tried on their lineage:
it counts as the trial that it is on all of them (`research.sweep.counting`).

A run is counted before its proof, so that an interrupt hides nothing; what the proof found is a row of its own
(`research.evidence.standing`).

**It does not shrink unnoticed.** The database refuses to change or delete a row. Beside it lies `trials.witness` with the ledger's name
and the least number of trials and results it must hold, written after every commit: a ledger that is gone, another one, or older than
its witness stops a run with one sentence, and so does one with a row missing. `reset` puts the file aside, and the new one remembers its
name and size. Who deletes the whole folder deletes the witness too; nothing on the machine can tell.
"""

import json
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from research.data.sketch import Sketch, shared
from research.errors import ConfigError, UserError
from research.evidence.family import Drawn, enter, keep_run
from research.evidence.ledger_merge import Merged, copied, merge
from research.evidence.ledger_reading import data_of, highest, id_of, judged, luck, name_of, seen
from research.evidence.ledger_tables import COLUMNS, SCHEMA, check_version, count_rows, holdings, read_row, row_of, upgrade
from research.evidence.sign_test import ALONE, F4
from research.evidence.standing import Result, Standings, append
from research.evidence.trials import Trial, TrialName, TrialSummary, check_trials, trial_of
from research.files import Kind, home, read_json, save_json
from research.runs.former import command_now

BUSY_SECONDS = 60.0
WITNESS = Kind(
    "the witness of the trial ledger", "remove it to accept the ledger as it is", {"ledger": str, "trials": int, "results?": int}
)
T = TypeVar("T")

__all__ = ["Ledger", "Result", "Trial", "TrialSummary", "trial_of"]


class Ledger:
    """The trials of one `QT_HOME`.

    >>> Ledger(Path("nowhere") / "trials.sqlite").count()
    0
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = home() / "trials.sqlite" if path is None else path

    def record(self, trial: Trial, result: Result | None = None) -> TrialSummary:
        """Count a trial, once, and say what its lineage has seen so far, itself included.

        result: what became of it, `Result()` for a run whose proof is due, None for a trial that nobody is to prove. Raises UserError when
        the file cannot be written, is damaged or gone.
        """
        return self._write(lambda: self._record([trial], result))

    def settle(self, name: TrialName, result: Result) -> bool:
        """Append what a proof found of a trial; say whether the ledger knows it, and write nothing where not. Errors as in `record`."""
        if self._is_new():
            return False
        return self._write(lambda: self._settle(name, result))

    def record_many(self, trials: Sequence[Trial]) -> TrialSummary:
        """Count the trials of one data set, each once, in one transaction, and say what the lineage has seen so far, these included.

        For the rows of a sweep: 10,000 take 0.2 s. `returns` may be empty for most; the effective number needs some of them. Raises
        UserError as `record` does, and when the trials are of several data sets.
        """
        self._check(trials)
        return self._write(lambda: self._record(trials))

    @staticmethod
    def _check(trials: Sequence[Trial]) -> None:
        if (len({id(t.sketch) for t in trials}) > 1 and len({t.sketch.digest for t in trials}) != 1) or not trials:
            raise UserError(f"trials recorded at once must be of one data set, was {len({t.sketch.digest for t in trials})}")

    def _write(self, work: Callable[[], tuple[T, dict[str, Any]]]) -> T:
        """Do `work` on the file and write the witness."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            done, least = self._guarded("writable", work)
            self._testify(least)
        except OSError as error:
            raise UserError(f"trial ledger must be writable, was {self.path} ({error}); set QT_HOME to another folder") from error
        return done

    def add(self, trials: Sequence[Trial], drawn: Drawn | None = None) -> None:
        """Count trials as `record_many` does, without summing up what the lineage has seen: for a part of many.

        drawn: what their returns leave for the judgement of others, drawn for `lineage_name`; None where these are not known.
        """
        self._check(trials)
        self._write(lambda: self._record(trials, drawn=drawn, is_last=False))

    def lineage_name(self, data: Sketch) -> str:
        """Name the lineage of `data` as its draws do: by its first data set."""
        return data.digest if self._is_new() else self._guarded("readable", lambda: self._named(data))

    def unknown(self, data: Sketch, params: Sequence[str], predictions: str) -> list[str]:
        """Return those of `params` whose returns are not known here, in their order; trials of one data set and its predictions."""
        return list(params) if self._is_new() else self._guarded("readable", lambda: self._unknown(data, params, predictions))

    def declare(self, data: Sketch, n: int) -> None:
        """Declare before the first trial on the lineage of `data` that there will be `n`.

        Once declared is declared: again with the same number changes nothing. Raises UserError where trials were made or another number
        was declared before, and on a number outside [1, MOST_TRIALS].
        """
        check_trials("--declare", n)
        self._write(lambda: self._declare(data, n))

    def merge(self, other: Path) -> Merged:
        """Count what another ledger counted too; `other` is not changed. Raises UserError on a file that is no ledger or is damaged."""
        self.resets()  # one that is damaged or gone is told before the work
        with copied(other) as copy:
            return self._write(lambda: self._merge(copy))

    def look(self, trial: Trial) -> TrialSummary:
        """Say what `record` would, and write nothing."""
        if self._is_new():
            return judged(TrialSummary(1, 0.0, 1.0), trial)
        return self._guarded("readable", lambda: self._look(trial))

    def tried(self, data: Sketch) -> TrialSummary:
        """Say what the lineage of `data` has seen so far, without a trial of one's own."""
        if self._is_new():
            return TrialSummary(0, 0.0, 0.0)
        return self._guarded("readable", lambda: self._look(None, data))

    def luck(self, data: Sketch) -> F4:
        """Return the highest t value of each draw among all that was tried on the lineage of `data`, [DRAWS]; -inf where nothing was."""
        return ALONE if self._is_new() else self._guarded("readable", lambda: self._luck(data))

    def count(self) -> int:
        """Trials of all lineages."""
        query = "SELECT COUNT(*) FROM (SELECT DISTINCT lineage, params, predictions FROM trials JOIN data ON data.id = trials.data)"
        return 0 if self._is_new() else int(self._guarded("readable", lambda: self._fetch(query))[0][0])

    def table(self) -> list[dict[str, Any]]:
        """List every trial, oldest first: id, lineage, and what `Trial` holds but for returns."""
        columns = ("id", "lineage", *(name for name in COLUMNS if name != "returns"))
        query = f"SELECT trials.{', '.join(columns)} FROM trials JOIN data ON data.id = trials.data ORDER BY trials.id"
        rows = [] if self._is_new() else [dict(zip(columns, row)) for row in self._guarded("readable", lambda: self._fetch(query))]
        return [row | {"name": command_now(row["name"])} for row in rows]

    def results(self) -> list[dict[str, Any]]:
        """List what became of the trials, oldest first: trial (its id in `table`), time (ns UTC), outcome, detail, source."""
        columns = ("trial", "time", "outcome", "detail", "source")
        query = f"SELECT {', '.join(columns)} FROM results ORDER BY id"
        return [] if self._is_new() else [dict(zip(columns, row)) for row in self._guarded("readable", lambda: self._fetch(query))]

    def lineages(self, data: Sketch | None = None) -> list[dict[str, Any]]:
        """Describe every lineage, or those of `data`: lineage, data sets, candles, first and last time (ns UTC), trials, best one.

        The best, by Sharpe ratio, is of the trials whose returns count; its `standing` is as in `research.evidence.standing`. highest: the
        highest t value and what it had to exceed, None where no returns are known.
        """
        return [] if self._is_new() else self._guarded("readable", lambda: self._describe(data))

    def resets(self) -> list[dict[str, Any]]:
        """List earlier ledgers that were put aside, oldest first: file, trials, time (ns UTC)."""
        return [] if self._is_new() else self._guarded("readable", self._resets)

    def reset(self) -> Path | None:
        """Put the ledger aside and begin a new one that remembers it; return where the old one lies, None when there was none.

        Works on a damaged or missing ledger too.
        """
        witness, earlier, trials = self._witness(), [], 0
        if self.path.exists():
            with suppress(sqlite3.Error, ValueError, UserError), self._open(check=False) as db:
                earlier, trials = self._resets(db), count_rows(db)
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        now = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        aside = self.path.with_name(f"{self.path.stem}-{now}-{uuid.uuid4().hex[:4]}{self.path.suffix}")
        for ending in ("", "-wal", "-shm"):
            if (part := Path(f"{self.path}{ending}")).exists():
                part.rename(f"{aside}{ending}")
        self._witness_path.unlink(missing_ok=True)
        trials = max(trials, int(witness.get("trials", 0)))
        if trials:
            row = {"file": aside.name, "trials": trials, "time": time.time_ns()}
            with self._open() as db:
                db.execute("INSERT INTO facts VALUES ('resets', ?)", (json.dumps([*earlier, row]),))
                self._testify(holdings(db))
        return aside if aside.exists() else None

    def _record(
        self, trials: Sequence[Trial], result: Result | None = None, drawn: Drawn | None = None, is_last: bool = True
    ) -> tuple[TrialSummary, dict[str, Any]]:
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            now = time.time_ns()
            data, lineage = self._joined(db, trials[0].sketch)
            marks = ", ".join("?" * (len(COLUMNS) + 1))
            db.executemany(
                f"INSERT OR IGNORE INTO trials (data, {', '.join(COLUMNS)}) VALUES ({marks})",
                ((data, *row_of(trial, now)) for trial in trials),
            )
            if result is not None:
                for trial in trials:
                    append(db, trial, result, now)
            if drawn is not None:
                sets = data_of(db, {lineage})
                enter(db, data, sets, name_of(db, sets), [id_of(db, data, trial) for trial in trials], drawn)
            for trial in trials:
                if trial.outcome is not None:
                    keep_run(db, id_of(db, data, trial), trial.outcome)
            tried = self._tried(db, {lineage}, trials[0] if len(trials) == 1 else None) if is_last else TrialSummary(0, 0.0, 0.0)
            least = holdings(db)
            db.execute("COMMIT")
        return tried, least

    def _settle(self, name: TrialName, result: Result) -> tuple[bool, dict[str, Any]]:
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            known = append(db, name, result, time.time_ns())
            least = holdings(db)
            db.execute("COMMIT")
        return known, least

    def _look(self, trial: Trial | None, data: Sketch | None = None) -> TrialSummary:
        with self._open() as db:
            wanted = data if trial is None else trial.sketch
            assert wanted is not None
            return self._tried(db, self._lineages(db, wanted), trial)

    def _joined(self, db: sqlite3.Connection, mine: Sketch) -> tuple[int, int]:
        """Return the id and the lineage of a data set, which joins the lineages that share its candles, or begins one."""
        lineages = self._lineages(db, mine)
        lineage = min(lineages, default=1 + int(db.execute("SELECT COALESCE(MAX(lineage), 0) FROM data").fetchone()[0]))
        db.executemany("UPDATE data SET lineage = ? WHERE lineage = ?", [(lineage, other) for other in lineages - {lineage}])
        row = (mine.digest, lineage, mine.level, mine.candles, mine.hashes.tobytes())
        db.execute("INSERT OR IGNORE INTO data (digest, lineage, level, candles, sketch) VALUES (?, ?, ?, ?, ?)", row)
        return int(db.execute("SELECT id FROM data WHERE digest = ?", (mine.digest,)).fetchone()[0]), lineage

    def _named(self, data: Sketch) -> str:
        with self._open() as db:
            return name_of(db, data_of(db, self._lineages(db, data))) or data.digest

    def _luck(self, data: Sketch) -> F4:
        with self._open() as db:
            return luck(db, data_of(db, self._lineages(db, data)))

    def _unknown(self, data: Sketch, params: Sequence[str], predictions: str) -> list[str]:
        with self._open() as db:
            query = (
                "SELECT 1 FROM trials JOIN data ON data.id = trials.data JOIN entered ON entered.data = data.id AND trial = trials.id"
                " WHERE digest = ? AND params = ? AND predictions = ?"
            )
            return [each for each in params if db.execute(query, (data.digest, each, predictions)).fetchone() is None]

    def _declare(self, data: Sketch, n: int) -> tuple[None, dict[str, Any]]:
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            each, lineage = self._joined(db, data)
            tried = self._tried(db, {lineage})
            if tried.declared not in (0, n):
                raise ConfigError(f"--declare must be {tried.declared:,}, as declared on these candles before, was {n:,}; leave it out")
            if tried.trials and not tried.declared:
                raise ConfigError(
                    f"--declare must come before the first trial on these candles, was after {tried.trials:,}; leave it out, or take "
                    "candles that nothing was tried on"
                )
            db.execute("INSERT OR IGNORE INTO declared VALUES (?, ?, ?)", (each, n, time.time_ns()))
            least = holdings(db)
            db.execute("COMMIT")
        return None, least

    def _merge(self, copy: Path) -> tuple[Merged, dict[str, Any]]:
        with self._open() as db:
            db.execute("ATTACH ? AS other", (str(copy),))
            db.execute("BEGIN IMMEDIATE")
            merged = merge(db, copy, lambda each: self._joined(db, each)[0])
            least = holdings(db)
            db.execute("COMMIT")
        return merged, least

    def _tried(self, db: sqlite3.Connection, lineages: set[int], extra: Trial | None = None) -> TrialSummary:
        return seen(db, data_of(db, lineages), extra, sum(row["trials"] for row in self._resets(db)))

    def _describe(self, wanted: Sketch | None) -> list[dict[str, Any]]:
        with self._open() as db:
            known = {int(row[0]) for row in db.execute("SELECT DISTINCT lineage FROM data")}
            out = []
            for lineage in sorted(known if wanted is None else self._lineages(db, wanted)):
                data = data_of(db, {lineage})
                marks = ", ".join("?" * len(data))
                candles = db.execute(f"SELECT MAX(candles) FROM data WHERE id IN ({marks})", data).fetchone()[0]
                times = f"SELECT time FROM {{}} WHERE +data IN ({marks})"
                known_since = f"{times.format('trials')} UNION ALL {times.format('declared')}"  # declared, and nothing tried yet
                first, last = db.execute(f"SELECT MIN(time), MAX(time) FROM ({known_since})", [*data, *data]).fetchone()
                if first is None:
                    continue
                standings = Standings(db, data)
                ranked = f"WHERE data IN ({marks}) AND {standings.counted} AND sharpe IS NOT NULL ORDER BY sharpe DESC, id LIMIT 1"
                best = db.execute(
                    f"SELECT {', '.join(COLUMNS)}, standing(params, predictions, votes) FROM trials {ranked}", data
                ).fetchone()
                figures = None if best is None else read_row(best) | {"standing": best[-1]}
                row = {"lineage": lineage, "data_sets": len(data), "candles": int(candles), "first": int(first), "last": int(last)}
                out.append(row | {"tried": self._tried(db, {lineage}), "best": figures, "highest": highest(db, data)})
        return out

    def _resets(self, db: sqlite3.Connection | None = None) -> list[dict[str, Any]]:
        query = "SELECT value FROM facts WHERE name = 'resets'"
        rows = self._fetch(query) if db is None else db.execute(query).fetchall()
        found: list[dict[str, Any]] = json.loads(rows[0][0]) if rows else []
        return found

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

    def _fetch(self, query: str) -> list[Any]:
        with self._open() as db:
            return db.execute(query).fetchall()

    @contextmanager
    def _open(self, check: bool = True) -> Iterator[sqlite3.Connection]:
        """Connect, bring an older file up to date, and compare it with its witness."""
        witness = self._witness() if check else {}
        if witness and not self.path.exists():
            raise _gone(self.path, witness)
        db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            check_version(db)
            if db.execute("PRAGMA user_version").fetchone()[0] < len(SCHEMA):
                upgrade(db)
            held = holdings(db)
            if witness and (held["ledger"] != witness["ledger"] or any(held[name] < witness[name] for name in ("trials", "results"))):
                raise _gone(self.path, witness)
            yield db
        finally:
            db.close()

    def _is_new(self) -> bool:
        """Nothing was ever counted here. Raises UserError when something was, and the file is gone, or where no file can be."""
        if self.path.parent.is_file():
            raise UserError(f"QT_HOME must be a folder, was the file {self.path.parent}; name another one")
        if not self.path.exists() and (witness := self._witness()):
            raise _gone(self.path, witness)
        return not self.path.exists()

    @property
    def _witness_path(self) -> Path:
        return self.path.with_suffix(".witness")

    def _witness(self) -> dict[str, Any]:
        if not self._witness_path.exists():
            return {}
        found: dict[str, Any] = read_json(self._witness_path, WITNESS)
        return {"ledger": found["ledger"], "trials": found["trials"], "results": found.get("results", 0)}

    def _testify(self, least: Mapping[str, Any]) -> None:
        """Write the witness; a slower process may write a smaller number, which is true as well."""
        save_json(self._witness_path, dict(least))

    def _guarded(self, what: str, work: Callable[[], T]) -> T:
        """Do `work`, again while another process creates the file or holds it: SQLite's own patience does not cover the switch to WAL."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                return work()
            except sqlite3.OperationalError as error:
                if not ("locked" in str(error) or "busy" in str(error)):
                    raise UserError(f"trial ledger must be {what}, was {self.path} ({error}); set QT_HOME to another folder") from error
                if time.monotonic() > deadline:
                    text = f"trial ledger must be free within {BUSY_SECONDS:.0f} s, was locked at {self.path}; end the other process"
                    raise UserError(text) from error
                time.sleep(0.05)
            except UserError:
                raise
            except (sqlite3.DatabaseError, TypeError, ValueError, LookupError, OverflowError) as error:  # also what a cell should not hold
                raise UserError(
                    f"trial ledger must be {what}, was damaged at {self.path} ({error}); put a copy back, or `qt trials --reset` "
                    "sets it aside and says so from then on"
                ) from error


def _gone(path: Path, witness: Mapping[str, Any]) -> UserError:
    was = "a shorter or another one" if path.exists() else "gone"
    return UserError(
        f"trial ledger must hold the {witness['trials']:,} trials it once held, was {was} at {path}; put the file back, or "
        "`qt trials --reset` begins a new one that says so"
    )
