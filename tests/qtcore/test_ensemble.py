"""Does the vote add up? Compiled kernels against their naive twins, bit by bit, on every pattern of five models."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtcore import ensemble
from qtcore.chain import patterns
from qtcore.choices import TieBreak
from qtcore.types import Action, Code, Consensus, Value
from tests.conftest import assert_same_bits
from tests.naive import opinion
from tests.support import PUBLISHED
from tests.support.cells import all_patterns, cell_votes, empty_slabs, random_regime

COLUMNS = {
    "ensemble_action": Code.ENSEMBLE_ACTION,
    "consensus": Code.CONSENSUS,
    "consensus_count": Code.CONSENSUS_COUNT,
    "n_voters": Code.N_VOTERS,
}
VARIANTS = {
    "default": {},
    "order": {"ensemble.tie_break": "order"},
    "equal weights": {"ensemble.weights": [0.2] * 5},
    "one outweighs all": {"ensemble.weights": [0.6, 0.1, 0.2, 0.1]},
    "no weight for two": {"ensemble.weights": [0.0, 0.0, 0.5, 0.5, 1.0]},
    "multipliers": {"ensemble.multipliers": [0.6, 1.0, 1.1, 1.2]},
    "by regime": {"ensemble.regime_factors": np.random.default_rng(3).uniform(0.0, 2.0, 45).tolist()},
    "a regime without weights": {"ensemble.regime_factors": [0.0] * 20 + [1.0] * 25},
}


def run_vote(action, confidence, regime, params, cuts=()):
    (codes, values), table = empty_slabs(action.shape[1]), patterns.pattern_table(params.record())
    edges = [0, *sorted(cuts), action.shape[1]]
    for start, stop in pairwise(edges):
        patterns.look_up(action, regime, table, np.empty(max(1, stop - start), np.int32), codes, start, stop)
        ensemble.average(action, confidence, params.record(), codes, values, start, stop)
    return codes, values


def world(seed=0):
    rng = np.random.default_rng(seed)
    action, confidence = all_patterns(rng)
    return action, confidence, random_regime(rng, 1, action.shape[1])[:, 0].copy()


@pytest.mark.parametrize("name", VARIANTS)
def test_every_pattern_of_five_models_equals_the_naive_vote(name):
    action, confidence, regime = world()
    params = PUBLISHED.with_values(VARIANTS[name])
    codes, values = run_vote(action, confidence, regime, params)
    for i in range(action.shape[1]):
        want = opinion.vote(cell_votes(action, confidence, i), tuple(regime[:, i].tolist()), params.flat())
        got = {column: int(codes[row, i]) for column, row in COLUMNS.items()}
        assert {**got, "ensemble_confidence": float(values[Value.ENSEMBLE_CONFIDENCE, i])} == want, (i, action[:, i])


@pytest.mark.parametrize("fills", [False, True])
@pytest.mark.parametrize("name", VARIANTS)
def test_the_weighted_score_equals_its_twin(name, fills):
    action, confidence, _ = world(1)
    p = PUBLISHED.with_values(VARIANTS[name]).flat()
    weights, tie_break = np.array(p["ensemble.weights"]), int(TieBreak[p["ensemble.tie_break"].upper()])
    for i in range(action.shape[1]):
        votes = cell_votes(action, confidence, i)
        want = opinion.weighted_score_rule(opinion.fill_rule(votes) if fills else votes, weights.tolist(), p["ensemble.tie_break"])
        assert ensemble.weighted_score_rule(action, confidence, i, weights, tie_break, fills) == want


POLICIES = {
    **VARIANTS,
    "half": {"meta.missing_fill": "hold_half"},
    "loose": {"meta.consensus_threshold": 0.5, "meta.disagreement_threshold": 0.7, "ensemble.weights": [0.6, 0.1, 0.2, 0.1]},
    "strict": {"meta.consensus_threshold": 1.0, "meta.disagreement_threshold": 0.8},
}


@pytest.mark.parametrize("name", POLICIES)
def test_every_entry_of_the_pattern_table(name):
    """The table unpacked by hand, against the rules asked pattern by pattern."""
    params = PUBLISHED.with_values(POLICIES[name])
    want = [entry for table in opinion.fill_table(params.flat()) for entry in table]
    got = patterns.pattern_table(params.record())
    assert len(got) == len(want)
    for entry, (column, (sound, low), outvoted) in zip(got.tolist(), want, strict=True):
        assert [entry & 3, entry >> 2 & 7, entry >> 5 & 7, entry >> 8 & 7] == list(column.values())
        assert [entry >> 11 & 31, entry >> 16 & 3] == [sound["meta_reason"], sound["verdict"]]
        assert [entry >> 18 & 31, entry >> 23 & 3] == [low["meta_reason"], low["verdict"]]
        assert (entry >> 25) == outvoted


def test_a_table_is_made_once_per_parameters():
    record = PUBLISHED.record()
    assert patterns.pattern_table(record) is patterns.pattern_table(PUBLISHED.record())
    assert patterns.pattern_table(record) is not patterns.pattern_table(PUBLISHED.with_values(POLICIES["half"]).record())


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, 1024), max_size=6), seed=st.integers(0, 3))
def test_cutting_the_cells_changes_no_bit(cuts, seed):
    action, confidence, regime = world(seed)
    params = PUBLISHED.with_values(VARIANTS["by regime"])
    whole, parts = run_vote(action, confidence, regime, params), run_vote(action, confidence, regime, params, cuts)
    assert_same_bits(whole[0], parts[0])
    assert_same_bits(whole[1], parts[1])


def one(action, confidence, **values):
    """Vote on one cell of the four base models; None is absent."""
    planes = np.full((5, 1), -1, np.int8), np.full((5, 1), np.nan)
    for m, (a, c) in enumerate(zip(action, confidence)):
        if a is not None:
            planes[0][m], planes[1][m] = a, c
    codes, slab = run_vote(*planes, np.full((2, 1), np.nan), PUBLISHED.with_values(values))
    return Action(codes[Code.ENSEMBLE_ACTION, 0]), slab[Value.ENSEMBLE_CONFIDENCE, 0], Consensus(codes[Code.CONSENSUS, 0])


S, H, B = Action.SELL, Action.HOLD, Action.BUY


def test_hand_worked_votes():
    assert one([B, B, H, B], [0.829, 0.786, 0.654, 0.712]) == (B, (0.829 + 0.786 + 0.712) / 3, Consensus.STRONG)
    assert one([B, S, B, S], [0.72, 0.68, 0.65, 0.71]) == (B, 0.685, Consensus.SPLIT)
    assert one([B, None, S, None], [0.75, None, 0.9, None]) == (S, 0.9, Consensus.SPLIT)
    assert one([B, S, H, H], [0.9, 0.8, 0.7, 0.6], **{"ensemble.weights": [0.6, 0.1, 0.2, 0.1]}) == (B, 0.9, Consensus.WEAK)
    assert one([B] * 4, [0.99, 0.98, 0.97, 0.96]) == (B, 0.95, Consensus.UNANIMOUS)
    assert one([None] * 4, [None] * 4) == (H, 0.5, Consensus.NO_VALID_MODELS)


def test_a_tie_holds_by_default_and_goes_by_order_in_the_original():
    """xgb and lgbm against nhits and patchtst weigh 0.50 : 0.50 (4.3)."""
    for left, right, first in ((B, S, B), (S, H, S), (B, H, B), (H, S, S)):
        votes = ([left, left, right, right], [0.7, 0.7, 0.9, 0.9])
        assert one(*votes) == (H, 0.5, Consensus.TIE)
        action, _, label = one(*votes, **{"ensemble.tie_break": "order"})
        assert (action, label) == (first, Consensus.SPLIT)


def test_the_count_of_a_tie_is_its_hold_voters():
    action = np.array([[S], [H], [B], [-1], [-1]], np.int8)
    codes, _ = run_vote(
        action, np.where(action < 0, np.nan, 0.6), np.zeros((2, 1)), PUBLISHED.with_values({"ensemble.weights": [1, 1, 1, 1]})
    )
    assert (codes[Code.CONSENSUS, 0], codes[Code.CONSENSUS_COUNT, 0], codes[Code.N_VOTERS, 0]) == (Consensus.TIE, 1, 3)


def test_confidence_plays_no_part_in_the_winner():
    action, confidence, regime = world()
    other = np.where(np.isnan(confidence), np.nan, 1.0 - confidence)
    rows = [Code.ENSEMBLE_ACTION, Code.CONSENSUS, Code.CONSENSUS_COUNT, Code.N_VOTERS]
    assert_same_bits(run_vote(action, confidence, regime, PUBLISHED)[0][rows], run_vote(action, other, regime, PUBLISHED)[0][rows])


@pytest.mark.parametrize("volatility", [np.nan, -1.0, 0.0, 0.39, 0.4, 0.5, 0.59, 0.6, 2.0])
@pytest.mark.parametrize("trend", [np.nan, -1.0, -0.21, -0.2, 0.0, 0.2, 0.21])
def test_regime_slices(volatility, trend):
    assert ensemble.slice_rule(volatility, trend) == opinion.slice_rule(volatility, trend)


def test_regime_weights_keep_their_sum():
    rng = np.random.default_rng(0)
    for number in range(9):
        weights, factors = rng.random(5), rng.random(45)
        got = ensemble.regime_weights(weights, factors, number)
        assert list(got) == opinion.regime_weights(weights.tolist(), factors.tolist(), number)
        assert sum(got) == pytest.approx(weights.sum(), rel=1e-12)


@settings(deadline=None)
@given(a=st.integers(-3, 3), b=st.integers(-3, 3), c=st.integers(-3, 3))
def test_the_two_largest_of_three(a, b, c):
    assert ensemble.second_rule(float(a), float(b), float(c)) == opinion.second_rule(a, b, c)
