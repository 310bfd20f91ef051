"""Has a book in lanes the bits of the plain driver? Every METRICS field and the equity of every bar, whatever binds."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtcore.sweep import Driver, drivers, sweep_with_equity
from qtcore.sweep import rows as rows_module
from qtcore.types import METRICS
from tests.conftest import assert_same_bits
from tests.qtcore.test_sweep import driver, market_of, records, short_blocks, stepping  # noqa: F401 - a fixture
from tests.qtcore.test_trade import funding_for, with_funding
from tests.support.books import book_params
from tests.support.priced import priced_world

N, S = 420, 6
NEUTRALS = ("none", "dollar", "beta", "dollar_beta")
SWITCHES = (
    {},
    {"governor.rebalance_bars": 5},
    {"governor.drawdown_basis": "balance"},
    {"governor.drawdown_reset": "daily", "governor.rebalance_bars": 2},
    {"governor.drawdown_basis": "balance", "governor.drawdown_reset": "daily"},
    {"ensemble.rule": "vote", "meta.enabled": False},
    {"arbiter.enabled": False},
)
DRAWN = {
    "governor.band": [0.0, 0.3, 1.0, 3.0],
    "governor.kelly_fraction": [0.0, 0.002, 0.05, 0.25, 0.25, 1.0],
    "governor.target_volatility": [0.0, 0.05, 0.5],
    "governor.max_position": [0.0, 0.05, 0.2, 0.2, 1.0, 1.0],
    "governor.max_exposure": [0.0, 0.2, 1.0, 1.0, 5.0],
    "governor.max_daily_trades": [0, 3, 10, 10_000, 10_000],
    "governor.max_drawdown": [0.02, 0.1, 1.0],
    "governor.stop_loss": [0.003, 0.02, 0.5, 1.0],
    "governor.cooldown_minutes": [0, 60, 180],
    "broker.initial_cash": [500.0, 10_000.0, 123_456.7],
    "broker.fee_rate": [0.0, 0.0004, 0.002],
    "broker.slippage_rate": [0.0, 0.0001, 0.01],
    "broker.delist_after": [1, 3, 24],
    "broker.max_holding_bars": [1, 5, 24],
    "decide.min_edge": [0.0, 0.001],
}


def worlds():
    """Worlds with holes, listings, jumps and several maps: also with funding, many holes, and prices that ruin."""
    out = {"plain": priced_world(N, S, 6), "free": priced_world(N, S, 7, meta=False, funding=False)}
    out["funded"] = priced_world(N, S, 8)
    out["funded"].bars = with_funding(out["funded"].bars, funding_for(out["funded"].bars, 1))
    out["holed"] = priced_world(N, S, 9)
    is_hole = np.repeat(np.random.default_rng(3).random((N // 4, S)) < 0.2, 4, axis=0)
    planes = {name: np.where(is_hole, np.nan, getattr(out["holed"].bars, name)) for name in ("open", "high", "low", "close", "volume")}
    out["holed"].bars = replace(out["holed"].bars, **planes)
    return out | {"stepping": stepping(out["funded"], 6)}


WORLDS = worlds()


def draw(rng, n, **values):
    """PARAMS [n] of books, with everything drawn that lanes may differ in."""
    rows = np.repeat(book_params(**values).record(), n)
    for name, choices in DRAWN.items():
        layer, key = name.split(".")
        rows[layer][key] = rng.choice(choices, n)
    return rows


def assert_same_in_lanes(market, rows):
    """Compare drivers, and return what both found."""
    ends = np.arange(market.bars.n)
    with driver("lanes"):
        assert set(drivers(market, rows)) == {Driver.LANES}
        got, _, equity = sweep_with_equity(market, rows, ends)
    with driver("plain"):
        parts = [sweep_with_equity(market, part, ends) for part in np.array_split(rows, -(-len(rows) // 64))]
    assert_same_bits(equity, np.concatenate([part[2] for part in parts]), "equity")
    want = np.concatenate([part[0] for part in parts])
    for column in METRICS.names:
        assert_same_bits(got[column], want[column], column)
    return want, equity


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("neutral", NEUTRALS)
def test_every_switch_has_the_bits_of_the_plain_driver(world, neutral):
    market, rng, found = market_of(WORLDS[world]), np.random.default_rng(1), []
    for values in SWITCHES:
        found.append(assert_same_in_lanes(market, draw(rng, 96, **values | {"governor.neutral": neutral}))[0])
    all_ = np.concatenate(found)
    assert len(np.unique(all_["last_equity"])) > 200
    assert (all_["n_fills"] - all_["n_trades"] - all_["n_closed"]).sum() > 5_000  # added and reduced
    assert min(all_["n_stops"].sum(), all_["n_shorts"].sum()) > 1_000
    assert np.any(all_["funding"] != 0.0) == (world in ("funded", "stepping"))
    assert world != "stepping" or (all_["last_equity"] == 0.0).sum() > 5


@settings(max_examples=25, deadline=None)
@given(
    world=st.sampled_from(sorted(WORLDS)),
    seed=st.integers(0, 2**32 - 1),
    neutral=st.sampled_from(NEUTRALS),
    values=st.sampled_from([*SWITCHES, {"broker.allow_short": False}, {"governor.emergency_stop": True}]),
)
def test_lanes_have_the_bits_of_the_plain_driver(world, seed, neutral, values):
    neutral = neutral if values.get("broker.allow_short", True) else "none"
    assert_same_in_lanes(market_of(WORLDS[world]), draw(np.random.default_rng(seed), 64, **values | {"governor.neutral": neutral}))


def test_shorts_off_opens_none_and_a_kill_switch_nothing():
    market = market_of(WORLDS["funded"])
    long, _ = assert_same_in_lanes(market, draw(np.random.default_rng(2), 128, **{"broker.allow_short": False}))
    assert long["n_trades"].sum() > 1_000
    assert long["n_shorts"].sum() == 0
    assert assert_same_in_lanes(market, draw(np.random.default_rng(2), 64, **{"governor.emergency_stop": True}))[0]["n_fills"].sum() == 0


def test_a_daily_limit_takes_the_largest_moves():
    """Between a limit that never binds and one that always does; lanes that choose stand beside those that need not."""
    rows = draw(np.random.default_rng(4), 128)
    rows["governor"]["max_daily_trades"] = np.tile([1, 2, 4, 7, 10, 20, 40, 10_000], 16)
    for name, value in (("max_drawdown", 1.0), ("max_exposure", 2.0), ("max_position", 0.3), ("kelly_fraction", 0.05), ("band", 0.0)):
        rows["governor"][name] = value
    want, _ = assert_same_in_lanes(market_of(WORLDS["plain"]), rows)
    added = (want["n_fills"] - want["n_closed"]).reshape(16, 8).mean(axis=0)
    assert np.all(np.diff(added) > 0.0)


def test_lanes_are_halted_and_ruined_in_different_bars():
    rows = draw(np.random.default_rng(5), 128)
    for name, value in (("max_position", 1.0), ("kelly_fraction", 1.0), ("max_drawdown", 1.0), ("max_daily_trades", 10_000), ("band", 0.0)):
        rows["governor"][name] = value
    rows["governor"]["max_exposure"], rows["governor"]["stop_loss"] = np.linspace(0.2, 10.0, 128), np.tile([0.05, 1.0], 64)
    want, equity = assert_same_in_lanes(market_of(WORLDS["stepping"]), rows)
    ruined = want["last_equity"] == 0.0
    assert 10 < ruined.sum() < 118
    assert len(np.unique(np.argmax(equity == 0.0, axis=1)[ruined])) > 2


def test_rebalancings_are_counted_from_the_accounts_first_bar():
    w = WORLDS["plain"]
    rows, market = draw(np.random.default_rng(6), 64, **{"governor.rebalance_bars": 7}), market_of(w)
    first, _ = assert_same_in_lanes(market, rows)
    later, _ = assert_same_in_lanes(replace(market, first=3, kept=[]), rows)
    assert first.tobytes() != later.tobytes()


def test_books_and_symbols_beside_each_other():
    rng = np.random.default_rng(7)
    books, symbols = draw(rng, 70), draw(rng, 70, **{"governor.book": "symbols"})
    rows = np.concatenate([books, symbols])[rng.permutation(140)]
    assert_same_in_lanes(market_of(WORLDS["funded"]), rows)
    with driver("lanes"):
        chunks = rows_module.cut(market_of(WORLDS["funded"]).bars, rows, True)
    kinds = rows["governor"]["book"][chunks.rows]
    assert np.all(kinds == kinds[:, :1])
    assert len(chunks.rows) == 4


@pytest.mark.parametrize(
    ("book", "name", "values", "n"),
    [
        ("cross_section", "governor.sizing_mode", ["kelly_edge", "kelly_win_rate"], 1),
        ("cross_section", "governor.reference_confidence", [0.5, 0.7], 1),
        ("cross_section", "governor.rebalance_bars", [1, 2], 2),
        ("symbols", "governor.rebalance_bars", [1, 2], 1),
        ("symbols", "governor.neutral", ["none", "dollar"], 1),
        ("symbols", "governor.reference_confidence", [0.5, 0.7], 2),
    ],
)
def test_what_is_not_read_does_not_part_settings(book, name, values, n):
    rows = records([book_params(**{"governor.book": book, name: value}) for value in values for _ in range(32)])
    bars = WORLDS["plain"].bars
    with driver("lanes"):
        assert len(rows_module.cut(bars, rows, True).rows) == n
