"""Performance figures of a sweep: METRICS records as columns of the usual figures, whole arrays at a time."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from research.training.regimes import CELLS, TREND, VOLATILITY

REGIMES = (*CELLS, *VOLATILITY, *TREND)  # in the order of `qtcore.sweep`
COPIED = ("last_equity", "max_drawdown", "max_underwater", "fees", "slippage", "funding", "n_fills", "n_trades", "n_shorts", "n_stops")
FIGURES = (
    "total_return", "annual_return", "volatility", "sharpe", "sharpe_bar", "skew", "kurtosis", "mean_exposure", "time_in_market",
    "turnover", "win_rate", "profit_factor", "average_trade", *COPIED,
)  # fmt: skip
BY_REGIME = ("return", "sharpe", "n_approved")


def figure_names(by_regime: bool) -> list[str]:
    """Names of the columns of figures, those of each regime as `sharpe.volatility_low`."""
    return [*FIGURES, *(f"{figure}.{name}" for name in REGIMES for figure in BY_REGIME)] if by_regime else list(FIGURES)


def figures(metrics: NDArray, n_bars: NDArray[np.int64], bars_per_year: float) -> dict[str, NDArray]:
    """Turn METRICS [P] into columns [P]; what has no data is NaN. The meaning is that of `qtcore.metrics.summarise`.

    n_bars: returns that count as evidence, per row, one less than the tested bars; nothing is held on the bars around them.
    """
    m, n = metrics, np.asarray(n_bars, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        m1, m2, m3, m4 = (m[name] / n for name in ("sum_ret", "sum_ret2", "sum_ret3", "sum_ret4"))
        c2 = np.maximum(m2 - m1 * m1, 0.0)
        c2 = np.where((n > 1) & (c2 > 0.0), c2, np.nan)
        c3 = m3 - 3.0 * m1 * m2 + 2.0 * m1 * m1 * m1
        c4 = m4 - 4.0 * m1 * m3 + 6.0 * m1 * m1 * m2 - 3.0 * (m1 * m1) * (m1 * m1)
        spread = np.sqrt(c2 * n / (n - 1.0))
        growth = m["last_equity"] / m["first_equity"]
        closed = np.where(m["n_closed"] > 0, m["n_closed"], np.nan)
        out: dict[str, NDArray] = {
            "total_return": growth - 1.0,
            "annual_return": np.where(growth > 0.0, growth ** (bars_per_year / n), np.nan) - 1.0,
            "volatility": spread * np.sqrt(bars_per_year),
            "sharpe": m1 / spread * np.sqrt(bars_per_year),
            "sharpe_bar": m1 / spread,
            "skew": c3 / c2**1.5,
            "kurtosis": c4 / (c2 * c2),
            "mean_exposure": m["sum_exposure"] / (n + 1.0),
            "time_in_market": m["n_exposed"] / (n + 1.0),
            "turnover": m["turnover"] / m["first_equity"],
            "win_rate": m["n_wins"] / closed,
            "profit_factor": np.where(m["gross_loss"] > 0.0, m["gross_win"] / m["gross_loss"], np.nan),
            "average_trade": (m["gross_win"] - m["gross_loss"]) / closed,
        }
    return out | {name: m[name].copy() for name in COPIED}


def regime_figures(regimes: NDArray, metrics: NDArray, n_bars: NDArray[np.int64], bars_per_year: float) -> dict[str, NDArray]:
    """Turn REGIME_METRICS [P, 15] into columns: return on the initial equity, Sharpe ratio a year over all bars, approvals."""
    out: dict[str, NDArray] = {}
    for i, name in enumerate(REGIMES):
        r, n = regimes[:, i], np.asarray(n_bars, np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = r["sum_ret"] / n
            variance = np.maximum(r["sum_ret2"] / n - mean * mean, 0.0) * n / (n - 1.0)
            out[f"return.{name}"] = r["pnl"] / metrics["first_equity"]
            out[f"sharpe.{name}"] = np.where(variance > 0.0, mean / np.sqrt(variance), np.nan) * np.sqrt(bars_per_year)
        out[f"n_approved.{name}"] = r["n_approved"].copy()
    return out


def outcomes(metrics: NDArray) -> NDArray[np.uint64]:
    """Name each record by its content: rows of equal numbers did the same things."""
    width = metrics.dtype.itemsize
    raw: Any = np.ascontiguousarray(metrics).view(np.uint8).reshape(-1, width)
    digests = (hashlib.blake2b(row.data, digest_size=8).digest() for row in raw)
    return np.frombuffer(b"".join(digests), np.uint64)
