"""Does picking pay? On each stretch of time the best setting of a sweep is picked, and scored on the next, which it has not seen."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from qtcore import Bars, Params
from qtcore.meta import MetaSource
from research.backtest import resolved
from research.errors import UserError
from research.predictions import Predictions
from research.sweep.case import Case
from research.sweep.run import sweep

FIGURES = ("sharpe", "total_return", "max_drawdown", "n_trades")


def walk_forward(
    bars: Bars,
    predictions: Predictions,
    grid: Mapping[str, Any],
    params: Params | None = None,
    *,
    n_folds: int = 5,
    objective: str = "sharpe",
    where: Sequence[str] = (),
    meta: MetaSource | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Pick the best setting of every fold and score it on the next one; return one row a pick.

    The bars from the first vote on are cut into `n_folds` equal folds; every fold starts flat. objective, where: as in `Trials.best`; a
    fold whose trials keep no constraint is left out. options: what else `sweep` takes (search, settings, seed, record).

    Columns: fold; start and end (UTC) of the fold that is scored; the setting; each figure as `picked.sharpe` on the fold it was picked on,
    `scored.sharpe` on the next, and `median.sharpe` of all settings there: what picking blindly would have given. Raises UserError on
    fewer than two folds or too few bars.

    >>> import research
    >>> from research.sweep import walk_forward
    >>> bars = research.load_bars("simulated:random_walk?n_bars=600&n_symbols=2")
    >>> picks = walk_forward(bars, research.Predictions.random(bars), {"governor.min_confidence": [0.5, 0.6]}, n_folds=3, record=False)
    >>> len(picks)
    2
    """
    predictions = predictions.align(bars)
    params = resolved(params or Params(), predictions)
    case = Case.of(bars, predictions, meta=meta)
    edges = np.linspace(case.first, bars.n, n_folds + 1).astype(int) if n_folds >= 2 else np.zeros(1, int)
    if n_folds < 2 or int(np.diff(edges).min()) < 2 * params.features.warmup:
        need, given = 2 * params.features.warmup, bars.n - case.first
        raise UserError(f"a walk forward must have 2 or more folds of {need} bars each, was {n_folds} over {given}")
    whole = [sweep(bars[a:b], predictions[a:b], grid, params, where=where, meta=meta, **options) for a, b in itertools.pairwise(edges)]
    rows = []
    for fold, (now, then) in enumerate(itertools.pairwise(whole)):
        try:
            best = now.best(objective)
        except UserError:
            continue
        table = then.table()
        scored = table.iloc[int(best["trial"])]
        span = {
            "start": pd.Timestamp(bars.open_time[edges[fold + 1]], tz="UTC"),
            "end": pd.Timestamp(bars.close_time[edges[fold + 2] - 1], tz="UTC"),
        }
        row: dict[str, Any] = {"fold": fold, **span, **now.space.setting(int(best["trial"]))}
        row |= {f"picked.{name}": best[name] for name in FIGURES} | {f"scored.{name}": scored[name] for name in FIGURES}
        rows.append(row | {f"median.{name}": table[name].median() for name in FIGURES})
    return pd.DataFrame(rows)
