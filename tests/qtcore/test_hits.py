"""Are hit rates those of results that are known, the same under any cutting, and what the meta layer of mode `bet` is shown?"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtcore import Engine, Params
from qtcore.chain.price import leans_of
from qtcore.meta import VECTORS, Hits, MetaModel, feature_rows, hit_bars, meta_probs, wants_hits
from qtcore.meta.hits import HIT_WEIGHT, UNTRIED, backing_rule, hit_rule
from qtcore.meta.vectors import slot_order
from qtcore.types import InputError
from tests.conftest import assert_same_bits, awkward_bars
from tests.naive import opinion
from tests.support.cells import random_regime, random_votes

N, S = 240, 3
WITH_HITS = {"bet30": "meta26", "bet35": "meta30"}


def world(seed=0, n=N):
    """Leans [5, n, S] and closes [n, S]: with voters that are absent or lean to no side, closes that stand still or are missing."""
    rng = np.random.default_rng(seed)
    lean, close = rng.normal(size=(5, n, S)), np.round(100.0 + np.cumsum(rng.normal(size=(n, S)), axis=0))
    lean[rng.random(lean.shape) < 0.2] = 0.0
    lean[rng.random(lean.shape) < 0.2] = np.nan
    close[rng.random(close.shape) < 0.1] = np.nan
    return lean, close


@pytest.mark.parametrize("horizon", [1, 5, 72, N + 10])
def test_rates_equal_their_twin(horizon):
    lean, close = world()
    got = Hits.fresh(horizon, S).advance(lean, close)
    for s in range(S):
        assert got[:, :, s].tolist() == opinion.backing(lean[:, :, s].tolist(), close[:, s].tolist(), horizon, HIT_WEIGHT)
    assert np.all(got[:, :horizon] == UNTRIED)
    assert horizon > N or len(np.unique(got)) > 100


@pytest.mark.parametrize("lean", [-0.3, 0.0, 0.7, np.nan])
@pytest.mark.parametrize("begun", [100.0, np.nan])
@pytest.mark.parametrize("close", [99.0, 100.0, 101.0, np.nan])
def test_a_result_equals_its_twin(lean, begun, close):
    got = hit_rule(0.6, lean, begun, close, 0.25)
    assert got == opinion.hit_rule(0.6, lean, begun, close, 0.25)
    counts = lean in (-0.3, 0.7) and begun == 100.0 and close in (99.0, 101.0)
    assert got == pytest.approx(0.6 if not counts else 0.7 if (lean > 0.0) == (close > begun) else 0.45)


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, N), max_size=6), horizon=st.sampled_from([1, 5, 72, N + 10]))
def test_cutting_the_bars_changes_no_bit_of_rates_or_state(cuts, horizon):
    lean, close = world(1)
    whole, parts = Hits.fresh(horizon, S), Hits.fresh(horizon, S)
    expected = whole.advance(lean, close)
    got = [parts.advance(np.ascontiguousarray(lean[:, a:b]), close[a:b]) for a, b in pairwise([0, *sorted(cuts), N])]
    assert_same_bits(expected, np.concatenate(got, axis=1))
    assert_same_bits(whole.rate, parts.rate)
    assert_same_bits(whole.before, parts.before)


def test_bar_by_bar_is_the_block():
    lean, close = world(2)
    whole, parts = Hits.fresh(5, S), Hits.fresh(5, S)
    got = [parts.advance(np.ascontiguousarray(lean[:, t : t + 1]), close[t : t + 1]) for t in range(N)]
    assert_same_bits(whole.advance(lean, close), np.concatenate(got, axis=1))
    assert_same_bits(whole.before, parts.before)


def test_the_future_does_not_change_the_past_rates():
    lean, close = world(3)
    other, moved = lean.copy(), close.copy()
    other[:, 150:], moved[151:] = -lean[:, 150:], 200.0 - close[151:]
    a, b = Hits.fresh(5, S).advance(lean, close), Hits.fresh(5, S).advance(other, moved)
    assert_same_bits(a[:, :151], b[:, :151])
    assert np.any(a[:, 151:] != b[:, 151:])


def test_a_voter_that_becomes_useless_is_seen():
    """Half of the bars it knows the next five in nine cases of ten, then it guesses; the other way round for a second voter."""
    rng, n, half = np.random.default_rng(4), 6_000, 3_000
    close = np.exp(np.cumsum(rng.normal(0.0, 0.01, (n + 5, S)), axis=0))
    side = np.sign(close[5:] - close[:-5])
    knows = np.where(rng.random((2, n, S)) < 0.9, side, -side)
    guess = rng.choice([-1.0, 1.0], (2, n, S))
    lean = np.full((5, n, S), np.nan)
    lean[0] = np.concatenate([knows[0, :half], guess[0, half:]])
    lean[1] = np.concatenate([guess[1, :half], knows[1, half:]])
    alone = np.full((2, *lean.shape), np.nan)  # a voter backs its own bet with its rate
    alone[0, 0], alone[1, 1] = lean[0], lean[1]
    rate = np.stack([Hits.fresh(5, S).advance(each, close[:n])[m] for m, each in enumerate(alone)])
    settled = np.stack([rate[:2, 1_000:half].mean(axis=(1, 2)), rate[:2, half + 1_000 :].mean(axis=(1, 2))])
    assert settled == pytest.approx(np.array([[0.9, 0.5], [0.5, 0.9]]), abs=0.03)
    assert np.all(rate[0, half + 400] < 0.6)  # seen within 400 bars
    assert np.all(rate[1, half + 400] > 0.8)


@pytest.mark.parametrize("rate", [0.3, 0.7])
@pytest.mark.parametrize("lean", [-0.3, 0.0, 0.7, np.nan])
@pytest.mark.parametrize("side", [-1.0, 0.0, 1.0])
def test_backing_equals_its_twin(rate, lean, side):
    assert backing_rule(rate, lean, side) == opinion.backing_rule(rate, lean, side)


def test_a_voter_backs_the_side_that_most_lean_to():
    hits = Hits.fresh(5, 1)
    hits.rate[:, 0] = [0.7, 0.7, 0.4, 0.7, 0.7]
    lean = np.array([0.5, -0.2, -0.1, 0.0, np.nan]).reshape(5, 1, 1)
    assert hits.advance(lean, np.ones((1, 1))).ravel().tolist() == [0.7, 1.0 - 0.7, 1.0 - 0.4, UNTRIED, UNTRIED]
    assert hits.advance(-lean, np.ones((1, 1))).ravel().tolist() == [0.7, 1.0 - 0.7, 1.0 - 0.4, UNTRIED, UNTRIED]
    balanced = np.array([0.5, -0.5, 0.0, 0.0, np.nan]).reshape(5, 1, 1)
    assert np.all(hits.advance(balanced, np.ones((1, 1))) == UNTRIED)


# ---------------------------------------------------------------- in the rows of the meta layer


def learned(rng, vector, horizon=5):
    n = len(VECTORS[vector])
    arrays = {"mean": rng.normal(size=n), "scale": rng.random(n) + 0.1, "coef": rng.normal(size=(3, n)), "intercept": rng.normal(size=3)}
    return MetaModel("logistic_softmax", VECTORS[vector], arrays, horizon=horizon)


@pytest.mark.parametrize(("vector", "known"), WITH_HITS.items())
def test_rows_are_those_of_the_votes_with_the_rates_behind(vector, known):
    rng = np.random.default_rng(5)
    votes, regime = random_votes(rng, N, S), random_regime(rng, N, S)
    planes, before = {"volatility": regime[0], "trend_strength": regime[1]}, np.full(S, np.nan)
    hits = rng.random((5, N, S))
    (rows,), (old,) = ([part for _, part in feature_rows(v, votes, planes, before, hits)] for v in (vector, known))
    assert_same_bits(rows[:, : old.shape[1]], old)
    for k, m in enumerate(slot_order(vector)):
        assert_same_bits(rows[:, old.shape[1] + k], hits[m].reshape(-1))
    assert VECTORS[vector][: old.shape[1]] == VECTORS[known]
    assert VECTORS[vector][old.shape[1] :] == tuple(f"{votes.names[m]}_backing" for m in slot_order(vector))
    with pytest.raises(InputError, match=f"hits must hold the voters' backing for the features of {vector}, was none"):
        meta_probs(learned(rng, vector), votes, planes, before)


def test_only_the_vectors_with_rates_ask_for_them():
    assert [vector for vector in VECTORS if wants_hits(vector)] == list(WITH_HITS)
    rng = np.random.default_rng(6)
    assert [hit_bars(m) for m in (None, learned(rng, "meta26", 9), learned(rng, "bet30", 9), learned(rng, "bet35"))] == [0, 0, 9, 5]
    with pytest.raises(InputError, match="horizon must be 1 bar or more, was 0"):
        learned(rng, "bet30", 0)


def test_leans_are_what_prices_an_opinion():
    rng = np.random.default_rng(7)
    votes = random_votes(rng, N, S, with_probs=True)
    expected = np.where(votes.action < 0, np.nan, votes.probs[..., 2] - votes.probs[..., 0])
    assert_same_bits(leans_of(votes), expected)
    plain = replace(votes, probs=None)
    sided = np.where(votes.action == 2, votes.confidence, np.where(votes.action == 0, -votes.confidence, 0.0))
    assert_same_bits(leans_of(plain), np.where(votes.action < 0, np.nan, sided))


@pytest.fixture(scope="module", params=["default", "published"])
def market(request):
    """A profile, awkward bars, votes with probabilities, and a meta layer that reads hit rates of 24 bars."""
    rng, bars = np.random.default_rng(8), awkward_bars(400, 1, S)
    return Params.profile(request.param), bars, random_votes(rng, bars.n, S, with_probs=True), learned(rng, "bet30", 24)


def outputs(results):
    columns = ("meta_action", "meta_confidence", "raw_action", "raw_confidence")
    said = {name: np.concatenate([getattr(r.decisions, name) for r in results]) for name in columns}
    return said | {"meta_probs": np.concatenate([r.meta_probs for r in results], axis=1)}


def same(one, other):
    assert list(one) == list(other)
    for name, array in one.items():
        assert_same_bits(array, other[name], name)


def test_the_engine_bar_by_bar_and_after_a_restart_is_the_engine_in_one_block(market):
    params, bars, votes, meta = market
    whole, engine = Engine(params, meta_model=meta), Engine(params, meta_model=meta)
    expected, parts = outputs([whole.run(bars, votes)]), []
    for t in range(bars.n):
        if t in (10, 230):  # before the first result, and later
            again = Engine(params, meta_model=meta)
            again.restore(engine.state, bars.symbols, bars.interval)
            same(engine.state, again.state)
            engine = again
        parts.append(engine.run(bars[t : t + 1], votes[t : t + 1]))
    same(expected, outputs(parts))
    same(whole.state, engine.state)
    assert np.any(np.isfinite(expected["meta_probs"]))
    rates = Hits.fresh(24, S)
    rates.advance(leans_of(votes), bars.close)
    assert_same_bits(rates.rate, whole.state["meta.hit_rate"])
    assert_same_bits(rates.before, whole.state["meta.hit_before"])


def test_a_state_without_rates_starts_them_afresh(market):
    params, bars, votes, meta = market
    plain = Engine(params, meta_model=learned(np.random.default_rng(9), "meta26"))
    plain.run(bars[:200], votes[:200])
    assert not any("hit" in name for name in plain.state)
    engine = Engine(params, meta_model=meta)
    engine.restore(plain.state, bars.symbols, bars.interval)
    engine.run(bars[200:], votes[200:])
    rates = Hits.fresh(24, S)
    rates.advance(np.ascontiguousarray(leans_of(votes)[:, 200:]), bars.close[200:])
    assert_same_bits(rates.rate, engine.state["meta.hit_rate"])


def test_another_meta_layer_starts_rates_afresh_where_it_counts_them_over_another_horizon(market):
    params, bars, votes, meta = market
    engine, other = Engine(params, meta_model=meta), replace(meta, horizon=12)
    engine.run(bars[:200], votes[:200])
    engine.meta_model = replace(meta, hash="another")
    engine.run(bars[200:300], votes[200:300])
    straight = Engine(params, meta_model=meta)
    straight.run(bars[:300], votes[:300])
    assert_same_bits(straight.state["meta.hit_rate"], engine.state["meta.hit_rate"])
    engine.meta_model = other
    engine.run(bars[300:], votes[300:])
    rates = Hits.fresh(12, S)
    rates.advance(np.ascontiguousarray(leans_of(votes)[:, 300:]), bars.close[300:])
    assert_same_bits(rates.rate, engine.state["meta.hit_rate"])
