"""Where and at what price do orders fill under each value of `broker.fill` and `broker.impact`? Examples of five bars, worked by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

import qtcore as qt
from qtcore.broker import last_traded, traded_before
from qtcore.chain.price import maps_on
from qtcore.choices import FillAt
from qtcore.sweep import Market, sweep
from tests.conftest import assert_same_bits, awkward_bars
from tests.naive import trade as naive
from tests.qtcore.test_trade import FLAT, HOLE, RUINED, example, reasons
from tests.support import PUBLISHED
from tests.support.priced import PRICED, priced_world

RISING = [(100.0 + t, 100.5 + t, 99.5 + t, 100.2 + t) for t in range(6)]  # open, high, low, close
WIDE = {"governor.stop_loss": 0.5}


def filled(rows, signals, fill, **values):
    return example(rows, signals, values={"broker.fill": fill, **WIDE, **values})[2]


def test_the_next_close_is_that_of_the_bar_after_the_decision():
    assert filled(RISING, "B.S...", "next_close") == [(2.0, "APPROVED", 101.2, 0.0), (4.0, "EXIT_SIGNAL", 103.2, 19.76)]


def test_one_bar_later_is_the_open_after_the_next():
    assert filled(RISING, "B.S...", "one_bar_later") == [(2.0, "APPROVED", 102.0, 0.0), (4.0, "EXIT_SIGNAL", 104.0, 19.61)]


def test_the_worst_price_buys_at_the_high_and_sells_at_the_low():
    assert filled(RISING, "B.S...", "worst") == [(1.0, "APPROVED", 101.5, 0.0), (3.0, "EXIT_SIGNAL", 102.5, 9.85)]
    assert filled(RISING, "S.B...", "worst") == [(1.0, "APPROVED", 100.5, 0.0), (3.0, "EXIT_SIGNAL", 103.5, -29.85)]


@pytest.mark.parametrize(("fill", "first", "last"), [("next_open", 1, 3), ("close", 1, 3), ("next_close", 2, 4), ("one_bar_later", 2, 4)])
def test_positions_are_held_for_the_horizon(fill, first, last):
    """Hours: an open is that of its bar, a close one later. Two bars lie between entry and exit wherever both are filled."""
    fills = filled(RISING, "B.....", fill, **{"broker.max_holding_bars": 2})
    assert [(hour, reason) for hour, reason, _, _ in fills] == [(first, "APPROVED"), (last, "HORIZON")]


def test_one_bar_later_nothing_is_held_for_less_than_the_two_bars_that_an_order_takes():
    fills = filled(RISING, "B.....", "one_bar_later", **{"broker.max_holding_bars": 1})
    assert [fill[:2] for fill in fills] == [(2.0, "APPROVED"), (4.0, "HORIZON")]


def test_an_order_on_its_way_is_the_only_one_of_its_symbol_and_counts_as_exposure():
    result, state, _ = example(RISING, "BBS...", values={"broker.fill": "one_bar_later", **WIDE})
    assert reasons(result)[:3] == ["APPROVED", "POSITION_ALREADY_OPEN", "EXIT_SIGNAL"]
    assert result.exposure.tolist()[:3] == [1000.0, 1000.0, 1000.0]
    assert (state.account["n_trades"][0], state.account["n_cancelled"][0]) == (1, 0)


@pytest.mark.parametrize(("fill", "hole"), [("next_close", 1), ("one_bar_later", 2), ("worst", 1)])
def test_an_entry_whose_bar_is_a_hole_is_cancelled(fill, hole):
    rows = [HOLE if t == hole else row for t, row in enumerate(RISING)]
    result, state, fills = example(rows, "B.....", values={"broker.fill": fill, **WIDE})
    assert (fills, reasons(result)[hole], state.account["n_cancelled"][0]) == ([], "NO_BAR", 1)
    assert result.exposure[hole] == 0.0


@pytest.mark.parametrize("fill", ["next_close", "one_bar_later", "worst"])
def test_an_exit_waits_for_a_bar(fill):
    rows = [*RISING[:3], HOLE, HOLE, RISING[5], RISING[5]]
    assert filled(rows, "B.S....", fill)[1][0] == (6.0 if fill == "next_close" else 5.0)


@pytest.mark.parametrize(("fill", "level"), [("next_close", 90.0), ("one_bar_later", 90.0), ("worst", 88.0)])
def test_a_stop_does_not_wait_for_an_order(fill, level):
    """The exit is ordered, and the next bar opens beyond the stop: it leaves there, once; the worst price of that bar is its low."""
    rows = [FLAT, FLAT, FLAT, FLAT, (90.0, 91.0, 88.0, 91.0), FLAT, FLAT]
    *_, fills = example(rows, "B..S...", values={"broker.fill": fill})
    assert [fill[1:3] for fill in fills[1:]] == [("STOP" if fill != "worst" else "EXIT_SIGNAL", level)]


@pytest.mark.parametrize("fill", ["one_bar_later", "next_close"])
def test_an_order_dies_with_the_account(fill):
    falling = [FLAT, FLAT, FLAT, (1.0, 1.0, 1.0, 1.0), FLAT, FLAT]
    rows, signals = {"A": falling, "B": [FLAT] * 6, "C": falling}, {"A": "B.....", "B": "..B...", "C": "B....."}
    result, state, fills = example(rows, signals, values={**RUINED, "broker.slippage_rate": 0.0, "broker.fill": fill})
    assert [reasons(result, s)[3] for s in range(3)] == ["LIQUIDATED"] * 3
    assert (state.account["n_cancelled"][0], result.exposure[3], result.equity[3]) == (1, 0.0, 0.0)
    assert [fill[1] for fill in fills] == ["APPROVED", "APPROVED", "LIQUIDATED", "LIQUIDATED"]


def test_impact_grows_with_the_root_of_the_share_of_the_bar_before():
    values = {"broker.impact": 0.1, "broker.slippage_rate": 0.001, **WIDE}
    result, *_ = example([FLAT] * 6, "B.S...", values=values, volume=40.0)  # 4,000 quote a bar, 1,000 ordered: a quarter
    entry, leave = result.fills
    assert entry["price"] == 100.0 * (1.0 + 0.1 * math.sqrt(0.25)) * (1.0 + 0.001)
    assert leave["price"] == 100.0 * (1.0 - 0.1 * math.sqrt(entry["qty"] * 100.0 / 4000.0)) * (1.0 - 0.001)
    assert entry["slippage"] == entry["qty"] * (entry["price"] - 100.0)


def test_an_order_where_nothing_traded_before_pays_half_the_price():
    result, *_ = example([FLAT] * 4, "B...", values={"broker.impact": 1e-6, **WIDE})
    assert result.fills["price"][0] == 150.0


def test_the_volume_that_an_order_meets_is_that_of_the_last_bar_with_any():
    bars = awkward_bars(300, 4, 5)
    bars.volume[40:60] = 0.0
    whole, carried = np.empty(bars.close.shape), np.zeros(5)
    traded_before(bars.close, bars.volume, carried, whole)
    for s in range(5):
        assert whole[:, s].tolist() == naive.traded_before(bars.close[:, s].tolist(), bars.volume[:, s].tolist(), 0.0)
    parts, state = np.empty(bars.close.shape), np.zeros(5)
    for rows in (slice(0, 50), slice(50, 51), slice(51, 300)):
        traded_before(bars.close[rows], bars.volume[rows], state, parts[rows])
    assert_same_bits(parts, whole)
    assert_same_bits(state, carried)
    for stop in (0, 1, 50, 60, 300):
        state = np.zeros(5)
        traded_before(bars.close[:stop], bars.volume[:stop], state, np.empty((stop, 5)))
        assert_same_bits(last_traded(bars.close[:stop], bars.volume[:stop]), state)
        many = (np.concatenate([plane[:stop], np.full((3_000, 5), np.nan)]) for plane in (bars.close, bars.volume))
        assert_same_bits(last_traded(*many), state)


@pytest.mark.parametrize("base", [{"governor.min_confidence": 0.4}, PRICED], ids=["by confidence", "priced"])
@pytest.mark.parametrize("values", [{"broker.fill": fill.name.lower()} for fill in FillAt] + [{"broker.impact": 0.2}], ids=str)
def test_a_sweep_and_an_engine_in_blocks_give_the_run(values, base):
    w = priced_world(200, 4, seed=3)
    w.maps["start"] = w.bars.close_time[[0, 50, 100]]
    votes = replace(w.votes, maps=w.maps)
    params = PUBLISHED.with_values(base | values | {"broker.max_holding_bars": 5})
    whole = qt.Engine(params).run(w.bars, votes)
    assert len(whole.fills) > 10
    resumed, parts = qt.Engine(params), []
    for a, b in ((0, 70), (70, 71), (71, 200)):
        before, resumed = resumed, qt.Engine(params)
        if a:
            resumed.restore(before.state, w.bars.symbols, w.bars.interval)
        parts.append(resumed.run(w.bars[a:b], votes[a:b]))
    assert_same_bits(np.concatenate([part.fills for part in parts]), whole.fills)
    maps = maps_on(w.maps, w.bars.close_time, 4)
    market = Market.of(w.bars, votes, whole.planes.arbiter, whole.planes.regime, pricing=whole.pricing, maps=maps)
    assert set(sweep(market, np.repeat(params.record(), 30))[0]["last_equity"]) == {whole.equity[-1]}


def test_the_single_bar_path_refuses_what_reads_volume():
    engine = qt.Engine(PUBLISHED.with_values({"broker.impact": 0.1}))
    engine.run(awkward_bars(60, 1, 2))
    with pytest.raises(qt.InputError, match=r"stepper must run without broker\.impact, was asked for 0\.1; use run"):
        engine.stepper()
