"""Are the features what the specification says, whatever the cuts, the holes and the future?"""

import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from qtcore.choices import FAMILIES, FeatureSet
from qtcore.features import FEATURE_SETS, FEATURES, OUT, Feature, FeatureBank, advance, chosen, matrix
from qtcore.features import primitives as op
from qtcore.features import table as tb
from qtcore.features.recursions import ema_bank, wilder
from qtcore.features.regime import rank
from qtcore.features.registry import ACROSS
from qtcore.types import ADVANCED, ARBITER_INPUTS, NS_PER_HOUR, Bars, InputError
from tests.conftest import assert_same_bits, awkward_bars, scenario_cases
from tests.naive import features as naive
from tests.support import PUBLISHED

DEFAULT = PUBLISHED
ORIGINAL = PUBLISHED.with_values(
    {"features.rsi_variant": "wilder", "features.bb_ddof": 0, "features.warmup": 20, "arbiter.macd_units": "price"}
)
ALL = tuple(FEATURES)
MINUTES_5 = NS_PER_HOUR // 12


def bank_of(bars, params=DEFAULT, names=ALL, **options):
    return FeatureBank(params, bars.symbols, bars.interval, names, **options)


def planes_of(bars, params=DEFAULT, names=ALL, **options):
    return bank_of(bars, params, names, **options).compute(bars)


def smooth_bars(n=400, n_symbols=3, seed=0):
    """Bars without a hole."""
    rng = np.random.default_rng(seed)
    close = 50.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, (n, n_symbols)), axis=0))
    open_ = np.vstack([close[:1], close[:-1]])
    high, low = np.maximum(open_, close) * 1.003, np.minimum(open_, close) * 0.996
    time = NS_PER_HOUR * np.arange(n)
    symbols = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "LTCUSDT", "ADAUSDT", "DOTUSDT", "UNIUSDT", "BCHUSDT")[:n_symbols]
    return Bars(time, time + NS_PER_HOUR, open_, high, low, close, rng.lognormal(5.0, 1.0, (n, n_symbols)), symbols, NS_PER_HOUR)


def with_planes(bars, change):
    """Return bars with every price and volume plane changed."""
    return replace(bars, **{name: np.ascontiguousarray(change(getattr(bars, name))) for name in ("open", "high", "low", "close", "volume")})


# ---------------------------------------------------------------- against the specification


@pytest.mark.parametrize(
    ("params", "n", "n_symbols", "interval"),
    [(DEFAULT, 1_000, 5, NS_PER_HOUR), (ORIGINAL, 300, 8, MINUTES_5), (DEFAULT, 260, 1, 4 * NS_PER_HOUR)],
    ids=["default", "original switches, 5 minutes", "one symbol, 4 hours"],
)
@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
def test_every_feature_is_what_the_specification_says(params, n, n_symbols, interval):
    bars = replace(awkward_bars(n, 5, n_symbols), interval=interval)
    planes, should = planes_of(bars, params), naive.advance(bars, params.flat())
    assert set(planes.names) == set(should) - {"valid"}
    for name in planes.names:  # sums are ordered differently: a price ratio near 1 keeps an absolute error of some 1e-16
        np.testing.assert_allclose(planes[name], should[name], rtol=1e-9, atol=1e-14, err_msg=name)
    np.testing.assert_array_equal(planes.valid, should["valid"])


def bars_of(*series):
    planes = {name: np.array([s[name] for s in series]).T.copy() for name in ("open", "high", "low", "close", "volume")}
    time = NS_PER_HOUR * np.arange(len(planes["close"]))
    return Bars(time, time + NS_PER_HOUR, **planes, symbols=("BTCUSDT", "ETHUSDT")[: len(series)], interval=NS_PER_HOUR)


def test_the_trained_set_of_the_original():
    for case in scenario_cases("features_v5_original"):
        bars, expected = bars_of(case["input"]["ohlcv"]), case["expected"]
        planes = planes_of(bars, PUBLISHED.with_values({"features.warmup": 20}), FEATURE_SETS["v5_trained"])
        assert np.flatnonzero(planes.valid[:, 0])[0] == expected["first_valid_row"]
        assert planes.valid.sum() == expected["n_valid_rows"]
        for t, row in expected["rows"].items():
            assert {name: planes[name][int(t), 0] for name in row} == pytest.approx(row, rel=1e-9, abs=1e-9)


def test_the_arbiter_inputs_of_the_original():
    for case in scenario_cases("arbiter_from_ohlcv"):
        params = PUBLISHED.with_values({"arbiter.macd_units": case["config"]["macd_units"]})
        inputs = planes_of(bars_of(case["input"]["ohlcv"]), params).arbiter[:, -1, 0]
        assert dict(zip(ARBITER_INPUTS, inputs, strict=True)) == pytest.approx(case["expected"]["indicators"], rel=1e-9, abs=1e-9)


def test_the_advanced_features_of_the_original():
    """Its correlation leaves out the present bar: the same 168 closes end one bar earlier (D-19), whatever came before them."""
    for case in scenario_cases("meta_features_32_original"):
        bars, now = bars_of(case["input"]["btc"], case["input"]["symbol"]), case["config"]["index"]
        planes = planes_of(bars)
        said = {name: planes[name][now, 1] for name in ADVANCED} | {"btc_correlation": planes["btc_correlation"][now - 1, 1]}
        assert said == pytest.approx(case["expected"]["advanced"], rel=1e-9, abs=1e-9)


# ---------------------------------------------------------------- against the libraries of the original


def test_pandas_agrees():
    bars = smooth_bars()
    planes, x, v = planes_of(bars), pd.DataFrame(bars.close), pd.DataFrame(bars.volume)
    move = x.diff()
    up, down = move.clip(lower=0).rolling(14).mean(), (-move).clip(lower=0).rolling(14).mean()
    macd = x.ewm(span=12, adjust=False).mean() - x.ewm(span=26, adjust=False).mean()
    should = {
        "rsi": 100.0 - 100.0 / (1.0 + up / down),
        "macd": macd,
        "macd_signal": macd.ewm(span=9, adjust=False).mean(),
        "ema_50": x.ewm(span=50, adjust=False).mean(),
        "bb_upper": x.rolling(20).mean() + 2.0 * x.rolling(20).std(),
        "volatility_20": x.rolling(20).std() / x,
        "momentum_20": x.pct_change(20),
        "volume_change": v.pct_change(),
        "volume_ratio": v / v.rolling(20).mean(),
        "volatility_168h": np.log(x / x.shift()).rolling(168).std(),
        "volume_ma_72h": v.rolling(72).mean(),
        "sma_200": x.rolling(200).mean(),
        "btc_correlation": x.pct_change().rolling(167).corr(x[0].pct_change()),
    }
    for name, frame in should.items():
        np.testing.assert_allclose(planes[name][220:], frame.to_numpy()[220:], rtol=1e-9, atol=1e-14, err_msg=name)


def test_talib_agrees():
    bars = smooth_bars()
    planes = planes_of(bars, ORIGINAL)
    for s in range(3):
        x, v = bars.close[:, s].copy(), bars.volume[:, s].copy()
        ret = np.concatenate([[0.0], x[1:] / x[:-1] - 1.0])
        btc = np.concatenate([[0.0], bars.close[1:, 0] / bars.close[:-1, 0] - 1.0])
        bands = talib.BBANDS(x, 20)
        should = {
            "rsi": talib.RSI(x, 14),  # Wilder's
            "rsi_28": talib.RSI(x, 28),
            "momentum_10": talib.ROCP(x, 10),
            "bb_upper": bands[0],  # ddof 0
            "bb_lower": bands[2],
            "atr_14": talib.SMA(talib.TRANGE(bars.high[:, s].copy(), bars.low[:, s].copy(), x), 14),
            "volume_ma_24h": talib.SMA(v, 24),
            "volume_slope_7": talib.LINEARREG_SLOPE(v, 7) / talib.SMA(v, 7),
            "btc_correlation": talib.CORREL(ret, btc, 167),
        }
        for name, column in should.items():
            np.testing.assert_allclose(planes[name][220:, s], column[220:], rtol=1e-8, atol=1e-12, err_msg=name)


# ---------------------------------------------------------------- the block


def gap(bars):
    out = np.full(bars.close.shape, np.nan)
    out[1:] = bars.open[1:] / bars.close[:-1] - 1.0
    return out


OWN = (Feature("gap", gap, lookback=1),)


@cache
def whole(n_symbols, n=420):
    bars = awkward_bars(n, n_symbols, n_symbols)
    bank = bank_of(bars, custom=OWN)
    return bars, bank.compute(bars), {name: array.copy() for name, array in bank.state.items()}


def assert_cuts_change_nothing(bars, planes, state, cuts):
    bank = bank_of(bars, custom=OWN)
    edges = sorted({0, bars.n, *cuts})
    parts = [bank.compute(bars[a:b]) for a, b in pairwise(edges)]
    assert_same_bits(np.concatenate([part.values for part in parts], axis=1), planes.values, "values")
    assert_same_bits(np.concatenate([part.valid for part in parts]), planes.valid, "valid")
    for name, array in state.items():
        assert_same_bits(bank.state[name], array, name)


@settings(max_examples=25, deadline=None)
@given(n_symbols=st.sampled_from([1, 6, 8]), cuts=st.lists(st.integers(0, 420), max_size=12))
def test_cutting_the_input_changes_nothing(n_symbols, cuts):
    assert_cuts_change_nothing(*whole(n_symbols), cuts)


@pytest.mark.parametrize("n_symbols", [1, 6, 8])
def test_bar_by_bar_is_the_block(n_symbols):
    assert_cuts_change_nothing(*whole(n_symbols), range(420))


def test_long_histories_pass_chunk_borders():
    bars = awkward_bars(2_600, 3, 8)  # pieces and chunks hold 608 rows of 8 symbols
    bank = bank_of(bars)
    assert_cuts_change_nothing(bars, planes_of(bars, custom=OWN), {}, [607, 608, 609, 1_216, 2_432])
    bank.compute(bars[:1_300])
    fresh = bank_of(bars)
    fresh.state = {name: array.copy() for name, array in bank.state.items()}
    assert_same_bits(fresh.compute(bars[1_300:]).values, bank.compute(bars[1_300:]).values)


@pytest.mark.parametrize("t", [1, 60, 300])
def test_the_past_ignores_the_future(t):
    bars = awkward_bars(400, 4)
    rng = np.random.default_rng(7)
    changed = with_planes(bars, lambda plane: np.vstack([plane[:t], rng.lognormal(3.0, 1.0, plane[t:].shape)]))
    assert_same_bits(planes_of(changed, custom=OWN).values[:, :t], planes_of(bars, custom=OWN).values[:, :t])


@pytest.mark.parametrize("n_symbols", [3, 8])
def test_symbols_do_not_see_each_other(n_symbols):
    """Another order, and each symbol alone: narrow banks keep time inside, wide ones symbols; the bits are the same."""
    bars = awkward_bars(300, 2, n_symbols)
    names = [name for name in ALL if name not in ("btc_correlation", *chosen(ACROSS, 5))]
    planes = planes_of(bars, names=names)
    order = np.random.default_rng(0).permutation(n_symbols)
    turned = replace(with_planes(bars, lambda plane: plane[:, order]), symbols=tuple(bars.symbols[s] for s in order))
    assert_same_bits(planes_of(turned, names=names).values, planes.values[:, :, order])
    for s in range(n_symbols):
        alone = replace(with_planes(bars, lambda plane, s=s: plane[:, [s]]), symbols=(bars.symbols[s],))
        assert_same_bits(planes_of(alone, names=names).values[:, :, 0], planes.values[:, :, s])


def test_features_across_symbols_know_those_that_are_there():
    """A symbol that is listed late, or has a hole, neither enters nor shifts the others; fewer than five say nothing."""
    bars, names = smooth_bars(300, 8), chosen(ACROSS, 8)
    late = with_planes(bars, lambda plane: np.where((np.arange(300)[:, None] < 200) & (np.arange(8) == 7), np.nan, plane))
    without = replace(with_planes(bars, lambda plane: plane[:, :7]), symbols=bars.symbols[:7])
    assert_same_bits(planes_of(late, names=names).values[:, :200, :7], planes_of(without, names=names).values[:, :200])
    few = with_planes(bars, lambda plane: np.where((np.arange(300)[:, None] >= 250) & (np.arange(8) >= 4), np.nan, plane))
    planes = planes_of(few, names=names)
    for name in FEATURE_SETS["cross_section"]:
        assert name.startswith("residual") or (planes[name][260:, :4] == 0.0).all()
        assert np.any(planes[name][200:250] != 0.0)
    assert (planes["market_move_1"][251:, :4] == 0.0).all()


def test_another_order_of_the_symbols_changes_no_market():
    """A book reads the beta to it: its bits are those of the symbols, not of their order."""
    bars, order = smooth_bars(300, 9), [3, 8, 0, 5, 7, 2, 1, 6, 4]
    names = (*FEATURE_SETS["market"], *(f"residual_{n}" for n in (6, 24, 168)))
    params = PUBLISHED.with_values({"features.benchmark": bars.symbols[2]})
    turned = replace(with_planes(bars, lambda plane: plane[:, order]), symbols=tuple(bars.symbols[s] for s in order))
    assert_same_bits(planes_of(turned, params, names=names).values, planes_of(bars, params, names=names).values[:, :, order])


def test_the_clock_is_that_of_the_close():
    bars = smooth_bars(400, 2)
    planes, hours = planes_of(bars, names=FEATURE_SETS["clock"]), pd.to_datetime(bars.close_time)
    for name, share in (("day", hours.hour / 24.0), ("week", (24 * hours.day_of_week + hours.hour) / 168.0)):
        assert planes[f"{name}_sine"][:, 0] == pytest.approx(np.sin(2 * np.pi * share), abs=1e-12)
        assert planes[f"{name}_cosine"][:, 1] == pytest.approx(np.cos(2 * np.pi * share), abs=1e-12)


def test_sets_are_chosen_by_name():
    params = PUBLISHED.with_values({"features.sets": "v5_rel,volatility,clock"})
    bars = smooth_bars(60, 3)
    wanted = (*FEATURE_SETS["v5_rel"], *FEATURE_SETS["volatility"], *FEATURE_SETS["clock"])
    assert FeatureBank(params, bars.symbols, bars.interval).names[8:] == tuple(name for name in wanted if name != "rsi")
    assert params.flat()["features.sets"] == ["v5_rel", "volatility", "clock"]
    assert PUBLISHED.with_values({"features.sets": ["v5", "flow"]}).features.feature_set.name == "V5"
    families = [name for key, names in FEATURE_SETS.items() if key in FAMILIES for name in names]
    assert set(FEATURE_SETS) == {*FAMILIES, *(kind.name.lower() for kind in FeatureSet)}
    assert len(families) == len(set(families)) == len(ALL) - ALL.index("realised_6")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"features.sets": "volatile"}, "features.sets must be among v5_rel, v5, v5_trained, volatility, .*, was 'volatile'"),
        ({"features.sets": "clock,clock"}, "features.sets must name each set once, was clock, clock"),
        ({"features.sets": "v5,v5_rel"}, "may hold one of the 18-feature sets, that of features.feature_set, was v5, v5_rel"),
        ({"features.sets": "v5", "features.feature_set": "v5_trained"}, "was v5 with features.feature_set v5_trained; name it once"),
    ],
)
def test_sets_that_cannot_be_are_refused(values, said):
    with pytest.raises(InputError, match=said):
        PUBLISHED.with_values(values)


@pytest.mark.parametrize("name", ACROSS)
def test_a_set_across_symbols_wants_five(name):
    params = PUBLISHED.with_values({"features.sets": name})
    with pytest.raises(InputError, match=f"features.sets may hold {name} for 5 symbols or more, was for 4; leave it out or give more"):
        FeatureBank(params, tuple("ABCD"), NS_PER_HOUR)


def test_the_kernel_of_a_bar_is_the_block():
    """What a live kernel does: one compiled call a bar on arrays made once."""
    bars = awkward_bars(200, 6)
    bank, planes = bank_of(bars, names=FEATURE_SETS["v5_rel"]), planes_of(bars, names=FEATURE_SETS["v5_rel"])
    bank.compute(bars[:150])
    table, memory = bank.room(1)
    valid, size = np.empty((1, 6), np.bool_), planes.values[:, :1].size
    for t in range(150, 200):
        row = [np.ascontiguousarray(getattr(bars, name)[t : t + 1]) for name in ("open", "high", "low", "close", "volume", "close_time")]
        advance(*row, table, memory, valid)
        assert_same_bits(memory[table[OUT] : table[OUT] + size].reshape(-1, 6), np.ascontiguousarray(planes.values[:, t]))
        assert_same_bits(valid[0], planes.valid[t])


INTERPRETED = """
import hashlib, numpy as np
from tests.conftest import awkward_bars
from tests.qtcore.test_features import ALL, DEFAULT, ORIGINAL, FEATURE_SETS, bank_of, matrix
digest = hashlib.sha256()
for n, n_symbols, params in ((80, 8, DEFAULT), (60, 3, ORIGINAL)):
    bars = awkward_bars(n, 3, n_symbols)
    bank = bank_of(bars, params)
    for a, b in ((0, 40), (40, 41), (41, n)):
        planes = bank.compute(bars[a:b])
        for array in (planes.values, planes.valid, matrix(planes, FEATURE_SETS["v5"]), *bank.state.values()):
            digest.update(np.ascontiguousarray(array))
print(digest.hexdigest())
"""


def test_interpreted_gives_the_same_bits():
    root = Path(__file__).resolve().parents[2]
    told = [
        subprocess.run([sys.executable, "-c", INTERPRETED], cwd=root, env={**os.environ, **env}, capture_output=True, text=True, check=True)
        for env in ({}, {"NUMBA_DISABLE_JIT": "1"})
    ]
    assert told[0].stdout == told[1].stdout


# ---------------------------------------------------------------- holes, flat prices, scales


def test_holes_before_the_listing_change_nothing():
    bars = smooth_bars(200)
    later = with_planes(bars, lambda plane: np.vstack([np.full((37, 3), np.nan), plane]))
    time = NS_PER_HOUR * np.arange(-37, 200)
    later = replace(later, open_time=time, close_time=time + NS_PER_HOUR)
    a, b = planes_of(bars), planes_of(later)
    assert np.isnan(b.values[:, :37]).all()
    assert_same_bits(np.ascontiguousarray(b.values[:, 37:]), a.values)
    assert_same_bits(b.valid[37:], a.valid)


def test_a_window_wants_four_fifths():
    """A 10-bar mean lives with 2 holes and not with 3; the plane itself is unknown at a hole only."""
    for n_holes, is_known in ((2, True), (3, False)):
        bars = smooth_bars(60, 1)
        hole = np.zeros((60, 1), bool)
        hole[40 : 40 + n_holes] = True
        planes = planes_of(with_planes(bars, lambda plane, hole=hole: np.where(hole, np.nan, plane)))
        t = 44
        assert np.isnan(planes["volume_ma_ratio"][40 : 40 + n_holes]).all()
        rest = np.concatenate([bars.volume[35:40, 0], bars.volume[40 + n_holes : 45, 0]])
        assert planes["volume_ma_ratio"][t, 0] == pytest.approx(bars.volume[t, 0] / rest.mean() if is_known else np.nan, nan_ok=True)


def test_a_lag_is_the_last_known_value():
    bars = smooth_bars(60, 1)
    hole = np.zeros((60, 1), bool)
    hole[30:33] = True
    planes = planes_of(with_planes(bars, lambda plane: np.where(hole, np.nan, plane)))
    x, v = bars.close[:, 0], bars.volume[:, 0]
    assert planes["price_change"][33, 0] == pytest.approx(x[33] / x[29] - 1.0)
    assert planes["volume_change"][33, 0] == pytest.approx(v[33] / v[29] - 1.0)
    assert planes["momentum_10"][41, 0] == pytest.approx(x[41] / x[29] - 1.0)
    assert planes["ema_10"][33, 0] == pytest.approx(planes["ema_10"][29, 0] * 9.0 / 11.0 + x[33] * 2.0 / 11.0)


def test_valid_counts_bars_from_the_listing():
    bars = awkward_bars(300, 1, 2)
    planes = planes_of(bars)
    first = np.flatnonzero(planes.valid[:, 1])[0]
    assert (~np.isnan(bars.close[: first + 1, 1])).sum() == 51
    assert not planes.valid[np.isnan(bars.close)].any()


def test_a_flat_price_is_exactly_flat():
    price = 0.1 + 0.2
    flat = with_planes(smooth_bars(300, 8), lambda plane: np.full(plane.shape, price))
    planes = planes_of(flat)
    should = {"rsi": 50.0, "bb_position": 0.5, "bollinger_width": 0.0, "volatility_20": 0.0, "macd": 0.0, "ema_10_20_cross": 0.0}
    should |= {
        "trend_strength": 0.0,
        "volatility_168h": 0.0,
        "volatility_ratio": 1.0,
        "momentum_20": 0.0,
        "ema_50_rel": 0.0,
        "sma_200": price,
    }
    should |= {"btc_correlation": 0.0, "atr_14": 0.0, "volume_change": 0.0, "volume_slope_7": 0.0, "close_to_bb_upper": 0.0}
    for name, value in should.items():
        rest = planes[name][220:, 1:]
        assert (rest == value).all(), name
    assert (planes["btc_correlation"][:, 0] == 1.0).all()
    np.testing.assert_allclose(planes["volume_ratio"][20:], 1.0, rtol=1e-15)


def test_zero_volume_is_neutral():
    bars = replace(smooth_bars(300), volume=np.zeros((300, 3)))
    planes = planes_of(bars)
    for name in ("volume_ratio", "volume_ma_ratio", "volume_momentum", "volume_trend", "arbiter_volume_trend"):
        assert (planes[name][100:] == 1.0).all(), name
    assert (planes["volume_change"][1:] == 0.0).all()
    assert (planes["volume_slope_7"][6:] == 0.0).all()


@pytest.mark.parametrize("power", [-20, 20])
def test_the_relative_set_knows_no_price_level(power):
    """Doubling is exact in binary, so not a bit may change."""
    bars = awkward_bars(300, 6, 4)
    scaled = replace(bars, **{name: getattr(bars, name) * 2.0**power for name in ("open", "high", "low", "close", "volume")})
    names = FEATURE_SETS["v5_rel"]
    assert_same_bits(planes_of(scaled, names=names).values, planes_of(bars, names=names).values)


# ---------------------------------------------------------------- sets, names, errors


def test_the_published_orders():
    assert [len(FEATURE_SETS[name]) for name in ("v5", "v5_trained", "v5_rel")] == [18, 18, 18]
    assert FEATURE_SETS["v5_trained"][:4] == ("price_change", "rsi_14", "macd", "volume_ratio")
    assert len(set(FEATURE_SETS["v5"]) & {"rsi" if n == "rsi_14" else n for n in FEATURE_SETS["v5_trained"]}) == 13
    assert FEATURE_SETS["v5_rel"][1:8] == (
        "macd_rel",
        "macd_signal_rel",
        "ema_10_rel",
        "ema_20_rel",
        "ema_50_rel",
        "bb_upper_rel",
        "bb_lower_rel",
    )


def test_the_matrix_has_columns_by_name():
    bars = awkward_bars(200, 1, 3)
    planes, names = planes_of(bars), ("momentum_20", "rsi_14", "rsi")
    rows = matrix(planes, names)
    assert (rows.dtype, rows.shape, rows.flags.c_contiguous) == (np.float32, (200, 3, 3), True)
    np.testing.assert_array_equal(rows, naive.pack({n: planes[n] for n in names}, names, planes.valid))


def test_a_bank_makes_what_was_asked_for():
    bars = smooth_bars(100)
    assert planes_of(bars, names=("macd",), chain=False).names == ("macd",)
    planes = planes_of(bars, names=None, custom=OWN)
    assert set(planes.names) >= {*FEATURE_SETS["v5_rel"], "gap", "volatility", "momentum_1h"}
    assert (planes.arbiter.shape, planes.regime.shape) == ((6, 100, 3), (2, 100, 3))
    assert_same_bits(planes["gap"], gap(bars))
    no_btc = replace(bars, symbols=("A", "B", "C"))
    assert (planes_of(no_btc)["btc_correlation"] == 0.0).all()
    second = PUBLISHED.with_values({"features.benchmark": "B"})
    assert (planes_of(no_btc, second)["btc_correlation"][:, 1] == 1.0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda b: bank_of(b, names=("rsj",)), "was 'rsj'; did you mean rsi"),
        (lambda b: bank_of(b, PUBLISHED.with_values({"features.benchmark": "XAU"})), "one of the symbols, was 'XAU'"),
        (lambda b: planes_of(b, names=("macd",), chain=False)["rsi"], "was asked for 'rsi'"),
        (lambda b: bank_of(b).compute(smooth_bars(5, 2)), "the bank's 3 symbols, was 2"),
        (lambda b: setattr(bank_of(b), "state", {}), "memory must be of shape"),
        (lambda b: planes_of(b, custom=(Feature("bad", lambda bars: np.zeros(3)),)), "the feature bad must return shape"),
        (lambda b: Feature("bad", gap, lookback=-1), "must be 0 or more bars, was -1"),
        (lambda b: Feature("bad", gap, lookback=1.5), "lookback of the feature bad must be a whole number of bars, was 1.5"),
        (lambda b: Feature("bad", 3), "function of the feature bad must take Bars and return an array, was 3"),
        (lambda b: Feature("rsi", gap, 1), "that no built-in feature has, was 'rsi', the name of a built-in one; choose another"),
        (lambda b: Feature("rsi_14", gap, 1), "was 'rsi_14', the name of a built-in one"),
        (lambda b: Feature(gap, 1), "name of an own feature must be a text"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make(smooth_bars(60))


# ---------------------------------------------------------------- kernels against their twins

SPECIAL = np.array([0.0, 1.0, -1.0, 30.0, 70.0, np.nan, 0.5, 1e-300, 3.0, 29.999, 70.001, -0.25])


@pytest.mark.parametrize("code", range(op.ADD4))
def test_elementwise(code):
    rng = np.random.default_rng(code)
    size = 61
    a, b, c, d = (np.concatenate([rng.permutation(SPECIAL), rng.normal(1.0, 1.0, size - len(SPECIAL))]) for _ in range(4))
    if code in (op.ROOT, op.LOG_RATIO):
        a, b = abs(a) + 1e-3, abs(b) + 1e-3
    memory = np.concatenate([a, b, c, d, np.zeros(size)])
    op.elementwise(code, memory, 0, size, 2 * size, 3 * size, 4 * size, 2.5, 0.75, size)
    assert_same_bits(abs(memory[4 * size :]), abs(naive.elementwise(code, a, b, c, d, 2.5, 0.75)))  # abs: the sign of a NaN is free


@pytest.mark.parametrize("n_symbols", [1, 3])
@pytest.mark.parametrize("code", range(op.ADD4, op.RATIOS + 1))
def test_windowed(code, n_symbols):
    """Every way of joining windows gives what the whole window gives."""
    rng = np.random.default_rng(code)
    rows, past = 40, 24
    x = rng.lognormal(0.0, 1.0, (past + rows, n_symbols))
    should, made = naive.windowed(code, x, rows), run_windowed(code, x, rows)
    assert len(made) >= len(should)
    for plane, twin in zip(made, should, strict=False):
        np.testing.assert_allclose(plane, twin, rtol=1e-12, atol=1e-14)


def run_windowed(code, x, rows):
    """Lay x and its groups of four out as a plan would, run the operation, return both outputs [rows, S]."""
    n, n_symbols = x.shape
    group = np.full((4, *x.shape), 0.0)  # sums, means, deviations, falls
    move = np.vstack([np.zeros((1, n_symbols)), np.diff(x, axis=0)])
    for t in range(4, n):
        four = x[t - 3 : t + 1]
        group[:3, t] = four.sum(axis=0), four.mean(axis=0), ((four - four.mean(axis=0)) ** 2).sum(axis=0)
    up, down = np.maximum(move, 0.0), np.minimum(move, 0.0)
    sums = [np.vstack([np.zeros((3, n_symbols)), np.lib.stride_tricks.sliding_window_view(m, 4, 0).sum(axis=-1)]) for m in (up, down)]
    planes = [x, *group[:3], up, down, *sums, np.zeros(x.shape), np.zeros(x.shape)]
    memory, step = np.concatenate([p.ravel() for p in planes]), x.size
    first = (n - rows) * n_symbols

    def at(plane, lag=0):
        return plane * step + first - lag * n_symbols

    operands = {
        op.ADD4: [at(0, j) for j in range(4)],
        op.ADD5: [at(0, j) for j in range(5)],
        op.MOST4: [at(0, j) for j in range(4)],
        op.MOVES: [at(0), at(0, 1)],
        op.MERGE2: [at(2), at(2, 4), at(3), at(3, 4)],
        op.MERGE4: [*(at(2, 4 * j) for j in range(4)), at(9)],
        op.MERGE5: [at(2), at(3)],
        op.BANDS: [at(2), at(3)],
        op.INDEX14: [at(6), at(7), at(4), at(5)],
        op.RATIOS: [at(0), at(1)],
    }[code]
    k = {op.MERGE2: 0.5, op.MERGE4: 4.0, op.MERGE5: 4.0, op.BANDS: 1.0}.get(code, 0.0)
    empty = 2.0 if code == op.MERGE2 else float(n_symbols)
    if code == op.MERGE4:  # the deviations of the four groups, added
        memory[at(9) : at(9) + rows * n_symbols] = sum(memory[at(3, 4 * j) : at(3, 4 * j) + rows * n_symbols] for j in range(4))
    out, second = len(memory), len(memory) + rows * n_symbols
    memory = np.concatenate([memory, np.zeros(2 * rows * n_symbols)])
    op.windowed(code, memory, *operands, *[0] * (5 - len(operands)), out, second, k, empty, rows * n_symbols)
    return memory[out:second].reshape(rows, n_symbols), memory[second:].reshape(rows, n_symbols)


@pytest.mark.parametrize("n_symbols", [2, 9])
@pytest.mark.parametrize("is_whole", [False, True])
def test_recursions(n_symbols, is_whole):
    x = awkward_bars(80, 4, min(n_symbols, 8)).close
    x = np.hstack([x, x[:, :1]])[:, :n_symbols] if n_symbols > 8 else x
    x = np.abs(np.nan_to_num(x)) + 1.0 if is_whole else x
    size = x.size
    memory = np.concatenate(
        [np.nan_to_num(x).ravel(), (~np.isnan(x)).ravel().astype(float), np.zeros(2 * size), np.full(n_symbols, np.nan)]
    )
    if is_whole:
        memory[4 * size :] = x[0]
    memory = np.concatenate([memory, np.zeros(2 * n_symbols), [2.0 / 11.0, 0.0]])
    table = np.zeros(tb.OPERATIONS + tb.WIDTH, np.int64)
    table[[tb.SYMBOLS, tb.PASTLESS, tb.OPERATIONS + 7, tb.OPERATIONS + 9]] = n_symbols, len(memory), 2 * size, 4 * size
    ema_bank(memory, table, tb.OPERATIONS, 1, len(memory) - 2, size, is_whole, 0, 0, 0, 80)
    wilder(memory, 0, size, 4 * size + n_symbols, 3 * size, 1.0 / 14.0, n_symbols, 80)
    known = ~np.isnan(x)
    assert_same_bits(memory[2 * size : 3 * size].reshape(x.shape)[known], naive.ema_bank(x, 2.0 / 11.0)[known])
    np.testing.assert_allclose(memory[3 * size : 4 * size].reshape(x.shape)[known], naive.wilder(x, 14)[known], rtol=1e-12)


@pytest.mark.parametrize("kind", ["many ties", "few ties", "wide", "flat"])
def test_rank(kind):
    """Long pieces rank by keys unless too many values share one; the bits are the same."""
    rng = np.random.default_rng(0)
    x = {
        "many ties": rng.integers(0, 40, (1_500, 2)) / 7.0,
        "few ties": rng.integers(0, 20_000, (1_500, 2)) / 7e5,
        "wide": np.exp(rng.normal(0.0, 3.0, (1_500, 2))),
        "flat": np.zeros((1_500, 2)),
    }[kind]
    x[rng.random(x.shape) < 0.05] = np.nan
    x[400:403, 0] = -0.0, 0.0, 1e6
    memory = np.concatenate([x.ravel(), np.zeros(x.size), np.zeros(2), np.full(2 * 720, np.nan)])
    for a, b in ((0, 3), (3, 10), (10, 300), (300, 555), (555, 1_500)):
        rank(memory, 2 * a, 2 * x.size, a, x.size + 2 * a, 2, b - a)
    assert_same_bits(memory[x.size : 2 * x.size].reshape(x.shape), naive.rank(x))
    last = memory[2 * x.size + 2 :].reshape(2, 720)
    assert_same_bits(np.roll(last, -(1_500 % 720), axis=1), np.ascontiguousarray(x[-720:].T))
    assert_same_bits(memory[2 * x.size : 2 * x.size + 2], np.sum(~np.isnan(x[-720:]), axis=0).astype(float))


def test_session_flags_stand_at_the_first_and_the_last_bar_of_a_session_and_nowhere_in_a_market_that_never_closes():
    n_weeks, first = 5, 4 * 24 * 3_600_000_000_000  # 1970-01-05 was a Monday
    hours = np.array([168 * w + 24 * d + h for w in range(n_weeks) for d in range(5) for h in range(14, 21)])
    for traded in (hours, np.arange(168 * n_weeks)):
        close = 100.0 * np.exp(np.cumsum(np.random.default_rng(0).normal(0.0, 0.01, (len(traded), 1)), axis=0))
        opens = first + 3_600_000_000_000 * traded
        bars = Bars(opens, opens + 3_600_000_000_000, close, close, close, close, close, ("A",), 3_600_000_000_000)
        found = FeatureBank(DEFAULT, bars.symbols, bars.interval, ("session_start", "session_end")).compute(bars)
        late = traded >= 168
        is_session = len(traded) < 168 * n_weeks
        assert found["session_start"][late, 0].tolist() == ((traded % 24 == 14) & is_session)[late].astype(float).tolist()
        assert found["session_end"][late, 0].tolist() == ((traded % 24 == 20) & is_session)[late].astype(float).tolist()
