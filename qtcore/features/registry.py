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
    # families; o open, r log return of a bar, windows by D-82, but beyond 24 bars of those there are (`recipes.SHORT`)
    **{f"realised_{n}": (n, f"sqrt(mean of {n} r^2)") for n in (6, 24, 72, 168, 720)},
    **{f"realised_{n}_{m}": (m, f"realised_{n} / realised_{m}; 1 when nothing moved") for n, m in ((6, 24), (24, 168), (168, 720))},
    "bipower_24": (25, "sqrt(pi / 2 mean of 24 |r[t]| |r[t-1]|), without jumps (Barndorff-Nielsen and Shephard 2004)"),
    "jump_share_24": (25, "1 - bipower_24^2 / realised_24^2; 0 below 0 and when unknown"),
    "parkinson_24": (23, "sqrt(mean of 24 ln(h / l)^2 / (4 ln 2)) (Parkinson 1980)"),
    "garman_klass_24": (23, "sqrt(mean of 24 ln(h / l)^2 / 2 - (2 ln 2 - 1) ln(x / o)^2) (Garman and Klass 1980)"),
    "rogers_satchell_24": (23, "sqrt(mean of 24 ln(h / o) ln(h / x) + ln(l / o) ln(l / x)) (Rogers and Satchell 1991)"),
    **{
        f"scaled_move_{n}": (max(n, 168), f"sum of {n} r / (realised_168 sqrt({n})); 0 when nothing moved")
        for n in (1, 6, 24, 72, 168, 720)
    },
    **{f"from_high_{n}": (n - 1, f"x / (highest h of {n}) - 1") for n in (24, 168, 720)},
    **{f"from_low_{n}": (n - 1, f"x / (lowest l of {n}) - 1") for n in (24, 168, 720)},
    "illiquidity_24_168": (168, "mean of |r| / (x v) over 24 bars, over that of 168; 1 when the mean is 0 (Amihud 2002)"),
    **{f"signed_volume_{n}": (n, f"sum of sign(r) v over sum of v, {n} bars; 0 without volume") for n in (6, 24, 168)},
    "day_sine": (0, "sin of the close's place in its UTC day, 2 pi a day"),
    "day_cosine": (0, "cos of the same"),
    "week_sine": (0, "sin of the close's place in its week from Monday, 2 pi a week"),
    "week_cosine": (0, "cos of the same"),
    "session_start": (-1, "1 where the hour of the week before the bar's never had a bar yet, else 0; 0 for bars longer than an hour"),
    "session_end": (-1, "the same of the hour that comes next"),
    "hour_volatility": (-1, "root of the past mean of r^2 in the hour of the week that comes next, over realised_168; 1 when unknown"),
    "hour_volume": (-1, "past mean of v in the hour of the week that comes next, over SMA_168(v); 1 when unknown"),
    # across symbols, M the mean of r over those with one; 0 where fewer than 5 have a value
    **{f"market_move_{n}": (n, f"sum of {n} M") for n in (1, 6, 24, 168)},
    "market_volatility_24": (24, "sqrt(mean of 24 M^2)"),
    "breadth": (1, "share of symbols with r above 0"),
    **{
        f"lead_{n}": (max(n, 168), f"scaled_move_{n} of the benchmark (features.benchmark) less a symbol's own; 0 without a benchmark")
        for n in (1, 6, 24)
    },
    "beta_168": (168, "sum of r M over sum of M^2, 168 bars; 0 when unknown"),
    **{f"residual_{n}": (n + 169, f"sum of {n} (r[t] - beta_168[t-1] M[t])") for n in (6, 24, 168)},
    **{f"move_rank_{n}": (max(n, 168), f"rank of scaled_move_{n} among symbols, -0.5 to 0.5") for n in (1, 6, 24, 168)},
    **{f"move_distance_{n}": (max(n, 168), f"scaled_move_{n} less its mean over symbols, in their deviations") for n in (1, 6, 24, 168)},
    "volatility_rank": (24, "rank of realised_24 among symbols, -0.5 to 0.5"),
    "volume_rank": (19, "rank of volume_ratio among symbols, -0.5 to 0.5"),
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

_FAMILIES = {
    "volatility": (
        "realised_6 realised_24 realised_72 realised_168 realised_720 realised_6_24 realised_24_168 realised_168_720 bipower_24 "
        "jump_share_24 parkinson_24 garman_klass_24 rogers_satchell_24 hour_volatility"
    ),
    "clock": "day_sine day_cosine week_sine week_cosine session_start session_end",
    "range": (
        "from_high_24 from_high_168 from_high_720 from_low_24 from_low_168 from_low_720 scaled_move_1 scaled_move_6 scaled_move_24 "
        "scaled_move_72 scaled_move_168 scaled_move_720"
    ),
    "cross_section": (
        "move_rank_1 move_rank_6 move_rank_24 move_rank_168 move_distance_1 move_distance_6 move_distance_24 move_distance_168 "
        "residual_6 residual_24 residual_168 volatility_rank volume_rank"
    ),
    "market": "market_move_1 market_move_6 market_move_24 market_move_168 market_volatility_24 breadth lead_1 lead_6 lead_24 beta_168",
    "flow": "illiquidity_24_168 signed_volume_6 signed_volume_24 signed_volume_168 hour_volume",
}

FEATURE_SETS: dict[str, tuple[str, ...]] = {
    "v5": tuple(_V5.split()),
    "v5_trained": tuple(_V5_TRAINED.split()),
    "v5_rel": tuple(f"{name}_rel" if name in _PRICE_UNITS else name for name in _V5.split()),
    **{name: tuple(features.split()) for name, features in _FAMILIES.items()},
}
ACROSS = ("cross_section", "market")  # sets that need LEAST symbols
LEAST = 5


def chosen(sets: Iterable[str], n_symbols: int) -> tuple[str, ...]:
    """Return the features of sets in their order, each once. Raises InputError on a set across symbols for fewer than LEAST of them."""
    sets = tuple(sets)
    for name in sets:
        if name in ACROSS and n_symbols < LEAST:
            raise InputError(f"features.sets may hold {name} for {LEAST} symbols or more, was for {n_symbols}; leave it out or give more")
    return tuple(dict.fromkeys(feature for name in sets for feature in FEATURE_SETS[name]))


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
