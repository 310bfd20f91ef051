"""Walk-forward optimisation: the best setting on each stretch of time is scored on the next, which it has not seen. Does picking pay?"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from qtcore import Bars, Params
from qtcore.meta import MetaSource
from qtcore.sweep import equity_at
from qtcore.types import F8
from research.errors import ConfigError, UserError
from research.evidence.finding import judge_picks
from research.evidence.trials import TrialSummary
from research.runs.backtest import priced, resolved
from research.runs.benchmark import bar_returns
from research.runs.case import Case
from research.runs.search_plan import SearchPlan
from research.sweep.counting import FoldCounter
from research.sweep.run import checked, searched
from research.sweep.search_significance import MIN_PERIODS, day_ends
from research.sweep.trials import SweepResult
from research.sweep.work import Settings
from research.training.models.layers import NONE, Layers
from research.training.predictions import Predictions, aligned

FIGURES = ("sharpe", "total_return", "max_drawdown", "n_trades")
MIN_BARS = 30  # of a fold


@dataclass(frozen=True)
class Walk:
    """What picking gave.

    table: one row a pick, as `walk_forward` returns it. returns: net return of each day of the scored folds, one after the other; each
    fold starts flat, with the initial cash. verdict: `judge_picks` of them. tried: what the ledger has seen on these candles, None when
    the settings were not counted.
    """

    table: pd.DataFrame
    returns: F8
    verdict: dict[str, Any]
    tried: TrialSummary | None = None


def walk_forward(
    bars: Bars, predictions: Predictions, grid: Mapping[str, Any], params: Params | None = None, **options: Any
) -> pd.DataFrame:
    """Pick the best setting of every fold and score it on the next one; return one row a pick. options: those of `walk`.

    Columns: fold; start and end (UTC) of the fold that is scored; the setting; each figure as `picked.sharpe` on the fold of the pick,
    `scored.sharpe` on the next, and `median.sharpe` there of all settings tried on the fold before: what blind picking would have given.

    >>> import qtcore, research
    >>> from research.sweep import walk_forward
    >>> bars = research.load_bars("simulated:random_walk?n_bars=600&n_symbols=2")
    >>> published, grid = qtcore.Params.profile("published"), {"governor.min_confidence": [0.5, 0.6]}
    >>> picks = walk_forward(bars, research.Predictions.random(bars), grid, published, n_folds=3)
    >>> len(picks)
    2
    """
    return walk(bars, predictions, grid, params, **options).table


def walk(
    bars: Bars,
    predictions: Predictions,
    grid: Mapping[str, Any] | None = None,
    params: Params | None = None,
    *,
    plan: SearchPlan | None = None,
    n_folds: int = 5,
    meta: MetaSource | None = None,
    own: Layers = NONE,
    record: bool | str = True,
    progress: Any = None,
    **asked: Any,
) -> Walk:
    """Pick on one fold, score on the next, and judge the picks.

    The bars from the first vote on are cut into `n_folds` equal folds; every fold starts flat, with features that know the bars before it
    and hit rates of the voters (`bet30`) that do not. plan, asked: as in `sweep`; own: layers of the user's; a fold whose trials keep no
    constraint is left out. record: count every setting that a fold tries in the trial ledger, where a text names the candles, once
    (`research.sweep.counting`); not needed for a grid or a random search that `sweep` has counted on these bars. Raises UserError on fewer
    than two folds or too few bars.
    """
    plan = SearchPlan.told(**{**vars(plan or SearchPlan()), **asked, **({} if grid is None else {"grid": grid})})
    predictions = aligned(predictions, bars)
    params = resolved(params or Params(), predictions)
    checked(plan, params, own, meta, is_counted=bool(record))
    predictions = priced(bars, predictions, params, own.judge, own.features, meta)
    case = Case.of(bars, predictions, meta=meta, own=own)
    edges = fold_edges(case.first, case.bars.n, n_folds)
    counter = FoldCounter(case, n_folds, record if isinstance(record, str) else "")
    rows, returns = [], []
    now: SweepResult | None = None
    for fold, (start, end) in enumerate(itertools.pairwise(edges)):
        part = Case.of(bars[:end], _from(predictions[:end], start), plan.by_regime, meta, own)
        then = searched(plan.space(params), part, plan, record=counter if record else False)
        if now is not None and (best := _best(now, plan.objective)) is not None:
            number = int(best["trial"])
            table = then.table() if now.space.search != "adaptive" else Settings(now.space, then.case).rows(0, len(now))
            scored = table.iloc[number]
            row: dict[str, Any] = {"fold": fold - 1, "start": _time(bars.open_time[start]), "end": _time(bars.close_time[end - 1])}
            row |= now.space.setting(number)
            row |= {f"picked.{name}": best[name] for name in FIGURES} | {f"scored.{name}": scored[name] for name in FIGURES}
            rows.append(row | {f"median.{name}": table[name].median() for name in FIGURES})
            returns.append(_returns(then.case, now.params(number)))
        now = then
        if progress is not None:
            progress(fold + 1, n_folds, "walk forward")
    daily = np.concatenate(returns) if returns else np.empty(0)
    picks = pd.DataFrame(rows)
    return Walk(picks, daily, judge_picks(picks, daily, MIN_PERIODS), counter.tried)


def fold_edges(first: int, n: int, n_folds: int) -> NDArray[np.int64]:
    """Return the bars [n_folds + 1] between which equal folds of the bars [first, n) lie.

    Raises UserError on fewer than two folds or too few bars.
    """
    edges = np.linspace(first, n, max(n_folds, 1) + 1).astype(np.int64)
    if n_folds < 2 or int(np.diff(edges).min()) < MIN_BARS:
        raise ConfigError(
            f"--walk-forward must be 2 or more folds of {MIN_BARS} bars or more each, was {n_folds} over {n - first}; take other folds"
        )
    return edges


def _from(predictions: Predictions, start: int) -> Predictions:
    """Blank what was said before bar `start`, so that nothing is traded there."""
    action, confidence = predictions.action.copy(), predictions.confidence.copy()
    action[:, :start], confidence[:, :start] = -1, np.nan
    probs = None if predictions.probs is None else predictions.probs.copy()
    if probs is not None:
        probs[:, :start] = np.nan
    return replace(predictions, action=action, confidence=confidence, probs=probs)


def _best(trials: SweepResult, objective: str) -> "pd.Series[Any] | None":
    try:
        return trials.best(objective)
    except UserError:  # no trial keeps the constraints
        return None


def _returns(case: Case, params: Params) -> F8:
    """Net return of each day of a fold."""
    ends = day_ends(case)
    at_ends = case.run_own([params], ends)[2] if case.own.chain else equity_at(case.market(params), params.record(), ends)
    equity: NDArray[np.float64] = np.append(params.broker.initial_cash, at_ends[0])
    return bar_returns(equity)


def _time(moment: int) -> pd.Timestamp:
    return pd.Timestamp(moment, tz="UTC")


def pick_table(picks: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Lay the picks out for people: headers and a row a pick, Sharpe ratios a year."""
    figures = ("picked.sharpe", "scored.sharpe", "median.sharpe", "scored.total_return", "scored.n_trades")
    names = [name for name in picks.columns if name.partition(".")[0] not in ("fold", "start", "end", "picked", "scored", "median")]
    headers = ["scored from", *names, "Sharpe where picked", "Sharpe after", "median after", "return after", "trades after"]
    rows = []
    for _, pick in picks.iterrows():
        shown = [f"{value:.5g}" if isinstance(value, float) else str(value) for value in pick[names]]
        told = [f"{pick[name]:.2f}" if np.isfinite(pick[name]) else "none" for name in figures[:3]]
        rows.append([f"{pick['start']:%Y-%m-%d}", *shown, *told, f"{100.0 * pick[figures[3]]:+.1f} %", f"{pick[figures[4]]:,.0f}"])
    return headers, rows
