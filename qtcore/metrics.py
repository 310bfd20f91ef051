"""Performance metrics: one record of running sums per run, the same bits under any cutting, and nothing to keep per bar.

A sweep carries one METRICS record per parameter row; a backtest's statistics come from the same record.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.jit import kernel
from qtcore.rules import Reason
from qtcore.types import F8, FILL, METRICS, slab, zeros


def init_metrics(initial_cash: float) -> NDArray:
    """Make a fresh `METRICS[1]` for an account that starts with `initial_cash` (quote)."""
    metrics = zeros(METRICS, 1)
    for name in ("first_equity", "last_equity", "peak"):
        metrics[name] = initial_cash
    return metrics


@kernel(inline=True)
def bar_rule(equity, worth, last, peak, n_underwater):
    """Return of the bar, what is held over equity, bars under water, peak and drawdown. A bar that starts without equity returns 0."""
    ret = equity / last - 1.0 if last > 0.0 else 0.0
    share = worth / equity if equity > 0.0 else 0.0
    n_underwater = n_underwater + 1 if equity < peak else 0
    peak = max(peak, equity)
    return ret, share, n_underwater, peak, (peak - equity) / peak


@kernel(inline=True)
def bar_step(metrics, equity, worth):
    """Count one bar: equity and what is held (quote) when it is done."""
    last, top, under = metrics["last_equity"], metrics["peak"], metrics["n_underwater"]
    ret, share, under, top, drawdown = bar_rule(equity, worth, last, top, under)
    metrics["last_equity"] = equity
    metrics["n_bars"] += 1
    metrics["sum_ret"] += ret
    metrics["sum_ret2"] += ret * ret
    metrics["sum_ret3"] += ret * ret * ret
    metrics["sum_ret4"] += (ret * ret) * (ret * ret)
    metrics["sum_exposure"] += share
    metrics["n_exposed"] += worth > 0.0
    metrics["n_underwater"] = under
    metrics["max_underwater"] = max(metrics["max_underwater"], under)
    metrics["peak"] = top
    metrics["max_drawdown"] = max(metrics["max_drawdown"], drawdown)


@kernel(inline=True)
def fill_metrics(metrics, fill):
    """Count one fill: what opens a position its trade, what closes the rest of it what the trade brought."""
    metrics["n_fills"] += 1
    metrics["turnover"] += fill["notional"]
    metrics["fees"] += fill["fee"]
    metrics["slippage"] += fill["slippage"]
    metrics["n_trades"] += (fill["is_entry"] != 0) & (fill["reason"] != Reason.ADDED)
    if fill["is_entry"] == 0 and fill["reason"] != Reason.REDUCED:
        pnl = fill["pnl"]
        metrics["n_closed"] += 1
        metrics["funding"] += fill["funding"]
        metrics["gross_win"] += pnl if pnl > 0.0 else 0.0
        metrics["gross_loss"] -= pnl if pnl < 0.0 else 0.0
        metrics["n_wins"] += pnl > 0.0
        metrics["n_losses"] += pnl < 0.0
        metrics["n_shorts"] += fill["qty"] > 0.0
        metrics["n_stops"] += fill["reason"] == Reason.STOP


@kernel
def update_metrics(metrics_slab, equity, worth, fills_slab):
    """Count a block: equity, worth [n] as `trade` wrote them, and the block's ledger. metrics_slab: METRICS as bytes, in place."""
    metrics, fills = metrics_slab.view(METRICS)[0], fills_slab.view(FILL)
    for t in range(equity.shape[0]):
        bar_step(metrics, equity[t], worth[t])
    for k in range(fills.shape[0]):
        fill_metrics(metrics, fills[k])


def metrics_of(equity: F8, worth: F8, fills: NDArray, initial_cash: float) -> NDArray:
    """Measure a whole run: equity, worth [n] and its ledger (FILL [K]). Returns `METRICS[1]`."""
    metrics = init_metrics(initial_cash)
    update_metrics(slab(metrics), equity, worth, slab(np.ascontiguousarray(fills)))
    return metrics


def summarise(metrics: NDArray, bars_per_year: float) -> dict[str, Any]:
    """Turn a `METRICS` record into the usual figures; a figure without data is NaN.

    total_return, annual_return, max_drawdown, mean_exposure, win_rate are fractions; volatility and sharpe are annual, without a
    risk-free rate; skew and kurtosis (3 for a normal) are those of per-bar returns; turnover is in multiples of the initial equity.
    n_trades counts every trade that was opened; win_rate, profit_factor and average_trade are of those that were closed.
    """
    m = {name: metrics.reshape(-1)[0][name].item() for name in METRICS.names or ()}
    n, closed = m["n_bars"], m["n_closed"]
    mean, variance, skew, kurtosis = _moments(m)
    growth = m["last_equity"] / m["first_equity"]
    years = n / bars_per_year
    return {
        "total_return": growth - 1.0,
        "annual_return": growth ** (1.0 / years) - 1.0 if years > 0.0 else math.nan,
        "mean_return": mean,
        "volatility": math.sqrt(variance * bars_per_year) if n > 1 else math.nan,
        "sharpe": mean / math.sqrt(variance) * math.sqrt(bars_per_year) if n > 1 and variance > 0.0 else math.nan,
        "skew": skew,
        "kurtosis": kurtosis,
        "max_drawdown": m["max_drawdown"],
        "max_underwater": m["max_underwater"],
        "mean_exposure": m["sum_exposure"] / n if n else math.nan,
        "time_in_market": m["n_exposed"] / n if n else math.nan,
        "turnover": m["turnover"] / m["first_equity"],
        "fees": m["fees"],
        "slippage": m["slippage"],
        "funding": m["funding"],
        "n_fills": m["n_fills"],
        "n_trades": m["n_trades"],
        "n_shorts": m["n_shorts"],
        "n_stops": m["n_stops"],
        "win_rate": m["n_wins"] / closed if closed else math.nan,
        "profit_factor": m["gross_win"] / m["gross_loss"] if m["gross_loss"] > 0.0 else math.nan,
        "average_trade": (m["gross_win"] - m["gross_loss"]) / closed if closed else math.nan,
    }


def _moments(m: dict[str, Any]) -> tuple[float, float, float, float]:
    """Mean, sample variance, skewness and kurtosis of the per-bar returns from their power sums."""
    n = m["n_bars"]
    if n < 2:
        return math.nan, math.nan, math.nan, math.nan
    m1, m2, m3, m4 = (m[name] / n for name in ("sum_ret", "sum_ret2", "sum_ret3", "sum_ret4"))
    c2 = max(m2 - m1 * m1, 0.0)
    c3 = m3 - 3.0 * m1 * m2 + 2.0 * m1**3
    c4 = m4 - 4.0 * m1 * m3 + 6.0 * m1 * m1 * m2 - 3.0 * m1**4
    if c2 == 0.0:
        return m1, 0.0, math.nan, math.nan
    return m1, c2 * n / (n - 1), c3 / c2**1.5, c4 / (c2 * c2)
