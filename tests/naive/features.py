"""What should every feature be, computed in the plainest way over the whole history? Stands in until the block kernels are there."""

from typing import Any

import numpy as np

from qtcore.params import MacdUnits, Params, RsiVariant
from qtcore.types import NS_PER_HOUR

NAN = np.nan


def windowed(x: Any, n: int, f: Any, need: int | None = None) -> Any:
    out = np.full(x.shape, NAN)
    need = (4 * n + 4) // 5 if need is None else need
    for t in range(len(x)):
        w = x[max(0, t - n + 1) : t + 1]
        ok = (np.isfinite(w).sum(axis=0) >= need) & np.isfinite(x[t])
        if ok.any():
            out[t, ok] = f(w[:, ok])
    return out


def sma(x: Any, n: int) -> Any:
    return windowed(x, n, lambda w: np.nanmean(w, axis=0))


def std(x: Any, n: int) -> Any:
    return windowed(x, n, lambda w: np.nanstd(w, axis=0, ddof=1))


def ema(x: Any, n: int) -> Any:
    out, mean = np.full(x.shape, NAN), np.full(x.shape[1], NAN)
    for t in range(len(x)):
        ok = ~np.isnan(x[t])
        mean = np.where(ok, np.where(np.isnan(mean), x[t], mean + 2.0 / (n + 1) * (x[t] - mean)), mean)
        out[t] = np.where(ok, mean, NAN)
    return out


def filled(x: Any) -> Any:
    at = np.where(np.isnan(x), -1, np.arange(len(x))[:, None])
    at = np.maximum.accumulate(at, axis=0)
    return np.where(at >= 0, np.take_along_axis(x, np.maximum(at, 0), axis=0), NAN)


def lag(x: Any, k: int) -> Any:
    out = np.full(x.shape, NAN)
    out[k:] = filled(x)[:-k]
    return out


def ratio(a: Any, b: Any, empty: float) -> Any:
    return np.where(b == 0.0, empty, a / np.where(b == 0.0, 1.0, b))


def compute_all(h: Any, low: Any, x: Any, v: Any, params: Params, interval: int, benchmark: int) -> dict[str, Any]:
    """Every feature of the registry but btc_correlation's kernel."""
    p: dict[str, Any] = {}
    d = x - lag(x, 1)
    p["price_change"] = x / lag(x, 1) - 1.0
    p["high_low_range"] = (h - low) / x
    assert params.features.rsi_variant == RsiVariant.SMA
    for n in (14, 28):
        g, loss = sma(np.where(np.isnan(d), NAN, np.maximum(d, 0.0)), n), sma(np.where(np.isnan(d), NAN, np.maximum(-d, 0.0)), n)
        p["rsi" if n == 14 else "rsi_28"] = np.where(g + loss == 0.0, 50.0, 100.0 * g / np.where(g + loss == 0.0, 1.0, g + loss))
    for n in (10, 12, 20, 26, 50):
        p[f"ema_{n}"] = ema(x, n)
    p["macd"] = p["ema_12"] - p["ema_26"]
    p["macd_signal"] = ema(p["macd"], 9)
    p["macd_hist"] = p["macd"] - p["macd_signal"]
    hole = np.isnan(x)
    for n in (20, 50):
        p[f"ema_10_{n}_cross"] = np.where(hole, NAN, p["ema_10"] > p[f"ema_{n}"])
    mid, sd = sma(x, 20), std(x, 20)
    band = sd if params.features.bb_ddof else windowed(x, 20, lambda w: np.nanstd(w, axis=0))
    p["bb_upper"], p["bb_lower"] = mid + 2.0 * band, mid - 2.0 * band
    p["bb_position"] = ratio(x - p["bb_lower"], p["bb_upper"] - p["bb_lower"], 0.5)
    p["close_to_bb_upper"], p["close_to_bb_lower"] = (p["bb_upper"] - x) / x, (x - p["bb_lower"]) / x
    r = p["rsi"]
    p["rsi_category"] = np.where(np.isnan(r), NAN, np.where(r < 30.0, 0.0, np.where(r > 70.0, 2.0, 1.0)))
    p["volatility_20"] = sd / x
    for n in (10, 20):
        p[f"momentum_{n}"] = x / lag(x, n) - 1.0
    p["volume_change"] = ratio(v - lag(v, 1), lag(v, 1), 0.0)
    p["volume_ma_ratio"], p["volume_ratio"] = ratio(v, sma(v, 10), 1.0), ratio(v, sma(v, 20), 1.0)
    p["sma_50"], p["sma_200"] = sma(x, 50), sma(x, 200)
    for name in ("ema_10", "ema_12", "ema_20", "ema_26", "ema_50", "bb_upper", "bb_lower", "sma_50", "sma_200"):
        p[f"{name}_rel"] = p[name] / x - 1.0
    for name in ("macd", "macd_signal", "macd_hist"):
        p[f"{name}_rel"] = 100.0 * p[name] / x
    units = "" if params.arbiter.macd_units == MacdUnits.PRICE else "_rel"
    p["arbiter_macd"], p["arbiter_macd_signal"] = p[f"macd{units}"], p[f"macd_signal{units}"]
    p["arbiter_volume_trend"] = p["volume_ratio"]
    p["momentum_1h"] = x / lag(x, max(1, NS_PER_HOUR // interval)) - 1.0
    before = lag(x, 1)
    tr = np.where(np.isnan(before), h - low, np.maximum(h - low, np.maximum(np.abs(h - before), np.abs(low - before))))
    p["atr_14"] = sma(tr, 14)
    p["atr_pct"] = p["atr_14"] / x
    p["bollinger_width"] = (p["bb_upper"] - p["bb_lower"]) / x
    atr = np.where(np.isnan(p["atr_14"]), 0.0, p["atr_14"])
    trend = np.where(atr == 0.0, 0.0, (p["ema_20"] - p["ema_50"]) / (2.0 * np.where(atr == 0.0, 1.0, atr)))
    p["trend_strength"] = np.where(hole, NAN, np.clip(trend, -1.0, 1.0))
    log_ret = np.log(x / before)
    s24 = std(log_ret, 24)
    p["volatility"] = np.full(x.shape, NAN)
    for t in range(len(x)):
        w = s24[max(0, t - 719) : t + 1]
        n = np.isfinite(w).sum(axis=0)
        share = np.where((n < 168) | np.isnan(s24[t]), 0.5, (w <= s24[t]).sum(axis=0) / np.maximum(n, 1))
        p["volatility"][t] = np.where(hole[t], NAN, share)
    zero = {n: np.where(hole, NAN, np.nan_to_num(std(log_ret, n))) for n in (24, 72, 168)}
    for n in (24, 72, 168):
        p[f"volatility_{n}h"] = zero[n]
    p["volatility_ratio"] = np.where(hole, NAN, ratio(zero[24], zero[168], 1.0))
    ma = {n: sma(v, n) for n in (24, 72, 720)}
    p["volume_ma_24h"], p["volume_ma_72h"] = ma[24], ma[72]
    p["volume_ma_24h_rel"], p["volume_ma_72h_rel"] = ratio(ma[24], ma[720], 1.0), ratio(ma[72], ma[720], 1.0)
    p["volume_momentum"] = np.where(hole, NAN, np.nan_to_num(ratio(v, ma[24], 1.0), nan=1.0))
    p["volume_trend"] = np.where(hole, NAN, np.nan_to_num(ratio(ma[24], ma[72], 1.0), nan=1.0))
    p["volume_slope_7"] = windowed(v, 7, slope)
    p["btc_correlation"] = correlation(x / before - 1.0, benchmark)
    return p


def slope(w: Any) -> Any:
    out = np.zeros(w.shape[1])
    for s in range(w.shape[1]):
        ok = np.isfinite(w[:, s])
        k, y = np.arange(len(w))[ok], w[ok, s]
        k = k - k.mean()
        m = y.mean()
        out[s] = 0.0 if m == 0.0 else (k * (y - m)).sum() / (k * k).sum() / m
    return out


def correlation(ret: Any, benchmark: int) -> Any:
    out = np.zeros(ret.shape)
    for t in range(len(ret) if benchmark >= 0 else 0):
        w = ret[max(0, t - 167) : t + 1]
        for s in range(ret.shape[1]):
            ok = np.isfinite(w[:, s]) & np.isfinite(w[:, benchmark])
            a, b = w[ok, s], w[ok, benchmark]
            if ok.sum() >= 10 and np.ptp(a) > 0.0 and np.ptp(b) > 0.0:
                out[t, s] = np.corrcoef(a, b)[0, 1]
    if benchmark >= 0:
        out[:, benchmark] = 1.0
    return out
