"""Earnings before and after costs, of a run and of ranks alone: Sharpe ratios with intervals, turnover, break-even cost."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.types import F8, I8, NS_PER_DAY, Bars
from research.runs.benchmark import growth
from research.runs.record import RunRecord
from research.training.scoring.intervals import limits, tilted
from research.training.targets import rank_in_row


def money_of(run: RunRecord, rows: slice) -> dict[str, Any]:
    """Say what a run earned in the bars `rows` before and after costs, how much it traded, and at which costs nothing would be left.

    `gross` and `net`: annual Sharpe ratios with intervals, None without any move; `turnover`: notional a day over the equity;
    `break_even`: fee and slippage a side, a fraction, at which what was earned before costs is gone, None where nothing was.
    """
    from research.data import bars_per_year

    equity = run.result.equity
    paid, traded = costs_by_bar(run.result.fills, len(equity))
    before, after = equity[rows][:-1], equity[rows][1:]
    paid, traded = paid[rows][1:], traded[rows][1:]
    net = growth(after, before)
    gross = net + np.divide(paid, before, out=np.zeros(len(before)), where=before > 0.0)
    per_year, days = float(bars_per_year(run.bars)), max(len(net), 1) * run.bars.interval / NS_PER_DAY
    earned, moved = float((after - before + paid).sum()), float(traded.sum())
    return {
        "gross": sharpe_interval(gross, per_year),
        "net": sharpe_interval(net, per_year),
        "net_return": float(after[-1] / before[0] - 1.0) if len(net) and before[0] > 0.0 else 0.0,
        "n_trades": int((run.result.fills["is_entry"] == 1)[np.isin(run.result.fills["bar"], np.arange(rows.start, rows.stop))].sum()),
        "turnover": float(np.divide(traded, before, out=np.zeros(len(before)), where=before > 0.0).sum() / days),
        "break_even": earned / moved if moved > 0.0 and earned > 0.0 else None,
        "cost": run.params.broker.fee_rate + run.params.broker.slippage_rate,
    }


def ranks_in_money(bars: Bars, lean: F8, horizon: int) -> dict[str, Any] | None:
    """Say what the ranks of a lean [n, S] earn before costs, long the upper and short the lower symbols of each bar, one unit in all.

    Each bar's portfolio is bought at the next open and kept `horizon` bars, a horizon-th of the money in each (Jegadeesh & Titman 1993): no
    map, no limit and no cost decide. `gross`: annual Sharpe ratio with interval; `turnover`: bought and sold a day; `break_even`: cost a
    side, a fraction, at which nothing is left, None where nothing was earned. None where no bar has five symbols that lean.
    """
    from research.data import bars_per_year

    ranks = np.nan_to_num(rank_in_row(lean))
    size = np.abs(ranks).sum(axis=1, keepdims=True)
    held = np.divide(ranks, size, out=np.zeros(ranks.shape), where=size > 0.0)
    summed = np.cumsum(np.vstack([np.zeros((horizon, held.shape[1])), held]), axis=0)
    weights = (summed[horizon:] - summed[:-horizon]) / horizon
    used = np.flatnonzero(size[:, 0] > 0.0)
    if len(used) == 0 or len(bars.open) < 3:
        return None
    moves = np.nan_to_num(bars.open[2:] / bars.open[1:-1] - 1.0)  # from the open that fills a decision to the next
    returns = (weights[:-2] * moves).sum(axis=1)[used[0] : used[-1] + 1]
    traded = np.abs(np.diff(weights, axis=0, prepend=0.0)).sum(axis=1)[used[0] : used[-1] + 1]
    bought, days = float(traded.sum()), len(traded) * bars.interval / NS_PER_DAY
    gross = sharpe_interval(returns, float(bars_per_year(bars)))
    earned = float(returns.sum())
    return {"gross": gross, "turnover": bought / days, "break_even": earned / bought if earned > 0.0 and bought > 0.0 else None}


def sharpe_interval(returns: F8, per_year: float) -> dict[str, Any] | None:
    """Return the annual Sharpe ratio of returns [n] with its 95 % interval `ci95`; None where they are all alike."""
    if len(returns) < 2 or not returns.std() > 0.0:
        return None
    sums = np.stack([np.ones(len(returns)), returns, returns * returns], axis=1)

    def ratio(of: NDArray[np.float64]) -> F8:
        mean, square = of[..., 1] / of[..., 0], of[..., 2] / of[..., 0]
        return np.asarray(mean / np.sqrt(np.maximum(square - mean * mean, 1e-300)) * np.sqrt(per_year))

    value = float(ratio(sums.sum(axis=0)))
    return {"value": value, "ci95": limits(value, ratio(tilted(sums, np.ones(len(returns)))))}


def costs_by_bar(fills: Any, n: int) -> tuple[F8, F8]:
    """Return fees and slippage paid in each of n bars, and the notional that was traded, quote, [n] each."""
    bars: I8 = fills["bar"].astype(np.int64)
    spent = fills["fee"] + fills["slippage"], np.abs(fills["qty"] * fills["price"])
    paid, traded = (np.bincount(bars, each, minlength=n)[:n].astype(np.float64) for each in spent)
    return paid, traded
