"""Threshold curves: what a threshold earns is piecewise constant, between two breakpoints nothing changes, so a curve can be exact.

A cell changes its mind where the threshold passes the cell's own figure (its confidence, its score), once. Those figures are all the
breakpoints there are; the chain is run once between each pair of neighbours, and accuracy is counted cell by cell.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from qtcore import Bars, Params
from qtcore.chain.decide import decide
from qtcore.chain.price import maps_on
from qtcore.choices import PolicyBase
from qtcore.meta import MetaSource, meta_problems
from qtcore.reading import is_read, why_unread
from qtcore.rules import Reason
from qtcore.types import F8, Action, Decisions
from research.errors import ConfigError, UserError
from research.runs.backtest import priced, resolved
from research.runs.case import Case
from research.runs.metrics import figures, outcomes
from research.training.predictions import Predictions, aligned

MAX_POINTS = 100_000
SHARES = tuple(sorted({k / n for n in range(2, 6) for k in range(1, n + 1)} | {1.0 - k / n for n in range(2, 6) for k in range(1, n + 1)}))


def _called(d: Decisions) -> NDArray[np.bool_]:
    return d.raw_action != Action.HOLD


FIGURE = {  # of each cell, that the threshold is compared with; NaN where the cell does not ask
    "governor.min_confidence": lambda d: np.where(_called(d), d.raw_confidence, np.nan),
    "arbiter.gate_confidence": lambda d: np.where(np.isin(d.arbiter_action, (Action.SELL, Action.BUY)), d.arbiter_confidence, np.nan),
    "arbiter.score_threshold": lambda d: np.abs(d.arbiter_score),
    "meta.low_confidence": lambda d: np.where(d.n_voters >= 2, d.ensemble_confidence, np.nan),
}
BY_COUNT = ("meta.consensus_threshold", "meta.disagreement_threshold")
THRESHOLDS = (*FIGURE, *BY_COUNT)


@dataclass(frozen=True)
class Curve:
    """One threshold, everything else fixed.

    table: one row a plateau, rising: the value lies above `above` and at most at `to` (the first row begins at the lower bound); its
    figures and the accuracy of the calls (BUY or SELL at or above `governor.min_confidence`, on labelled cells). chosen: the value asked
    about.
    """

    name: str
    chosen: float
    table: pd.DataFrame

    @property
    def at(self) -> int:
        """Row of the plateau that holds the chosen value."""
        return min(int(np.searchsorted(self.table["to"].to_numpy(), self.chosen)), len(self.table) - 1)

    @property
    def width(self) -> float:
        """Width of the chosen value's plateau: over it not one bit of the result changes."""
        row = self.table.iloc[self.at]
        return float(row["to"] - row["above"])

    def cliff(self, fall: float = 0.01) -> tuple[float, float]:
        """Return how far the chosen value may move down and up before the return falls by more than `fall` (a fraction of initial equity).

        Infinity where it never does.
        """
        returns, at = self.table["total_return"].to_numpy(), self.at
        below = np.flatnonzero(returns[: at + 1] < returns[at] - fall)
        above = np.flatnonzero(returns[at:] < returns[at] - fall)
        down = self.chosen - float(self.table["to"].iloc[below[-1]]) if len(below) else np.inf
        up = float(self.table["above"].iloc[at + above[0]]) - self.chosen if len(above) else np.inf
        return down, up


def threshold_curve(
    bars: Bars,
    predictions: Predictions,
    name: str,
    params: Params | None = None,
    *,
    low: float | None = None,
    high: float | None = None,
    nearest: int = 0,
    meta: MetaSource | None = None,
) -> Curve:
    """Work out what every value of a threshold earns, between `low` and `high` (its bounds by default).

    name: one of THRESHOLDS. meta: a learned meta layer, as `backtest` takes it. nearest: where there are more breakpoints,
    only so many around the value of `params`. Raises UserError on another name, and where there are more than 100,000 breakpoints.
    """
    if name not in THRESHOLDS:
        raise UserError(f"an exact curve needs a threshold, was {name!r}; they are {', '.join(THRESHOLDS)}")
    predictions = aligned(predictions, bars)
    params = resolved(params or Params(), predictions)
    predictions = priced(bars, predictions, params, meta=meta)
    if not is_read(params, name):
        raise ConfigError(f"an exact curve must be of a parameter that is read, was {name}, which is not {why_unread(params, name)}")
    if name == "meta.low_confidence" and params.meta.policy_base != PolicyBase.SHARED:
        raise UserError("an exact curve of meta.low_confidence needs meta.policy_base shared, was score; sweep it on a grid")
    layer, key = name.split(".")
    spec = type(getattr(params, layer)).__dataclass_fields__[key].metadata
    ends = (spec["low"] if low is None else low, spec["high"] if high is None else high)
    case, chosen = Case.of(bars, predictions, meta=meta), float(getattr(getattr(params, layer), key))
    opinion = _Opinion(case, predictions)
    own = FIGURE[name](opinion.of(params)) if name in FIGURE else np.array(SHARES)
    inside = np.unique(own[(own >= ends[0]) & (own < ends[1])])
    if 0 < nearest < len(inside) - 1:
        first = int(np.clip(np.searchsorted(inside, chosen) - nearest // 2, 0, len(inside) - 1 - nearest))
        inside = inside[first : first + nearest + 1]
        ends, inside = (float(inside[0]), float(inside[-1])), inside[1:-1]
    if len(inside) > MAX_POINTS:
        raise UserError(f"an exact curve must have at most {MAX_POINTS:,} breakpoints, was {len(inside):,}; narrow it with low and high")
    points = np.append(inside, ends[1])
    table = _merged(pd.DataFrame({"above": np.append(ends[0], inside), "to": points, **_run(case, params, layer, key, points)}))
    calls, right = opinion.scored(params, name, own, ends, table["to"].to_numpy())
    table["n_calls"], table["accuracy"] = calls, np.where(calls > 0, right / np.maximum(calls, 1), np.nan)
    return Curve(name, chosen, table)


def _run(case: Case, params: Params, layer: str, key: str, points: F8) -> dict[str, NDArray]:
    records = np.repeat(params.record(), len(points))
    records[layer][key] = points
    metrics = case.metrics(records, params)
    told = figures(metrics, case.n_returns(records), case.bars_per_year)
    kept = {k: told[k] for k in ("total_return", "sharpe", "max_drawdown", "n_trades", "fees")}
    return kept | {"outcome": outcomes(metrics)}


def _merged(table: pd.DataFrame) -> pd.DataFrame:
    """Join neighbours with the same outcome."""
    outcome = table["outcome"].to_numpy()
    starts = np.flatnonzero(np.append(True, outcome[1:] != outcome[:-1]))
    out = table.iloc[starts].copy()
    out["to"] = table["to"].to_numpy()[np.append(starts[1:], len(table)) - 1]
    return out.drop(columns="outcome").reset_index(drop=True)


class _Opinion:
    """What the layers before the governor say, and how often they are right."""

    def __init__(self, case: Case, predictions: Predictions) -> None:
        self.case, self.labels = case, predictions.labels
        self._alone: dict[str, Any] = {}

    def of(self, params: Params) -> Decisions:
        """Decide every cell."""
        key = repr((params.features, params.arbiter.macd_units))
        if key not in self._alone:
            self._alone[key] = self.case.run_alone(params)
        planes, meta = self._alone[key].planes, self.case.meta
        problem = Reason.MODEL_NOT_LOADED if meta is None else meta_problems(meta, self.case.bars.close_time)
        votes, alone = self.case.votes, self._alone[key]
        maps = None if votes.maps is None else maps_on(votes.maps, self.case.bars.close_time, len(self.case.bars.symbols))
        seen = votes, planes.arbiter, planes.regime
        return decide(*seen, params, alone.meta_probs, meta_problem=problem, pricing=alone.pricing, maps=maps)

    def marks(self, params: Params) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Mark the calls [n, S] and the right ones among them."""
        d = self.of(params)
        calls = _called(d) & (d.raw_confidence >= params.governor.min_confidence) & (self.labels >= 0)
        return calls.astype(np.int64), (calls & (d.raw_action == self.labels)).astype(np.int64)

    def scored(self, params: Params, name: str, own: F8, ends: tuple[float, float], points: F8) -> tuple[NDArray, NDArray]:
        """Count calls and right ones at every point: from the lowest value on, each cell changes once, above its own figure."""
        if name in BY_COUNT:
            pairs = [tuple(marks.sum() for marks in self.marks(params.with_values({name: float(p)}))) for p in points]
            return np.array([c for c, _ in pairs]), np.array([r for _, r in pairs])
        before, after = (self.marks(params.with_values({name: float(end)})) for end in ends)
        at = np.searchsorted(points, own.reshape(-1), side="right")  # the first point above the cell's figure
        out = []
        for one, other in zip(before, after, strict=True):
            change = (other - one).reshape(-1)
            moved = np.flatnonzero((change != 0) & (at < len(points)))
            out.append(one.sum() + np.cumsum(np.bincount(at[moved], change[moved], len(points))).astype(np.int64))
        return out[0], out[1]
