"""Does the horizon with the largest edge speak, and its trade last as long? Cells and accounts against their twins, cuts, live, sweeps."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qtcore as qt
from qtcore.chain.decide import decide
from qtcore.chain.horizons import gain_rule
from qtcore.chain.trade import TradeState, finish, run_trade
from qtcore.metrics import metrics_of
from qtcore.rules import Reason
from qtcore.sweep import Market, sweep
from qtcore.sweep.rows import Driver
from qtcore.sweep.run import drivers
from qtcore.types import DECISION_COLUMNS, MONEY_COLUMNS, Decisions
from tests.conftest import assert_same_bits
from tests.naive import price as naive
from tests.naive import trade as naive_trade
from tests.qtcore.test_book import OUTPUTS
from tests.qtcore.test_price import PROBLEM, as_dict, decided, params_of, told_, traded
from tests.support.cells import cell_votes
from tests.support.priced import KINDS, LENGTHS, priced_world, with_horizons

N, S = 150, 5
MORE = KINDS | {"calm book": KINDS["book"] | {"governor.target_volatility": 0.05}, "one later": {"broker.fill": "one_bar_later"}}
MORE |= {fill: {"broker.fill": fill} for fill in ("close", "next_close")}


def params_for(kind, **more):
    return params_of("priced", **MORE[kind] | more)


def world(n=N, n_symbols=S, seed=0, n_horizons=3, **kinds):
    return with_horizons(priced_world(n, n_symbols, seed, **kinds), n_horizons, seed)


@pytest.mark.parametrize("n_horizons", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_cell_equals_the_naive_flow(kind, n_horizons):
    w, params = world(seed=len(kind), n_horizons=n_horizons), params_for(kind)
    d, p, maps = decided(w, params), params.flat(), w.maps.reshape(n_horizons, -1)
    flat, probs = {name: getattr(d, name).reshape(-1) for name in d.columns}, w.votes.probs.reshape(5, -1, n_horizons, 3)
    for i in range(N * S):
        cell = cell_votes(w.votes.action.reshape(5, -1), w.votes.confidence.reshape(5, -1), i)
        f = naive.map_at(maps[0]["first"].tolist(), i)[0]
        three, later = probs[:, i, 0].tolist(), [(probs[:, i, h].tolist(), as_dict(maps[h, f])) for h in range(1, n_horizons)]
        seen = [x.reshape(len(x), -1)[:, i].tolist() for x in (w.arbiter, w.regime)]
        priced, pays = w.pricing.reshape(3, -1)[:, i].tolist(), float(w.probs.reshape(3, -1)[2, i])
        want = naive.decide_block(cell, three, *seen, priced, pays, PROBLEM, as_dict(maps[0, f]), p, later)
        assert set(want) == set(d.columns)
        for column, value in want.items():
            assert flat[column][i] == value or (value != value and np.isnan(flat[column][i])), (i, column, flat[column][i], want)


def test_every_horizon_speaks_somewhere_and_the_arbiter_trades_for_the_first():
    d = decided(world(400), params_for("priced"))
    assert set(np.unique(d.holding)) == {5.0, 12.0, 3.0}
    assert np.all(d.holding[d.source == qt.Source.ARBITER] == 5.0)
    assert np.any(d.source == qt.Source.ARBITER)


@pytest.mark.parametrize("kind", MORE)
def test_the_account_equals_the_naive_one(kind):
    w, params = world(420, 6, seed=1), params_for(kind)
    d, state = decided(w, params), TradeState.fresh(params, 6)
    result = run_trade(w.bars, d.raw_action, d.raw_confidence, params, state, money=d.money)
    columns = {name: getattr(w.bars, name).tolist() for name in ("open_time", "close_time", "open", "high", "low", "close")}
    money = [plane.tolist() for plane in d.money]
    book, out = naive_trade.trade(columns, d.raw_action.tolist(), d.raw_confidence.tolist(), params.flat(), money=money)
    for name in OUTPUTS:
        got = getattr(result, name)
        assert_same_bits(got, np.array(out[name], got.dtype), name)
    assert len(book.ledger) == len(result.fills) > 20
    _, fills = finish(state, int(w.bars.close_time[-1]), params)
    assert len(fills) == sum(sym["pos"] is not None for sym in book.symbols)


def test_a_trade_lasts_as_long_as_its_horizon():
    w, params = world(600, 4, seed=3), params_for("priced", **{"governor.stop_loss": 0.9, "governor.max_daily_trades": 1_000})
    d, result = decided(w, params), traded(w, params)
    entries, exits = result.fills[result.fills["is_entry"] == 1], result.fills[result.fills["reason"] == Reason.HORIZON]
    begun, checked = {row["trade_id"]: row for row in entries}, set()
    holes = np.isnan(w.bars.open)
    for row in exits:
        first = begun[row["trade_id"]]
        length = int(d.holding[first["bar"] - 1, row["symbol"]])
        due = first["bar"] + length
        late = next(t for t in range(due, len(holes)) if not holes[t, row["symbol"]])
        assert row["bar"] == late
        checked.add(length)
    assert checked == {3, 5, 12}


@pytest.mark.parametrize("rule", ["mean", "vote"])
def test_horizons_without_an_edge_change_no_bit(rule):
    """Nor does an opinion that no horizon of which is chosen: a vote reads the first alone."""
    w, params = world(300, seed=4), params_for("priced", **{"ensemble.rule": rule})
    alone = priced_world(300, S, 4)
    if rule == "mean":
        w.maps["slope"][len(w.maps) // 3 :] = 0.0
    one, several = decided(alone, params), decided(w, params)
    for name in (*DECISION_COLUMNS, *MONEY_COLUMNS):
        assert_same_bits(getattr(one, name), getattr(several, name), name)
    assert_same_bits(traded(alone, params).equity, traded(w, params).equity)
    assert several.holding is None if rule == "vote" else np.all(several.holding == 5.0)


def test_the_order_of_equals_is_that_of_the_label():
    w, params = priced_world(300, S, 4, funding=False), params_for("priced")
    twice = replace(w.votes, probs=np.concatenate([w.votes.probs] * 2, axis=3))
    maps = np.concatenate([w.maps, w.maps])
    maps["bars"][len(w.maps) :] = 12
    d = decide(twice, w.arbiter, w.regime, params, w.probs, meta_problem=PROBLEM, pricing=w.pricing, maps=maps)
    assert np.all(d.holding == 5.0)


@settings(max_examples=200, deadline=None)
@given(st.floats(-0.05, 0.05), st.floats(-0.05, 0.05))
def test_a_horizon_earns_its_bid_less_what_its_side_pays(bid, carry):
    assert gain_rule(bid, carry) == naive.gain_rule(bid, carry)
    assert gain_rule(bid, carry) == (0.0 if bid == 0.0 else abs(bid) - np.sign(bid) * carry)


@settings(max_examples=12, deadline=None)
@given(cuts=st.lists(st.integers(1, 399), max_size=5), kind=st.sampled_from(["priced", "book"]))
def test_cutting_the_input_changes_nothing(cuts, kind):
    w, params = world(400, 4, 2), params_for(kind)
    votes = replace(w.votes, maps=dated(w, [0, 100, 201]))

    def run(edges):
        engine, parts = qt.Engine(params), []
        for a, b in pairwise(edges):
            if b > a:
                parts.append(engine.run(w.bars[a:b], votes[a:b]))
                state, engine = engine.state, qt.Engine(params)
                engine.restore(state, w.bars.symbols, w.bars.interval)
        said = [np.concatenate([part.decisions.slabs[k] for part in parts], axis=1) for k in range(2)]
        return [*said, np.concatenate([part.equity for part in parts]), np.concatenate([part.fills for part in parts])], engine.state

    whole, state = run([0, 400])
    parts, after = run([0, *sorted(set(cuts)), 400])
    for a, b in zip(whole, parts, strict=True):
        assert_same_bits(a, b)
    for name in state:
        assert_same_bits(state[name], after[name], name)
    assert len(whole[3]) > 10
    assert ("account.lasts" in state) == (kind == "priced"), "a book holds as long as its opinion asks for"


def test_the_future_changes_no_past_decision():
    w, later, params = world(300, 4, 5), world(300, 4, 6), params_for("priced")
    maps = dated(w, [0, 80, 220])
    one = qt.Engine(params).run(w.bars[:200], replace(w.votes, maps=maps.copy())[:200])
    mixed = (np.concatenate([a[:, :200], b[:, 200:]], axis=1) for a, b in zip(told_(w), told_(later), strict=True))
    maps["slope"][[2, 5, 8]] = 9.0
    two = qt.Engine(params).run(w.bars, qt.Votes(*mixed, maps=maps))
    for k in range(2):
        assert_same_bits(one.decisions.slabs[k], two.decisions.slabs[k][:, :200])
    assert_same_bits(one.equity, two.equity[:200])


@pytest.mark.parametrize("kind", ["priced", "book", "of votes"])
def test_the_stepper_gives_the_bits_of_the_block(kind):
    w, params = world(300, 4, 7), params_for(kind)
    votes = replace(w.votes, maps=dated(w, [0, 80, 220]))
    whole, engine = qt.Engine(params).run(w.bars, votes), qt.Engine(params)
    engine.run(w.bars[:100], votes[:100])
    stepper, prices = engine.stepper(), np.stack([w.bars.open, w.bars.high, w.bars.low, w.bars.close, w.bars.volume])
    for t in range(100, 300):
        stepper.prices[:, 0], stepper.times[:, 0] = prices[:, t], (w.bars.open_time[t], w.bars.close_time[t])
        stepper.action[:], stepper.confidence[:], stepper.probs[:] = (a[:, t] for a in told_(w))
        stepper.step()
        assert_same_bits(stepper.values, whole.decisions.slabs[1][:, t], f"values of bar {t}")
        assert_same_bits(stepper.codes, whole.decisions.slabs[0][:, t], f"codes of bar {t}")
        assert_same_bits(stepper.lines[0, 0], whole.equity[t])


@pytest.mark.parametrize("seed", range(3))
def test_a_row_of_a_sweep_is_the_run_of_its_parameters(seed):
    w, rows = world(N, S, seed), [params_for(kind, **{"decide.min_edge": edge}) for kind in MORE for edge in (0.0, 0.001)]
    problem = np.full(N, int(PROBLEM))
    market = Market.of(w.bars, w.votes, w.arbiter, w.regime, None, w.probs, problem, w.pricing, w.maps)
    records = np.concatenate([row.record() for row in rows])
    table = sweep(market, records)[0]
    assert set(drivers(market, records)) == {Driver.HORIZONS}
    for i, params in enumerate(rows):
        result = traded(w, params)
        want = metrics_of(result.equity, result.worth, result.fills, params.broker.initial_cash)[0]
        for name in want.dtype.names:
            assert table[name][i] == want[name], (i, name)


def test_maps_of_another_number_of_horizons_are_refused():
    w, params = world(60, 2, n_horizons=2), params_for("priced")
    two, three = dated(w, [0, 20, 40]), dated(world(60, 2), [0, 20, 40])
    for maps in (two[:3], two[:5], three, two[::-1], two[:0]):
        with pytest.raises(qt.InputError, match=r"votes.maps must begin at the same rising times for each of 2 horizons, was not so"):
            qt.Engine(params).run(w.bars, replace(w.votes, maps=maps))
    for maps in (w.maps[:3], w.maps[:5]):
        with pytest.raises(qt.InputError, match="maps must be as many for each of 2 horizons"):
            decide(w.votes, w.arbiter, w.regime, params, w.probs, pricing=w.pricing, maps=maps)


def test_decisions_of_several_horizons_come_whole():
    d = Decisions.empty(4, 2, True, False, True)
    assert d.slabs[1].shape == (12, 4, 2)
    assert d.columns[-1] == "holding"
    assert len(LENGTHS) == 3


def dated(w, at):
    """Maps that begin at the bars `at`, the same for each horizon."""
    maps = w.maps.copy()
    maps["start"] = np.tile(w.bars.close_time[at], len(maps) // len(at))
    return maps
