"""Feature registry: which features exist, under which names, and which of them a model sees.

One row of `FEATURES` per feature: its name, look-back in bars and formula. Prices are in quote units, ratios and changes are fractions;
`_rel` columns are free of the price level (`spec` D-10). A name of `ALIASES` is another word for the same plane.
"""

from collections.abc import Iterable

from qtcore.types import InputError

FEATURES: dict[str, tuple[int, str]] = {
    # spec 1.3; x close, h low l high, v volume; look-back 0: only the bar itself, -1: recursive
    "price_change": (1, "x[t] / x[t-1] - 1"),
    "high_low_range": (0, "(h - l) / x"),
    "rsi": (14, "100 - 100 / (1 + G / L), simple means of 14 gains and losses; 50 when both are 0 (D-02)"),
    "macd": (-1, "EMA_12(x) - EMA_26(x)"),
    "macd_signal": (-1, "EMA_9(macd)"),
    "macd_hist": (-1, "macd - macd_signal"),
    "ema_10": (-1, "EMA_10(x)"),
    "ema_20": (-1, "EMA_20(x)"),
    "ema_50": (-1, "EMA_50(x)"),
    "ema_10_20_cross": (-1, "1 if ema_10 > ema_20 else 0"),
    "ema_10_50_cross": (-1, "1 if ema_10 > ema_50 else 0"),
    "bb_upper": (19, "SMA_20(x) + 2 STD_20(x)"),
    "bb_lower": (19, "SMA_20(x) - 2 STD_20(x)"),
    "bb_position": (19, "(x - bb_lower) / (bb_upper - bb_lower); 0.5 when the bands coincide (D-05)"),
    "close_to_bb_upper": (19, "(bb_upper - x) / x (D-06)"),
    "close_to_bb_lower": (19, "(x - bb_lower) / x (D-06)"),
    "rsi_category": (14, "0 if rsi < 30, 2 if rsi > 70, else 1 (D-07)"),
    "volatility_20": (19, "STD_20(x, ddof=1) / x"),
    "momentum_10": (10, "x[t] / x[t-10] - 1"),
    "momentum_20": (20, "x[t] / x[t-20] - 1"),
    "volume_change": (1, "v[t] / v[t-1] - 1; 0 when v[t-1] is 0 (D-08)"),
    "volume_ma_ratio": (9, "v / SMA_10(v); 1 when the mean is 0"),
    "volume_ratio": (19, "v / SMA_20(v); 1 when the mean is 0 (D-09)"),
    # D-10
    "ema_10_rel": (-1, "ema_10 / x - 1"),
    "ema_20_rel": (-1, "ema_20 / x - 1"),
    "ema_50_rel": (-1, "ema_50 / x - 1"),
    "bb_upper_rel": (19, "bb_upper / x - 1"),
    "bb_lower_rel": (19, "bb_lower / x - 1"),
    "macd_rel": (-1, "100 macd / x"),
    "macd_signal_rel": (-1, "100 macd_signal / x"),
    "macd_hist_rel": (-1, "100 macd_hist / x"),
    # spec 1.8, what the arbiter reads
    "arbiter_macd": (-1, "macd_rel, or macd when arbiter.macd_units is price"),
    "arbiter_macd_signal": (-1, "macd_signal_rel, or macd_signal when arbiter.macd_units is price"),
    "arbiter_volume_trend": (19, "v / SMA_20(v), as volume_ratio"),
    "momentum_1h": (1, "x[t] / x[t-k] - 1, k bars an hour, at least 1"),
    # spec 1.9, the regime
    "volatility": (743, "share of the last 720 STD_24(log return) not above the present one; 0.5 below 168"),
    "trend_strength": (-1, "(EMA_20 - EMA_50) / (2 ATR_14) within [-1, 1]; 0 while the ATR is 0 or unknown"),
    # spec 1.6
    "volatility_24h": (24, "STD_24(log return, ddof=1); 0 when unknown (D-14)"),
    "volatility_72h": (72, "STD_72(log return, ddof=1); 0 when unknown"),
    "volatility_168h": (168, "STD_168(log return, ddof=1); 0 when unknown"),
    "volatility_ratio": (168, "volatility_24h / volatility_168h; 1 when unknown (D-15)"),
    "volume_ma_24h": (23, "SMA_24(v) (D-16)"),
    "volume_ma_72h": (71, "SMA_72(v)"),
    "volume_ma_24h_rel": (719, "SMA_24(v) / SMA_720(v); 1 when the mean is 0 (D-16)"),
    "volume_ma_72h_rel": (719, "SMA_72(v) / SMA_720(v); 1 when the mean is 0"),
    "volume_momentum": (23, "v / SMA_24(v); 1 when unknown (D-17)"),
    "volume_trend": (71, "SMA_24(v) / SMA_72(v); 1 when unknown (D-18)"),
    "volume_slope_7": (6, "least-squares slope of the last 7 volumes over their mean (D-18)"),
    "btc_correlation": (
        167,
        "correlation of the returns of 168 closes with the benchmark's; 0 below 10 pairs or without variance (D-19)",
    ),
    # spec 1.7
    "rsi_28": (28, "as rsi, over 28"),
    "atr_14": (14, "simple mean of 14 true ranges"),
    "atr_pct": (14, "atr_14 / x"),
    "bollinger_width": (19, "(bb_upper - bb_lower) / x (D-20)"),
    "ema_12": (-1, "EMA_12(x)"),
    "ema_26": (-1, "EMA_26(x)"),
    "sma_50": (49, "SMA_50(x)"),
    "sma_200": (199, "SMA_200(x)"),
    "ema_12_rel": (-1, "ema_12 / x - 1"),
    "ema_26_rel": (-1, "ema_26 / x - 1"),
    "sma_50_rel": (49, "sma_50 / x - 1"),
    "sma_200_rel": (199, "sma_200 / x - 1"),
}

ALIASES = {"rsi_14": "rsi", "macd_histogram": "macd_hist"}

# The order of `Planes.arbiter` and `Planes.regime`: ARBITER_INPUTS and REGIME_INPUTS under names that nothing else has.
CHAIN = ("rsi", "arbiter_macd", "arbiter_macd_signal", "bb_position", "arbiter_volume_trend", "momentum_1h", "volatility", "trend_strength")

_V5 = (
    "rsi macd macd_signal ema_10 ema_20 ema_50 bb_upper bb_lower volume_ma_ratio volume_change volume_ratio momentum_10 momentum_20 "
    "ema_10_20_cross ema_10_50_cross close_to_bb_upper close_to_bb_lower rsi_category"
)
_V5_TRAINED = (
    "price_change rsi_14 macd volume_ratio momentum_10 high_low_range volume_change volume_ma_ratio ema_10 ema_20 ema_50 "
    "ema_10_20_cross ema_10_50_cross volatility_20 macd_signal macd_hist bb_position momentum_20"
)
_PRICE_UNITS = {"macd", "macd_signal", "ema_10", "ema_20", "ema_50", "bb_upper", "bb_lower"}

FEATURE_SETS: dict[str, tuple[str, ...]] = {
    "v5": tuple(_V5.split()),
    "v5_trained": tuple(_V5_TRAINED.split()),
    "v5_rel": tuple(f"{name}_rel" if name in _PRICE_UNITS else name for name in _V5.split()),
}


def known(names: Iterable[str], own: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names without repetition, aliases resolved. Raises InputError on a name that is no feature."""
    own = tuple(own)
    out: dict[str, None] = {}
    for name in names:
        plain = ALIASES.get(name, name)
        if plain not in FEATURES and plain not in own:
            import difflib

            near = difflib.get_close_matches(name, [*FEATURES, *ALIASES, *own], n=1)
            hint = f"did you mean {near[0]}?" if near else "see qtcore.features.FEATURES"
            raise InputError(f"a feature must be one that exists, was {name!r}; {hint}")
        out[plain] = None
    return tuple(out)
