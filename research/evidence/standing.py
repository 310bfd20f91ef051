"""Standing of a trial: what proofs have found of it so far. Does what it earned count?

Rows of the ledger's table `results` say what became of a run; none is ever changed or deleted, and the latest one counts:

- `pending`: the run is in the ledger, and nobody has proven it: it was not asked for, interrupted, or cannot be done;
- `proven`: every check passed;
- `invalid`: a check failed; `implausible`: a figure is above what honest work reaches.

A trial that is invalid or implausible was a try and is counted, but what it earned is no measure of luck: its Sharpe ratio and returns
enter no statistic. What a proof finds of the *predictions* of a run (that they know the future, that nobody is so good) holds for every
trial with the same base predictions that was not proven itself, a sweep's rows among them. A proof reads files and is always the same for
the same files and source code: an invalid run becomes a proven one when either was mended and it is proven again, and the source's hash
stands in each row. Pending trials enter the statistics: would they not, leaving out the proof would lower the bar for everything else.
"""

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from research.evidence.ledger_tallies import VOTES, Ratios, Tally
from research.evidence.trials import Trial, TrialName
from research.runs.verdict import IMPLAUSIBLE, INVALID, OWN_WORK, too_good

PENDING, PROVEN = "pending", "proven"
SPOILT = (INVALID, IMPLAUSIBLE)

TABLE = (
    "ALTER TABLE trials ADD COLUMN votes TEXT",
    "CREATE TABLE results (id INTEGER PRIMARY KEY, trial INTEGER NOT NULL REFERENCES trials, time INTEGER NOT NULL,"
    f" outcome TEXT NOT NULL CHECK (outcome IN ('{PENDING}', '{PROVEN}', '{INVALID}', '{IMPLAUSIBLE}')),"
    " of_predictions INTEGER NOT NULL, detail TEXT NOT NULL, source TEXT NOT NULL)",
    "CREATE INDEX of_trial ON results (trial, id)",
    "CREATE TRIGGER results_kept BEFORE DELETE ON results BEGIN SELECT RAISE(ABORT, 'a result is never deleted'); END",
    "CREATE TRIGGER results_unchanged BEFORE UPDATE ON results BEGIN SELECT RAISE(ABORT, 'a result is never changed'); END",
)


@dataclass(frozen=True)
class Result:
    """What became of a run. of_predictions: it holds for its base predictions, whatever was made of them. detail: the check or figure.

    source: hash of the source code that proved.
    """

    outcome: str = PENDING
    of_predictions: bool = False
    detail: str = ""
    source: str = ""


def result_of(summary: Mapping[str, Any], certificate: Mapping[str, Any], source: str) -> Result:
    """Say what became of a run as the trial ledger keeps it. summary: with its verdict; source: hash of the source code that proved."""
    if summary["verdict"] == INVALID:
        failed = [check for check in certificate.get("checks", []) if not check["passed"]]
        return Result(INVALID, any(check.get("group") not in OWN_WORK for check in failed), summary["failed_check"] or "", source)
    if summary["verdict"] == IMPLAUSIBLE:
        return Result(IMPLAUSIBLE, True, too_good(summary["evidence"]) or "", source)
    return Result(PROVEN if summary["proven"] else PENDING, source=source)


class Standings:
    """What is known of the trials of some data sets. A trial is (hash of parameters, of predictions)."""

    def __init__(self, db: sqlite3.Connection, data: Sequence[int]) -> None:
        self._db, self._data, self._marks = db, data, ", ".join("?" * len(data))
        self._own: dict[tuple[str, str], tuple[str, str]] = {}  # outcome, votes
        self._spoilt: dict[str, str] = {}  # outcome by votes
        query = (  # + keeps SQLite from reading all trials of a data set, here and below
            f"SELECT params, predictions, {VOTES.format('')}, outcome, of_predictions FROM results"
            f" JOIN trials ON trials.id = results.trial WHERE +data IN ({self._marks}) ORDER BY results.time, results.id"
        )
        for params, predictions, votes, outcome, of_predictions in db.execute(query, data):
            self._own[params, predictions] = outcome, votes
            if outcome == PROVEN:
                self._spoilt.pop(votes, None)
            elif outcome in SPOILT and of_predictions:
                self._spoilt[votes] = outcome
        self.any_spoilt = any(outcome in SPOILT for outcome, _ in self._own.values())
        db.create_function("standing", 3, self.of, deterministic=True)

    def of(self, params: str, predictions: str, votes: str | None) -> str:
        """Say how a trial stands; empty for one that nobody was to prove, a sweep's row or one of an older ledger."""
        own, _ = self._own.get((params, predictions), ("", ""))
        return own if own not in ("", PENDING) else self._spoilt.get(votes or predictions, own)

    @property
    def counted(self) -> str:
        """Condition on rows of `trials`: what the trial earned enters the statistics."""
        return f"standing(params, predictions, votes) NOT IN {SPOILT}" if self.any_spoilt else "TRUE"

    def ratios(self, known: Sequence[Tally]) -> Ratios:
        """Sum up what the trials of tallies earned, as far as it enters the statistics."""
        found = Ratios()
        for tally in known:
            if tally.votes not in self._spoilt:
                found = found.plus(tally.ratios)
        query = f"SELECT sharpe FROM trials WHERE data IN ({self._marks}) AND params = ? AND predictions = ?"
        for key, (_, votes) in self._own.items():
            sign = (self.of(*key, votes) not in SPOILT) - (votes not in self._spoilt)  # where it stands otherwise than its votes
            for (sharpe,) in self._db.execute(query, (*self._data, *key)) if sign else ():
                found = found.plus(Ratios.of(sharpe), sign)
        return found

    def proven(self, but: tuple[str, str] | None = None) -> list[int]:
        """Return the ids of the trials that are proven, ascending; `but`: one that is left out."""
        mine = [key for key, (outcome, _) in self._own.items() if outcome == PROVEN and key != but]
        query = f"SELECT id FROM trials WHERE data IN ({self._marks}) AND params = ? AND predictions = ?"
        return sorted(row[0] for key in mine for row in self._db.execute(query, (*self._data, *key)))

    def tell(self, but: tuple[str, str] | None = None) -> dict[str, int]:
        """Count the trials that are pending, proven, invalid and implausible; `but`: one that is left out."""
        keys = {key: votes for key, (_, votes) in self._own.items()}
        if self._spoilt:
            like = ", ".join("?" * len(self._spoilt))
            query = f"SELECT params, predictions, {VOTES.format('')} FROM trials WHERE +data IN ({self._marks})"
            query += f" AND {VOTES.format('')} IN ({like})"
            keys |= {(params, predictions): votes for params, predictions, votes in self._db.execute(query, (*self._data, *self._spoilt))}
        return Counter(self.of(*key, votes) for key, votes in keys.items() if key != but)


def others_text(told: Mapping[str, Any]) -> str:
    """Say how many trials are not what a trial should be; empty when all are. told: `TrialSummary` as a table of names and values."""
    named = ((INVALID, "invalid"), (IMPLAUSIBLE, "implausible"), (PENDING, "not proven"))
    parts = [f"{told[name]:,} {word}" for name, word in named if told.get(name)]
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def append(db: sqlite3.Connection, trial: Trial | TrialName, result: Result, now: int) -> bool:
    """Append a result to a trial and say whether there is such one; that a proof is due is said only while nothing else is."""
    where = "FROM trials JOIN data ON data.id = trials.data WHERE digest = ? AND params = ? AND predictions = ?"
    found = db.execute(f"SELECT trials.id {where}", (trial.sketch.digest, trial.params, trial.predictions)).fetchone()
    if found is None:
        return False
    if result.outcome != PENDING or db.execute("SELECT 1 FROM results WHERE trial = ?", found).fetchone() is None:
        row = (*found, now, result.outcome, result.of_predictions, result.detail, result.source)
        db.execute("INSERT INTO results (trial, time, outcome, of_predictions, detail, source) VALUES (?, ?, ?, ?, ?, ?)", row)
    return True
