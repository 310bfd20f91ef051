"""How long do features take? ns per bar and symbol beside TA-Lib on the same candles, us per live bar.

Run with `pytest tests/bench/bench_features.py --benchmark-enable`. What TA-Lib computes is compared before anything is timed; ratios are of
one run, both sides take turns, output buffers are reused.
"""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import talib

from qtcore.choices import FAMILIES
from qtcore.features import FEATURE_SETS, FeatureBank, advance
from qtcore.jit import kernel
from qtcore.params import Params
from qtcore.types import NS_PER_HOUR, Bars
from tests.support import PUBLISHED

N, S = 4_380, 19
# Shape: least ratio to TA-Lib.
SHAPES = {(N, S): 2.3, (1_000_000, 1): 1.6, (2_000, 200): None}


def world(n: int, n_symbols: int) -> Bars:
    """Bars without a hole."""
    rng = np.random.default_rng(3)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.002, (n, n_symbols)), axis=0))
    volume, time_ns = rng.lognormal(8.0, 1.0, (n, n_symbols)), NS_PER_HOUR * np.arange(n)
    symbols = tuple(f"BTC{s}" for s in range(n_symbols))
    return Bars(time_ns, time_ns + NS_PER_HOUR, close, close * 1.002, close * 0.998, close, volume, symbols, NS_PER_HOUR)


def with_talib(closes: np.ndarray, volumes: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the published 18 with TA-Lib for every symbol, [S, n] in; the last symbol's columns. Its RSI is Wilder's."""
    for x, v in zip(closes, volumes, strict=True):
        rsi, (macd, signal, _) = talib.RSI(x, 14), talib.MACD(x)
        ema_10, ema_20, ema_50 = talib.EMA(x, 10), talib.EMA(x, 20), talib.EMA(x, 50)
        upper, _, lower = talib.BBANDS(x, 20)
        out = {
            "rsi": rsi, "macd": macd, "macd_signal": signal, "ema_10": ema_10, "ema_20": ema_20, "ema_50": ema_50,
            "bb_upper": upper, "bb_lower": lower, "volume_ma_ratio": v / talib.SMA(v, 10), "volume_change": talib.ROCP(v, 1),
            "volume_ratio": v / talib.SMA(v, 20), "momentum_10": talib.ROCP(x, 10), "momentum_20": talib.ROCP(x, 20),
            "ema_10_20_cross": ema_10 > ema_20, "ema_10_50_cross": ema_10 > ema_50, "close_to_bb_upper": (upper - x) / x,
            "close_to_bb_lower": (x - lower) / x, "rsi_category": np.where(rsi < 30.0, 0, np.where(rsi > 70.0, 2, 1)),
        }  # fmt: skip
    return out


def best_of(*calls: Callable[[], object], seconds: float = 3.0) -> list[float]:
    """Shortest of each call, seconds; they take turns of five calls for `seconds`, at least three turns."""
    best = [np.inf] * len(calls)
    turns, end = 0, time.perf_counter() + seconds
    while turns < 3 or time.perf_counter() < end:
        for i, call in enumerate(calls):
            for _ in range(5):
                start = time.perf_counter()
                call()
                best[i] = min(best[i], time.perf_counter() - start)
        turns += 1
    return best


@pytest.mark.parametrize(("n", "n_symbols"), SHAPES, ids=lambda v: str(v))
def test_the_published_18(benchmark, n, n_symbols):
    bars = world(n, n_symbols)
    columns = [np.ascontiguousarray(plane.T) for plane in (bars.close, bars.volume)]
    params = PUBLISHED.with_values({"features.bb_ddof": 0, "features.rsi_variant": "wilder"})  # TA-Lib's definitions
    checked, theirs = FeatureBank(params, bars.symbols, bars.interval, FEATURE_SETS["v5"], chain=False).compute(bars), with_talib(*columns)
    for name in FEATURE_SETS["v5"]:  # after 1,000 bars its SMA seed is forgotten; a state may flip where two means are equal to the bit
        np.testing.assert_allclose(checked[name][1_000:, -1], theirs[name][1_000:], rtol=1e-6, atol=1e-9, err_msg=name)
    bank = FeatureBank(PUBLISHED, bars.symbols, bars.interval, FEATURE_SETS["v5"], chain=False)
    benchmark.pedantic(lambda: bank.compute(bars, reuse=True), rounds=1, warmup_rounds=1)
    if benchmark.enabled:
        ours, other = best_of(lambda: bank.compute(bars, reuse=True), lambda: with_talib(*columns))
        cells = n * n_symbols
        benchmark.extra_info |= {"ns per bar and symbol": 1e9 * ours / cells, "TA-Lib ns": 1e9 * other / cells, "x faster": other / ours}
        if SHAPES[n, n_symbols] is not None:
            benchmark.extra_info["x asked"] = SHAPES[n, n_symbols]


OTHERS = {"regime": ("volatility", "trend_strength"), "v5_rel": FEATURE_SETS["v5_rel"], "v5_trained": FEATURE_SETS["v5_trained"]}


@pytest.mark.parametrize("names", OTHERS.values(), ids=OTHERS)
def test_other_planes(benchmark, names):
    """Regime inputs on their own line (at most 50 ns), the other sets."""
    bars = world(N, S)
    bank = FeatureBank(PUBLISHED, bars.symbols, bars.interval, names, chain=False)
    benchmark.pedantic(lambda: bank.compute(bars, reuse=True), rounds=1, warmup_rounds=1)
    if benchmark.enabled:
        benchmark.extra_info["ns per bar and symbol"] = 1e9 * best_of(lambda: bank.compute(bars, reuse=True))[0] / (N * S)


def of_sets(sets: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for key in sets for name in FEATURE_SETS[key]))


SETS = {**{name: ("v5_rel", name) for name in FAMILIES}, "default": Params().features.sets, "all": ("v5_rel", *FAMILIES)}


@pytest.mark.parametrize("sets", SETS.values(), ids=SETS)
def test_families(benchmark, sets):
    """Families beside the 18, arbiter and regime inputs; in the same run as many planes are written with a constant."""
    bars = world(N, S)
    banks = [FeatureBank(PUBLISHED, bars.symbols, bars.interval, of_sets(names)) for names in (sets, ("v5_rel",))]
    planes = np.empty_like(banks[0].compute(bars).values)
    benchmark.pedantic(lambda: banks[0].compute(bars, reuse=True), rounds=1, warmup_rounds=1)
    if benchmark.enabled:
        runs = [lambda bank=bank: bank.compute(bars, reuse=True) for bank in banks]
        ns = [1e9 * spent / (N * S) for spent in best_of(*runs, lambda: planes.fill(1.0))]
        benchmark.extra_info |= dict(zip(("ns per bar and symbol", "the 18 alone", f"writing {len(planes)} planes"), ns))


@kernel
def one_by_one(open_, high, low, close, volume, close_time, table, memory, valid):
    """Every row a call of its own, as live does."""
    for t in range(close.shape[0]):
        rows = slice(t, t + 1)
        advance(open_[rows], high[rows], low[rows], close[rows], volume[rows], close_time[rows], table, memory, valid)


def test_one_live_bar(benchmark):
    """Features, arbiter and regime inputs of one bar of 19 symbols inside a kernel."""
    bars, runs = world(3_000, S), []
    for sets in (("v5_rel",), SETS["default"], SETS["all"]):
        bank = FeatureBank(PUBLISHED, bars.symbols, bars.interval, of_sets(sets))
        bank.compute(bars)
        planes = (plane[:1_000] for plane in (bars.open, bars.high, bars.low, bars.close, bars.volume, bars.close_time))
        runs.append(partial(one_by_one, *planes, *bank.room(1), np.empty((1, S), np.bool_)))
    benchmark.pedantic(runs[0], rounds=1, warmup_rounds=1)
    if benchmark.enabled:
        alone, default, every = (1e6 * spent / 1_000 for spent in best_of(*runs))
        benchmark.extra_info |= {"us per bar": alone, "us more of default (10 allowed)": default - alone, "us more of all": every - alone}
