"""Trials: a run or a row of a sweep, as the trial ledger keeps it (`spec` D-97), and how many independent ones many are worth."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qtcore.params import Params
from qtcore.profiles import LATER
from qtcore.types import NS_PER_DAY, Bars, Votes
from research.data.sketch import Sketch, sketch
from research.errors import ConfigError
from research.evidence.alpha import Outcome, hedged
from research.runs.benchmark import growth
from research.runs.record import RunRecord
from research.training.predictions import hash_votes

COMPARED = 200  # latest trials whose returns are correlated for the effective number
MIN_COMMON_DAYS = 30
MOST_TRIALS = 1_000_000_000  # that may be declared or assumed


@dataclass(frozen=True)
class Trial:
    """One try. sharpe: per bar, NaN when there is none; returns: net return of each UTC day from `first_day` on, empty when not kept.

    votes: hash of what the base models said; `predictions` names that and the meta layer. n_bars, skew, kurtosis (3 for a normal),
    autocorrelation: of the per-bar returns behind `sharpe`; bars_per_year: of the data's own calendar. outcome: of a run, its hedged
    sums, one row.
    """

    sketch: Sketch
    params: str
    predictions: str
    sharpe: float
    first_day: int
    returns: NDArray[np.float32]
    name: str = ""
    n_bars: int = 0
    skew: float = math.nan
    kurtosis: float = math.nan
    bars_per_year: float = math.nan
    autocorrelation: float = math.nan
    votes: str = ""
    outcome: Outcome | None = None


@dataclass(frozen=True)
class TrialSummary:
    """What has been tried on a lineage, and what a run must exceed to be an edge among all of it.

    variance: of the trials' per-bar Sharpe ratios, one for each data set. effective: trials worth of independent ones. set_aside: trials
    of all lineages that resets put aside before. invalid, implausible: how many of the trials are known to be that
    (`research.evidence.standing`); they were tries and count, their ratios and returns enter neither variance nor effective number.
    pending: how many other runs nobody has proven. declared: number of trials that was declared before the first, 0 for none.
    independent: trials that count as independent normal ones, because their returns are not known or they are declared and to come.
    critical, p, n_edges: of the run that asks, as in `research.evidence.sign_test.Judged`; None where no run with returns asks.
    """

    trials: int
    variance: float
    effective: float
    set_aside: int = 0
    invalid: int = 0
    implausible: int = 0
    pending: int = 0
    declared: int = 0
    independent: int = 0
    critical: float | None = None
    p: float | None = None
    n_edges: int = 0


def check_trials(name: str, n: int) -> None:
    """Raise ConfigError on a number of trials that nobody makes; luck among them would have no bound."""
    if not 1 <= n <= MOST_TRIALS:
        raise ConfigError(f"{name} must be in [1, {MOST_TRIALS:,}], was {n:,}")


def hash_params(values: Mapping[str, Any]) -> str:
    """Name a set of resolved parameters."""
    return hashlib.sha256(json.dumps(naming(values), sort_keys=True).encode()).hexdigest()[:32]


def naming(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that name a trial: without those of no effect that version 0.2 did not have, so that its trials stay known."""
    return {name: value for name, value in values.items() if name not in LATER or value != LATER[name]}


def daily_returns(close_time: NDArray[np.int64], equity: NDArray[np.float64]) -> tuple[int, NDArray[np.float32]]:
    """Net return of each UTC day: (first day number, one return a day, 0 where no bar closed)."""
    day = (close_time - 1) // NS_PER_DAY
    last = np.flatnonzero(np.append(day[1:] != day[:-1], True)) if len(day) else np.empty(0, np.int64)
    if len(last) == 0:
        return 0, np.empty(0, np.float32)
    start = np.concatenate([equity[:1], equity[last[:-1]]])
    out = np.zeros(int(day[-1] - day[0]) + 1, np.float32)
    out[day[last] - day[0]] = growth(equity[last], start)
    return int(day[0]), out


def trial_of(run: RunRecord, figures: Mapping[str, Any]) -> Trial:
    """Describe a run as a trial.

    figures: `per_bar`, `n_bars`, `skew`, `kurtosis`, `autocorrelation`, `bars_per_year` of its tested bars, as they stand in
    `summary["evidence"]["sharpe"]`.
    """
    first_day, returns = daily_returns(run.bars.close_time, run.result.equity)
    name = name_trial(
        run.bars, run.params, run.result.votes, run.meta, run.result.decisions.meta_action, run.own.hash if run.own.chain else ""
    )
    shape: dict[str, Any] = {key: _number(figures.get(key)) for key in ("skew", "kurtosis", "autocorrelation", "bars_per_year")}
    shape["n_bars"] = int(figures.get("n_bars") or 0)
    return Trial(
        *name[:3], _number(figures.get("per_bar")), first_day, returns, run.command, **shape, votes=name.votes, outcome=hedged(run)[1]
    )


class TrialName(NamedTuple):
    """What makes a trial the one that it is; `votes` as in `Trial`."""

    sketch: Sketch
    params: str
    predictions: str
    votes: str


def name_trial(bars: Bars, params: Params, votes: Votes, meta: Any, meta_action: NDArray[np.int8], layers: str = "") -> TrialName:
    """Name a run by what it was made of. meta: the learned meta layer or None; meta_action [n, S]: what it said, -1 for nothing.

    layers: hash of the file whose layers decided in the place of the chain's, empty for none.
    """
    base = predictions = hash_votes(votes)
    if meta is not None and (meta_action >= 0).any():  # what it said is a prediction too
        predictions = hashlib.sha256(f"{base} {meta.hash}".encode()).hexdigest()[: len(base)]
    if layers:  # another opinion or governor is another try
        predictions = hashlib.sha256(f"{predictions} {layers}".encode()).hexdigest()[: len(base)]
    return TrialName(sketch(bars), hash_params(params.flat()), predictions, base)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def effective_trials(trials: Iterable[Trial], n: int | None = None) -> float:
    """How many independent trials `n` (default: all of these) are worth: `r + (1 - r) * n`, r the mean correlation of daily returns.

    Pairs need 30 common days; the latest 200 trials with returns stand for all. Bailey and Lopez de Prado 2014, appendix 3.
    """
    given = list(trials)
    n = len(given) if n is None else n
    latest = [t for t in given if len(t.returns)][-COMPARED:]
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
