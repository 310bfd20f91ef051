"""Is an opinion traded for what it is worth? Cells against the naive flow, accounts, sweeps and bits under cutting."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qtcore as qt
from qtcore.chain.decide import decide
from qtcore.chain.price import carry_block, carry_weight, fill_in, leans_of, map_at, maps_on, net_rule, no_map, price_rule, told, win_rule
from qtcore.chain.trade import TradeState, run_trade
from qtcore.meta.bet import shrink_rule
from qtcore.metrics import metrics_of
from qtcore.params import Params
from qtcore.rules import Reason
from qtcore.sweep import Market, sweep
from qtcore.types import MAP, METRICS, N_KNOTS, NS_PER_HOUR, Votes
from tests.conftest import assert_same_bits
from tests.naive import price as naive
from tests.naive import trade as naive_trade
from tests.qtcore import test_sweep
from tests.support import PUBLISHED
from tests.support.cells import cell_votes
from tests.support.priced import KINDS, PRICED, priced_world

N, S = 150, 5
PROBLEM = Reason.PREDICTION_ERROR


def params_of(kind, **more):
    return PUBLISHED.with_values(PRICED | KINDS[kind] | more)


def decided(w, params):
    return decide(w.votes, w.arbiter, w.regime, params, w.probs, meta_problem=PROBLEM, pricing=w.pricing, maps=w.maps)


def traded(w, params, bars=None):
    d = decided(w, params)
    bars = w.bars if bars is None else bars
    return run_trade(bars, d.raw_action, d.raw_confidence, params, TradeState.fresh(params, len(bars.symbols)), money=d.money)


def as_dict(map_):
    return {name: map_[name].tolist() for name in MAP.names}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("probs", [True, False])
def test_every_cell_equals_the_naive_flow(kind, probs):
    w, params = priced_world(N, S, seed=len(kind), probs=probs), params_of(kind)
    d, p, firsts = decided(w, params), params.flat(), w.maps["first"].tolist()
    flat = {name: getattr(d, name).reshape(-1) for name in d.columns}
    for i in range(N * S):
        cell = cell_votes(w.votes.action.reshape(5, -1), w.votes.confidence.reshape(5, -1), i)
        three = None if w.votes.probs is None else w.votes.probs.reshape(5, -1, 3)[:, i].tolist()
        seen = [x.reshape(len(x), -1)[:, i].tolist() for x in (w.arbiter, w.regime)]
        map_ = as_dict(w.maps[naive.map_at(firsts, i)[0]])
        priced, pays = w.pricing.reshape(3, -1)[:, i].tolist(), float(w.probs.reshape(3, -1)[2, i])
        want = naive.decide_block(cell, three, *seen, priced, pays, PROBLEM, map_, p)
        for column, value in want.items():
            assert flat[column][i] == value or (value != value and np.isnan(flat[column][i])), (i, column, flat[column][i], want)


def test_the_kinds_reach_every_answer():
    reasons, asked, sources = set(), set(), set()
    for kind in KINDS:
        d = decided(priced_world(400, S, seed=3), params_of(kind))
        reasons |= set(np.unique(d.meta_reason).tolist())
        asked |= set(np.unique(d.arbiter_reason).tolist())
        sources |= set(np.unique(d.source).tolist())
    assert {Reason.BET_TAKEN, Reason.BET_SHRUNK, Reason.BET_SKIPPED, PROBLEM} <= reasons
    assert {Reason.NO_SEAT, Reason.DEFER_NO_EDGE, Reason.BUY_SIGNAL, Reason.SELL_SIGNAL, Reason.NO_MARKET_DATA} <= asked
    assert sources == {0, 2}


@pytest.mark.parametrize("kind", KINDS)
def test_the_account_equals_the_naive_one(kind):
    w, params = priced_world(420, 6, seed=1), params_of(kind)
    d, result = decided(w, params), traded(w, params)
    columns = {name: getattr(w.bars, name).tolist() for name in ("open_time", "close_time", "open", "high", "low", "close")}
    money = [plane.tolist() for plane in d.money]
    book, out = naive_trade.trade(columns, d.raw_action.tolist(), d.raw_confidence.tolist(), params.flat(), money=money)
    for name in ("final_action", "governor_reason", "size", "pnl", "equity", "balance", "exposure", "worth"):
        got = getattr(result, name)
        assert_same_bits(got, np.array(out[name], got.dtype), name)
    assert len(book.ledger) == len(result.fills) > 20


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "decide.min_edge": st.sampled_from([0.0, 0.0005, 0.002]),
                "broker.fee_rate": st.sampled_from([0.0, 0.0004, 0.001]),
                "broker.slippage_rate": st.sampled_from([0.0, 0.0001]),
                "broker.max_holding_bars": st.sampled_from([1, 5, 24]),
                "governor.kelly_fraction": st.sampled_from([0.0, 0.01, 0.25]),
                "governor.max_position": st.sampled_from([0.05, 0.5]),
                "governor.max_daily_trades": st.sampled_from([2, 20]),
                "governor.min_confidence": st.sampled_from([0.0, 0.5]),
                "governor.order": st.sampled_from(["by_edge", "symbols"]),
                "governor.sizing_mode": st.sampled_from(["kelly_edge", "kelly_win_rate", "kelly_confidence"]),
                "ensemble.rule": st.sampled_from(["mean", "vote"]),
                "arbiter.enabled": st.booleans(),
                "meta.enabled": st.booleans(),
            }
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 3),
)
def test_a_row_of_a_sweep_is_the_run_of_its_parameters(values, seed):
    w = priced_world(N, S, seed, meta=seed % 2 == 0)
    rows = [params_of("priced", **each) for each in values]
    problem = None if w.probs is None else np.full(N, int(PROBLEM))
    market = Market.of(w.bars, w.votes, w.arbiter, w.regime, None, w.probs, problem, w.pricing, w.maps)
    got = {}
    for name in test_sweep.LEAST:
        with test_sweep.driver(name):
            got[name] = sweep(market, test_sweep.records(rows))[0]
    for i, params in enumerate(rows):
        result = traded(w, params)
        want = metrics_of(result.equity, result.worth, result.fills, params.broker.initial_cash)[0]
        for name, table in got.items():
            for column in METRICS.names:
                assert_same_bits(table[i][column], want[column], f"{name}: {column}")


def test_settings_with_and_without_a_price_run_beside_each_other():
    w = priced_world(N, S, 4, meta=False)
    rows = [params_of("priced") if i % 2 else Params.profile("original").with_values({"broker.max_holding_bars": 5}) for i in range(60)]
    market = Market.of(w.bars, w.votes, w.arbiter, w.regime, pricing=w.pricing, maps=w.maps)
    table = sweep(market, test_sweep.records(rows))[0]
    for i in (0, 1, 58, 59):
        with test_sweep.driver("plain"):
            assert_same_bits(table[i : i + 1], sweep(market, rows[i].record())[0])


@pytest.mark.parametrize("n_symbols", [1, 2])
def test_a_bar_alone_is_decided_as_within_its_block(n_symbols):
    """A single cell too, whose answer of a seated meta layer is an array of length one."""
    w, params = priced_world(80, n_symbols, 3), params_of("priced")
    maps = w.maps[-1:].copy()
    maps["first"] = 0
    whole = decide(w.votes, w.arbiter, w.regime, params, w.probs, meta_problem=PROBLEM, pricing=w.pricing, maps=maps)
    assert (whole.meta_reason == Reason.BET_SKIPPED).sum() > 10
    for t in range(80):
        bar = slice(t, t + 1)
        seen = w.arbiter[:, bar], w.regime[:, bar]
        one = decide(w.votes[bar], *seen, params, w.probs[:, bar], meta_problem=PROBLEM, pricing=w.pricing[:, bar], maps=maps)
        for a, b in zip(whole.slabs, one.slabs, strict=True):
            assert_same_bits(a[:, bar], b)


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, 399), max_size=5), funded=st.booleans())
def test_cutting_the_input_changes_nothing(cuts, funded):
    w, params = priced_world(400, 4, 2), params_of("priced")
    rates = np.where(np.arange(400)[:, None] % 8 == 7, 2e-4, 0.0) * np.ones((1, 4))
    bars = qt.Bars(**{**vars(w.bars), "funding": rates if funded else None})
    maps = w.maps.copy()
    maps["start"] = [bars.close_time[0], bars.close_time[100], bars.close_time[201]]

    votes = replace(w.votes, maps=maps)

    def run(edges):
        engine = qt.Engine(params)
        parts = [engine.run(bars[a:b], votes[a:b]) for a, b in pairwise(edges) if b > a]
        said = [np.concatenate([part.decisions.slabs[k] for part in parts], axis=1) for k in range(2)]
        return [*said, np.concatenate([part.equity for part in parts]), np.concatenate([part.fills for part in parts])], engine.state

    whole, state = run([0, 400])
    parts, after = run([0, *sorted(set(cuts)), 400])
    for a, b in zip(whole, parts, strict=True):
        assert_same_bits(a, b)
    for name in state:
        assert_same_bits(state[name], after[name], name)
    assert len(whole[3]) > 10


def test_the_future_changes_no_past_decision():
    w, params = priced_world(300, 4, 5), params_of("priced")
    maps = w.maps.copy()
    maps["start"] = w.bars.close_time[[0, 80, 220]]
    one = qt.Engine(params).run(w.bars[:200], replace(w.votes, maps=maps.copy())[:200])
    later = priced_world(300, 4, 6)
    votes = Votes(*(np.concatenate([a[:, :200], b[:, 200:]], axis=1) for a, b in zip(told_(w), told_(later), strict=True)), maps=maps)
    maps["slope"][2] = 9.0
    two = qt.Engine(params).run(w.bars, votes)
    for k in range(2):
        assert_same_bits(one.decisions.slabs[k], two.decisions.slabs[k][:, :200])
    assert_same_bits(one.equity, two.equity[:200])


def told_(w):
    return w.votes.action, w.votes.confidence, w.votes.probs


@pytest.mark.parametrize("first", [0, 150])
def test_the_stepper_gives_the_bits_of_the_block(first):
    """Before the first map too."""
    w, params = priced_world(300, 4, 7), params_of("priced")
    maps = w.maps[1 if first else 0 :].copy()
    maps["start"] = w.bars.close_time[[0, 80, 220] if first == 0 else [150, 220]]
    votes = replace(w.votes, maps=maps)
    whole = qt.Engine(params).run(w.bars, votes)
    engine = qt.Engine(params)
    engine.run(w.bars[:100], votes[:100])
    stepper, prices = engine.stepper(), np.stack([w.bars.open, w.bars.high, w.bars.low, w.bars.close, w.bars.volume])
    for t in range(100, 300):
        stepper.prices[:, 0], stepper.times[:, 0] = prices[:, t], (w.bars.open_time[t], w.bars.close_time[t])
        stepper.action[:], stepper.confidence[:], stepper.probs[:] = (a[:, t] for a in told_(w))
        stepper.step()
        assert_same_bits(stepper.values, whole.decisions.slabs[1][:, t], f"values of bar {t}")
        assert_same_bits(stepper.codes, whole.decisions.slabs[0][:, t], f"codes of bar {t}")
        assert_same_bits(stepper.lines[0, 0], whole.equity[t])


def test_a_restored_stepper_knows_what_opinions_are_worth_or_says_that_it_does_not():
    w, params = priced_world(300, 4, 7), params_of("priced")
    maps = w.maps.copy()
    maps["start"] = w.bars.close_time[[0, 80, 220]]
    votes = replace(w.votes, maps=maps)
    whole, before = qt.Engine(params).run(w.bars, votes), qt.Engine(params)
    before.run(w.bars[:100], votes[:100])
    engine = qt.Engine(params)
    engine.restore(before.state, w.bars.symbols, w.bars.interval)
    with pytest.raises(qt.InputError, match="what opinions are worth, was asked before any votes"):
        engine.stepper()
    engine.run(w.bars[100:101], votes[100:101])
    stepper, prices = engine.stepper(), np.stack([w.bars.open, w.bars.high, w.bars.low, w.bars.close, w.bars.volume])
    for t in range(101, 300):
        stepper.prices[:, 0], stepper.times[:, 0] = prices[:, t], (w.bars.open_time[t], w.bars.close_time[t])
        stepper.action[:], stepper.confidence[:], stepper.probs[:] = (a[:, t] for a in told_(w))
        stepper.step()
        assert_same_bits(stepper.lines[0, 0], whole.equity[t])
    assert len(whole.fills) > 0


def test_an_own_judge_is_priced_by_its_signed_confidence():
    w, params = priced_world(300, 4, 8), params_of("priced")
    maps = w.maps.copy()
    maps["start"] = w.bars.close_time[[0, 80, 220]]
    sure = np.full((300, 4), 0.4)
    judged = qt.Engine(params, judge=lambda votes, planes, p: (np.full((300, 4), 2, np.int8), sure))
    result = judged.run(w.bars, replace(w.votes, maps=maps))
    d = result.decisions
    assert np.all(d.lean == 0.4)
    assert set(np.unique(d.raw_action)) == {1, 2}
    first = 80 * 4
    assert np.all(d.raw_action.reshape(-1)[:first] == 1), "the first map knows of no edge"
    gross = maps["slope"][1] * 0.4 * result.planes["volatility_72h"][100]
    assert_same_bits(d.gross_edge[100], gross)
    assert np.all((d.raw_action == 2) == (d.edge > 0.0))


def test_without_a_map_nothing_trades():
    w = priced_world(N, S, 1)
    result = qt.Engine(params_of("priced")).run(w.bars, w.votes)
    assert len(result.fills) == 0
    assert np.all(result.decisions.raw_action == 1)
    costs = 2 * (0.0004 + 0.0001)
    edge = result.decisions.edge
    assert np.all(edge[~np.isnan(edge)] == -costs)
    assert np.all(np.isnan(edge) == (result.decisions.lean == 0.0))


@settings(max_examples=200, deadline=None)
@given(*[st.floats(-0.05, 0.05) for _ in range(3)], st.floats(0, 0.01), st.floats(0, 0.01))
def test_a_bid_trades_exactly_when_it_clears(bid, other, carry, costs, least):
    chosen, edge, in_doubt, is_arbiter = price_rule(bid, other, costs, carry, carry, least)
    assert (chosen, edge, in_doubt, is_arbiter) == naive.price_rule(bid, other, costs, carry, carry, least)
    assert chosen == 0.0 or net_rule(chosen, costs, carry) > least
    if chosen == 0.0:
        assert all(b == 0.0 or not net_rule(b, costs, carry) > least for b in (bid, other))


@settings(deadline=None)
@given(st.floats(0, 1))
def test_the_probability_lies_on_the_line_between_two_knots(size):
    knots = np.sort(np.random.default_rng(0).random(N_KNOTS))
    assert win_rule(knots, size) == naive.win_rule(knots.tolist(), size)
    assert win_rule(knots, size) == pytest.approx(np.interp(size, np.linspace(0, 1, N_KNOTS), knots), abs=1e-12)


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0, 0.49), st.floats(0.5, 1.0))
def test_the_meta_layer_never_adds(pays, skip, full):
    share = shrink_rule(pays, skip, full)
    assert share == naive.shrink_rule(pays, skip, full)
    assert 0.0 <= share <= 1.0
    assert (share == 0.0) == (pays <= skip) or share < 1e-300
    assert shrink_rule(np.nan, skip, full) == 1.0


def test_voters_without_probabilities_lean_by_their_confidence():
    votes = Votes(
        np.array([2, 0, 1, -1, 2], np.int8).reshape(5, 1, 1),
        np.array([0.6, 0.7, 0.8, np.nan, 0.9]).reshape(5, 1, 1),
        np.array([[0.1, 0.3, 0.6], [np.nan] * 3, [0.1, 0.8, 0.1], [np.nan] * 3, [0.0, 0.1, 0.9]]).reshape(5, 1, 1, 3),
    )
    filled = np.empty((5, 3))
    fill_in(*told(votes), 0, filled, 0, 1)
    want = [[0.1, 0.3, 0.6], [0.7, 1.0 - 0.7, 0.0], [0.1, 0.8, 0.1], [0.0, 0.1, 0.9]]
    np.testing.assert_array_equal(filled[[0, 1, 2, 4]], want)  # the absent voter does not count
    np.testing.assert_array_equal(leans_of(votes)[:, 0, 0], [0.6 - 0.1, -0.7, 0.0, np.nan, 0.9])


@pytest.mark.parametrize("shape", [(5, 59, 2, 3), (5, 60, 2), (5, 60, 2, 2), (4, 60, 2, 3), (5, 1, 1, 3)])
def test_probabilities_of_another_shape_are_refused(shape):
    w, params = priced_world(60, 2), params_of("priced")
    w.votes = replace(w.votes, probs=np.full(shape, 0.3))
    for run in (lambda: decided(w, params), lambda: qt.Engine(params).run(w.bars, w.votes)):
        with pytest.raises(qt.InputError, match=r"votes.probs must be of shape \[5, 60, 2, 3\]"):
            run()


@pytest.mark.parametrize("value", [-0.01, 1.5, np.inf])
def test_probabilities_outside_their_range_are_refused(value):
    w = priced_world(60, 2)
    w.votes.probs[1, 3, 1, 2] = value
    with pytest.raises(qt.InputError, match=rf"votes.probs must be NaN \(absent\) or in \[0, 1\], was {value:g}"):
        qt.Engine(params_of("priced")).run(w.bars, w.votes)


def test_maps_begin_where_their_time_comes():
    maps = np.repeat(no_map(), 4)
    maps["start"], maps["slope"] = [10, 20, 30, 40], [1, 2, 3, 4]
    cut = maps_on(maps, np.array([22, 30, 31, 35]), 3)
    assert cut["slope"].tolist() == [2, 3]
    assert cut["first"].tolist() == [0, 3]
    assert maps_on(maps, np.array([50]), 3)["slope"].tolist() == [4]
    before = maps_on(maps, np.array([5, 12]), 3)
    assert before["slope"].tolist() == [0, 1], "before the first there is no edge"
    assert before["first"].tolist() == [0, 3]
    for cell in range(12):
        assert map_at(cut, cell) == naive.map_at(cut["first"].tolist(), cell)


def test_expected_funding_is_an_exponential_mean():
    rates = np.random.default_rng(0).normal(size=(50, 2))
    mean, out, weight = np.zeros(2), np.empty((50, 2)), carry_weight(NS_PER_HOUR)
    carry_block(rates, weight, mean, out)
    for s in range(2):
        assert out[:, s].tolist() == naive.carry_block(rates[:, s].tolist(), weight, 0.0)
    assert_same_bits(mean, out[-1])


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"decide.rule": "edge"}, "meta.mode must be bet where decide.rule is edge, was policy; set both"),
        ({"ensemble.rule": "mean"}, "ensemble.rule may be mean only where decide.rule is edge"),
        ({"meta.mode": "bet"}, "meta.mode must be policy, override or v5"),
        ({"governor.sizing_mode": "kelly_edge"}, "sizing_mode may be kelly_edge only"),
        ({"governor.order": "by_edge"}, "order may be by_edge only"),
    ],
)
def test_what_does_not_go_together_is_named(values, match):
    with pytest.raises(qt.InputError, match=match):
        PUBLISHED.with_values(values)
