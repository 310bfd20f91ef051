"""Ledger reading: what the trial ledger has seen of a lineage, as one summary, and how one more run stands among it."""

import json
import math
import sqlite3
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from research.data.sketch import Sketch
from research.evidence.alpha import Outcome
from research.evidence.family import runs_of, swept
from research.evidence.ledger_tallies import Ratios, Tally, tallies
from research.evidence.sign_test import ALONE, F4, independent, judge, maxima
from research.evidence.standing import PENDING, SPOILT, Standings
from research.evidence.trials import COMPARED, Trial, TrialSummary, effective_trials
from research.runs.verdict import IMPLAUSIBLE, INVALID


def seen(db: sqlite3.Connection, data: Sequence[int], extra: Trial | None = None, set_aside: int = 0) -> TrialSummary:
    """Sum up a lineage, the ids of its data sets, and judge the trial that asks.

    extra: the trial that asks; it counts too unless it is known, and is not told among the others' standings. set_aside: trials that
    resets put aside.
    """
    marks, standings, known = ", ".join("?" * len(data)), Standings(db, data), tallies(db, data)
    distinct = "" if len(data) < 2 else "GROUP BY params, predictions"  # one data set holds no trial twice
    latest = db.execute(
        f"SELECT first_day, returns FROM trials WHERE data IN ({marks}) AND {standings.counted} AND length(returns) > 0 {distinct}"
        " ORDER BY id DESC LIMIT ?",
        (*data, COMPARED),
    ).fetchall()
    sampled = [_sampled(day, blob) for day, blob in reversed(latest)]
    n, ratios = _count(db, known), standings.ratios(known)
    is_new = extra is not None and not _ids(db, data, _key(extra))
    if extra is not None and is_new:
        n += 1
        if standings.of(*_key(extra), extra.votes) not in SPOILT:
            ratios, sampled = ratios.plus(Ratios.of(extra.sharpe)), [*sampled, extra]
    told = standings.tell(None if extra is None else _key(extra))
    standing = {name: told.get(name, 0) for name in (INVALID, IMPLAUSIBLE, PENDING)}
    declared = _declared(db, data, known)
    summed = TrialSummary(n, ratios.variance, effective_trials(sampled, n), set_aside, **standing, declared=declared)
    if extra is None or extra.outcome is None:
        proven, _ = runs_of(db, standings.proven())
        return replace(summed, independent=_count_unknown(db, known, proven) + is_new + max(0, declared - n))
    proven, runs = runs_of(db, standings.proven(_key(extra)))
    unknown = _count_unknown(db, known, proven, _key(extra)) + max(0, declared - n)
    others, rest = swept(db, data)
    return judged(replace(summed, independent=unknown), extra, name_of(db, data), [*others, *runs], rest)


def highest(db: sqlite3.Connection, data: Sequence[int]) -> tuple[float, float] | None:
    """Return the highest t value among all whose returns are known on a lineage, and the one that luck reaches in 1 of 20."""
    family, rest = _family(db, data)
    t, k, row = max(((float(outcome.t[i]), k, i) for k, outcome in enumerate(family) for i in [_best(outcome)]), default=(math.nan, 0, 0))
    if not math.isfinite(t):
        return None
    return t, judge(name_of(db, data), family[k].rows(np.array([row])), family, rest).critical


def luck(db: sqlite3.Connection, data: Sequence[int]) -> F4:
    """Return the highest t value of each draw among everything that was tried on a lineage."""
    family, found = _family(db, data)
    for outcome in family:
        found = maxima(name_of(db, data), outcome.keys, outcome.units, found)
    return found


def _family(db: sqlite3.Connection, data: Sequence[int]) -> tuple[list[Outcome], F4]:
    """Return the outcomes that are kept of a lineage, and the maxima of all else."""
    known = tallies(db, data)
    proven, runs = runs_of(db, Standings(db, data).proven())
    others, rest = swept(db, data)
    n = _count_unknown(db, known, proven) + max(0, _declared(db, data, known) - _count(db, known))
    return [*others, *runs], np.maximum(rest, independent(name_of(db, data), n))


def _best(outcome: Outcome) -> int:
    return int(np.argmax(np.nan_to_num(outcome.t, nan=-np.inf)))


def _count(db: sqlite3.Connection, known: Sequence[Tally]) -> int:
    """Count the distinct trials of a lineage."""
    data = sorted({tally.data for tally in known})
    if len(data) < 2:  # one data set holds no trial twice
        return sum(tally.n for tally in known)
    every = f"SELECT DISTINCT params, predictions FROM trials WHERE data IN ({', '.join('?' * len(data))})"
    return int(db.execute(f"SELECT COUNT(*) FROM ({every})", data).fetchone()[0])


def _declared(db: sqlite3.Connection, data: Sequence[int], known: Sequence[Tally]) -> int:
    """Return how many trials were declared before the first; one of a lineage, or of a ledger, that joined later is none."""
    marks = ", ".join("?" * len(data))
    first = min((tally.first for tally in known), default=None)
    found = db.execute(f"SELECT n, time FROM declared WHERE data IN ({marks}) ORDER BY n DESC", data).fetchall()
    return next((int(n) for n, time in found if first is None or time <= first), 0)


def data_of(db: sqlite3.Connection, lineages: set[int]) -> list[int]:
    """Return the ids of the data sets of lineages."""
    marks = ", ".join("?" * len(lineages))
    return [int(row[0]) for row in db.execute(f"SELECT id FROM data WHERE lineage IN ({marks})", tuple(lineages))]


def _sampled(first_day: int, blob: bytes) -> Trial:
    return Trial(_NO_SKETCH, "", "", math.nan, first_day, np.frombuffer(blob, np.float32))


_NO_SKETCH = Sketch(np.empty(0, np.uint64), 0, 0)


def _key(trial: Trial) -> tuple[str, str]:
    return trial.params, trial.predictions


def id_of(db: sqlite3.Connection, data: int, trial: Trial) -> int:
    """Return the id of a trial on a data set."""
    query = "SELECT id FROM trials WHERE data = ? AND params = ? AND predictions = ?"
    return int(db.execute(query, (data, *_key(trial))).fetchone()[0])


def name_of(db: sqlite3.Connection, data: Sequence[int]) -> str:
    """Name a lineage by its first data set; empty without any."""
    found = db.execute("SELECT digest FROM data WHERE id = ?", (min(data, default=0),)).fetchone()
    return "" if found is None else str(found[0])


def _ids(db: sqlite3.Connection, data: Sequence[int], key: tuple[str, str]) -> list[int]:
    """Return the ids of a trial on data sets."""
    query = f"SELECT id FROM trials WHERE data IN ({', '.join('?' * len(data))}) AND params = ? AND predictions = ?"
    return [int(row[0]) for row in db.execute(query, (*data, *key))]


def _count_unknown(db: sqlite3.Connection, known: Sequence[Tally], proven: Sequence[int], asks: tuple[str, str] = ("", "")) -> int:
    """Count the trials whose returns are not known: of no sweep that was entered, no run that is proven, and not the one that `asks`."""
    unswept = "NOT EXISTS (SELECT 1 FROM entered WHERE entered.data = trials.data AND trial = trials.id)"
    left: dict[int, int] = {}
    for data in {tally.data for tally in known}:
        runs = json.dumps(sorted({*proven, *_ids(db, [data], asks)}))
        query = f"SELECT COUNT(*) FROM trials WHERE +data = ? AND id IN (SELECT value FROM json_each(?)) AND {unswept}"
        others = db.execute(query, (data, runs)).fetchone()[0]
        entered = db.execute("SELECT COALESCE(MAX(n), 0) FROM maxima WHERE data = ?", (data,)).fetchone()[0]  # `swept` counts them
        left[data] = sum(tally.n for tally in known if tally.data == data) - entered - others
    if len(left) < 2:
        return sum(left.values())
    seen: set[tuple[str, str]] = set()  # one on several data sets is one
    for data in (data for data, n in left.items() if n):
        query = f"SELECT params, predictions FROM trials WHERE data = ? AND id NOT IN (SELECT value FROM json_each(?)) AND {unswept}"
        seen |= set(db.execute(query, (data, json.dumps(list(proven)))).fetchall())
    return len(seen - {asks})


def judged(summed: TrialSummary, trial: Trial, name: str = "", others: Sequence[Outcome] = (), rest: F4 = ALONE) -> TrialSummary:
    """Judge the run that asks among all that was tried; a lineage without a `name` is that of its candles."""
    if trial.outcome is None:
        return summed
    name = name or trial.sketch.digest
    found = judge(name, trial.outcome, others, np.maximum(rest, independent(name, summed.independent)))
    return replace(summed, critical=found.critical, p=found.p, n_edges=found.n_edges)
