"""Is a decision what the layers say, and nothing else? Cells against the naive flow, the invariants O-1 to O-9, bits under cutting."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtcore.chain.decide import decide
from qtcore.params import Params
from qtcore.rules import Reason
from qtcore.types import DECISION_COLUMNS, Action, Consensus, Decisions, InputError, Source, Verdict, Votes
from tests.conftest import assert_same_bits
from tests.naive import opinion
from tests.support import PUBLISHED
from tests.support.cells import cell_votes, random_market, random_probs, random_regime, random_votes

N, S = 130, 7
ON = {"meta.enabled": True, "arbiter.enabled": True}
ORIGINAL = {**{k: v for k, v in Params.profile("original").flat().items() if k != "features.feature_set"}, **ON}
VARIANTS = {
    "default": {},
    "original": ORIGINAL,
    "score": {"meta.policy_base": "score"},
    "half": {"meta.missing_fill": "hold_half", "meta.policy_base": "score"},
    "heavy": {"ensemble.weights": [0.6, 0.1, 0.2, 0.1]},
    "loose": {"meta.consensus_threshold": 0.5, "meta.disagreement_threshold": 0.7, "meta.entropy_threshold": 0.5},
    "strict": {"meta.consensus_threshold": 1.0, "meta.disagreement_threshold": 0.8, "meta.low_confidence": 0.3},
    "learned": {"meta.variant": "learned"},
    "learned, strict": {"meta.variant": "learned", "meta.consensus_threshold": 1.0, "meta.entropy_threshold": 0.5},
    "override": {"meta.mode": "override"},
    "closed": {"meta.mode": "override", "meta.fail_open": False, "ensemble.weights": [0.6, 0.1, 0.2, 0.1]},
    "v5": {"meta.mode": "v5"},
    "v5 unguarded": {"meta.mode": "v5", "meta.consensus_guard": False},
    "no arbiter": {"arbiter.enabled": False},
    "no meta": {"meta.enabled": False},
    "by regime": {
        "ensemble.regime_factors": np.random.default_rng(1).uniform(0, 2, 45).tolist(),
        "ensemble.multipliers": [0.6, 1, 1.1, 1.2],
    },
}


def world(n=N, n_symbols=S, seed=0):
    """Votes, arbiter inputs, regime and meta probabilities of a block."""
    rng = np.random.default_rng(seed)
    votes = random_votes(rng, n, n_symbols)
    return votes, random_market(rng, n, n_symbols), random_regime(rng, n, n_symbols), random_probs(rng, n, n_symbols)


def columns(decisions):
    return {name: getattr(decisions, name) for name in DECISION_COLUMNS}


def assert_same_decisions(a, b):
    for name in DECISION_COLUMNS:
        assert_same_bits(getattr(a, name), getattr(b, name), name)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_cell_equals_the_naive_flow(name):
    votes, arbiter, regime, probs = world(seed=len(name))
    params = PUBLISHED.with_values(VARIANTS[name])
    p, problem = params.flat(), Reason.FEATURE_DIM_MISMATCH
    got = columns(decide(votes, arbiter, regime, params, probs, meta_problem=problem))
    flat = {c: a.reshape(-1) for c, a in got.items()}
    for i in range(N * S):
        cell = cell_votes(votes.action.reshape(5, -1), votes.confidence.reshape(5, -1), i)
        seen = [x.reshape(len(x), -1)[:, i].tolist() for x in (arbiter, regime, probs)]
        want = opinion.decide_block(cell, *seen, problem, p)
        for column, value in want.items():
            assert flat[column][i] == value or (value != value and np.isnan(flat[column][i])), (i, column, flat[column][i], want)


@pytest.mark.parametrize("name", ["default", "learned", "override", "closed", "v5"])
def test_the_reason_of_a_silent_model_may_change_from_bar_to_bar(name):
    """A schedule is not loaded before its first model; cut there, the two parts say the same."""
    votes, arbiter, regime, probs = world(seed=3)
    probs[:, :60], params = np.nan, PUBLISHED.with_values(VARIANTS[name])
    problems = np.where(np.arange(N) < 60, int(Reason.MODEL_NOT_LOADED), int(Reason.FEATURE_EXTRACTION_ERROR))
    whole = columns(decide(votes, arbiter, regime, params, probs, meta_problem=problems))
    for part, reason in ((slice(0, 60), Reason.MODEL_NOT_LOADED), (slice(60, N), Reason.FEATURE_EXTRACTION_ERROR)):
        alone = decide(votes[part], arbiter[:, part], regime[:, part], params, probs[:, part], meta_problem=reason)
        for column, values in columns(alone).items():
            assert_same_bits(whole[column][part], values, column)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_cell_is_written(name):
    """Nonsense in a reused buffer, or in fresh memory, never shows."""
    block, params = world(seed=1), PUBLISHED.with_values(VARIANTS[name])
    out = Decisions.empty(N, S)
    for slab in out.slabs:
        slab[:] = -77
    assert decide(*block[:3], params, block[3], out) is out
    assert_same_decisions(out, decide(*block[:3], params, block[3]))


# ---------------------------------------------------------------- invariants, spec 11.6


def agreed(votes, share=0.75):
    """Where at least `share` of the votes agree, and on what."""
    counts = np.stack([np.sum(votes.action == a, axis=0) for a in (0, 1, 2)])
    n = counts.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return (n >= 2) & (counts.max(axis=0) / n >= share), counts.argmax(axis=0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), weights=st.lists(st.floats(0.01, 1.0), min_size=4, max_size=5))
def test_o1_a_strong_consensus_decides_under_any_weights(seed, weights):
    votes, arbiter, regime, probs = world(40, 4, seed)
    d = decide(votes, arbiter, regime, PUBLISHED.with_values({"ensemble.weights": weights}), probs)
    where, action = agreed(votes)
    assert np.array_equal(d.raw_action[where], action[where])
    assert np.all(d.verdict[where] == Verdict.DEFER)


def test_d70_takes_the_mean_confidence_of_the_consensus():
    action, confidence = np.full((5, 1, 1), -1, np.int8), np.full((5, 1, 1), np.nan)
    action[:4, 0, 0], confidence[:4, 0, 0] = [2, 0, 0, 0], [0.9, 0.7, 0.8, 0.6]
    unknown = np.full((6, 1, 1), np.nan)
    heavy = PUBLISHED.with_values({"ensemble.weights": [0.6, 0.1, 0.2, 0.1]})
    d = decide(Votes(action, confidence), unknown, unknown[:2], heavy)
    assert (d.ensemble_action[0, 0], d.raw_action[0, 0], d.raw_confidence[0, 0]) == (Action.BUY, Action.SELL, (0.7 + 0.8 + 0.6) / 3)
    assert (d.meta_reason[0, 0], d.source[0, 0]) == (Reason.STRONG_CONSENSUS_SELL, Source.ENSEMBLE)
    off = decide(Votes(action, confidence), unknown, unknown[:2], heavy.with_values({"meta.enabled": False}))
    assert (off.raw_action[0, 0], off.raw_confidence[0, 0]) == (Action.BUY, 0.9)  # the vote alone


@pytest.mark.parametrize("name", ["default", "original", "score", "half", "loose", "strict", "by regime"])
def test_o2_o3_o4_the_policy_keeps_or_passes_on(name):
    block, params = world(seed=3), PUBLISHED.with_values(VARIANTS[name])
    d = decide(*block[:3], params, block[3])
    called, accepted = d.arbiter_action >= 0, d.source == Source.ARBITER
    assert np.array_equal(called, d.verdict == Verdict.ESCALATE)  # O-3
    assert np.all(called[accepted])
    assert np.any(accepted)
    assert_same_bits(d.raw_action[accepted], d.arbiter_action[accepted])  # O-2
    assert_same_bits(d.raw_confidence[accepted], d.arbiter_confidence[accepted])
    kept = ~accepted & ~((d.meta_reason <= 3) & (d.meta_reason > 0) & (d.raw_action != d.ensemble_action))  # but for D-70
    assert_same_bits(d.raw_action[kept], d.ensemble_action[kept])  # O-4
    assert_same_bits(d.raw_confidence[kept], d.ensemble_confidence[kept])
    assert not np.any(d.source == Source.META)


def test_o4_stage_one_equals_stage_zero():
    """With the arbiter off every outcome is the plain ensemble's (11.4)."""
    votes, arbiter, regime, probs = world(seed=4)
    off, on = PUBLISHED.with_values({"meta.enabled": False}), PUBLISHED.with_values({"arbiter.enabled": False})
    zero, one = decide(votes, arbiter, regime, off), decide(votes, arbiter, regime, on, probs)
    for name in ("raw_action", "raw_confidence", "source", "ensemble_action", "ensemble_confidence"):
        assert_same_bits(getattr(zero, name), getattr(one, name), name)
    escalated = one.verdict == Verdict.ESCALATE
    assert np.array_equal(one.arbiter_reason == Reason.NOT_AVAILABLE, escalated)
    assert not zero.verdict.any()
    assert not zero.meta_reason.any()


def test_o7_only_the_guard_holds_v5_to_the_consensus():
    votes, arbiter, regime, probs = world(400, 5, seed=5)
    where, action = agreed(votes)
    for guard, holds in ((True, True), (False, False)):
        d = decide(votes, arbiter, regime, PUBLISHED.with_values({"meta.mode": "v5", "meta.consensus_guard": guard}), probs)
        assert np.array_equal(d.raw_action[where], action[where]) == holds
        assert np.any(d.meta_reason == Reason.CONSENSUS_GUARD) == holds
        assert np.all(d.raw_confidence[d.verdict == Verdict.OVERRIDE] > 0.6)


def test_too_few_voters_skip_meta_and_arbiter():
    votes, arbiter, regime, probs = world(seed=6)
    few = np.sum(votes.action >= 0, axis=0) < 2
    for mode in ("policy", "override", "v5"):
        d = decide(votes, arbiter, regime, PUBLISHED.with_values({"meta.mode": mode}), probs)
        assert np.all(d.verdict[few] == Verdict.NONE)
        assert np.all(d.arbiter_action[few] == Action.ABSENT)
        assert_same_bits(d.raw_action[few], d.ensemble_action[few])
        assert set(d.meta_reason[few]) == {Reason.TOO_FEW_VOTERS, Reason.NO_VALID_MODELS}
        nobody = d.n_voters == 0
        assert np.all(d.consensus[nobody] == Consensus.NO_VALID_MODELS)
        assert np.all(d.raw_confidence[nobody] == 0.5)


# ---------------------------------------------------------------- bits


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, N), max_size=5), name=st.sampled_from(sorted(VARIANTS)))
def test_o8_cutting_the_block_changes_no_bit(cuts, name):
    (votes, arbiter, regime, probs), params = world(seed=7), PUBLISHED.with_values(VARIANTS[name])
    whole = decide(votes, arbiter, regime, params, probs)
    edges = [0, *sorted(cuts), N]
    for a, b in pairwise(edges):
        part = decide(votes[a:b], arbiter[:, a:b], regime[:, a:b], params, probs[:, a:b])
        for column in DECISION_COLUMNS:
            assert_same_bits(getattr(whole, column)[a:b], getattr(part, column), column)


def test_o8_one_bar_at_a_time_beyond_a_chunk():
    """More cells than the kernel's chunk of 4,096, cut at odd places."""
    votes, arbiter, regime, probs = world(700, 19, seed=8)
    params = PUBLISHED
    whole = decide(votes, arbiter, regime, params, probs)
    for t in range(0, 700, 23):
        part = decide(votes[t : t + 1], arbiter[:, t : t + 1], regime[:, t : t + 1], params, probs[:, t : t + 1])
        for column in DECISION_COLUMNS:
            assert_same_bits(getattr(whole, column)[t : t + 1], getattr(part, column), column)


def test_o9_the_future_changes_no_past_bit():
    (votes, arbiter, regime, probs), params = world(seed=9), PUBLISHED
    other = world(seed=10)
    mixed = Votes(*(np.concatenate([getattr(votes, k)[:, :60], getattr(other[0], k)[:, 60:]], axis=1) for k in ("action", "confidence")))
    planes = [np.concatenate([a[:, :60], b[:, 60:]], axis=1) for a, b in zip((arbiter, regime, probs), other[1:], strict=True)]
    before, after = decide(votes, arbiter, regime, params, probs), decide(mixed, *planes[:2], params, planes[2])
    for column in DECISION_COLUMNS:
        assert_same_bits(getattr(before, column)[:60], getattr(after, column)[:60], column)


def test_o10_symbols_do_not_know_each_other():
    (votes, arbiter, regime, probs), params = world(seed=11), PUBLISHED
    order = np.random.default_rng(0).permutation(S)
    mixed = Votes(votes.action[:, :, order].copy(), votes.confidence[:, :, order].copy())
    a = decide(votes, arbiter, regime, params, probs)
    b = decide(mixed, arbiter[:, :, order], regime[:, :, order], params, probs[:, :, order])
    for column in DECISION_COLUMNS:
        assert_same_bits(np.ascontiguousarray(getattr(a, column)[:, order]), getattr(b, column), column)


INTERPRETED = """
import numpy as np
from tests.qtcore.test_decide import VARIANTS, columns, world
from qtcore.chain.decide import decide
from tests.support import PUBLISHED
block = world(12, 4, seed=12)
out = {}
for name, values in VARIANTS.items():
    decided = decide(*block[:3], PUBLISHED.with_values(values), block[3])
    out |= {f"{name}/{c}": a for c, a in columns(decided).items()}
np.savez(__import__("sys").argv[1], **out)
"""


def test_interpreted_code_gives_the_same_bits(tmp_path: Path):
    path = tmp_path / "interpreted.npz"
    env = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, "-c", INTERPRETED, str(path)], check=True, env=env, cwd=Path(__file__).parents[2])
    block, interpreted = world(12, 4, seed=12), np.load(path)
    for name, values in VARIANTS.items():
        for column, array in columns(decide(*block[:3], PUBLISHED.with_values(values), block[3])).items():
            assert_same_bits(array, interpreted[f"{name}/{column}"], f"{name}/{column}")


# ---------------------------------------------------------------- edges of the call


def test_an_empty_block_is_decided():
    d = decide(*world(0, 3)[:3], PUBLISHED)
    assert d.raw_action.shape == (0, 3)


def test_no_model_needs_no_probabilities():
    votes, arbiter, regime, _ = world(seed=13)
    unknown = np.full((3, N, S), np.nan)
    for mode in ("policy", "override", "v5"):
        params = PUBLISHED.with_values({"meta.mode": mode})
        assert_same_decisions(decide(votes, arbiter, regime, params), decide(votes, arbiter, regime, params, unknown))


def test_inputs_stay_as_they_are():
    votes, arbiter, regime, probs = world(seed=14)
    before = [a.copy() for a in (votes.action, votes.confidence, arbiter, regime, probs)]
    for array in (votes.action, votes.confidence, arbiter, regime, probs):
        array.flags.writeable = False
    decide(votes, arbiter, regime, PUBLISHED, probs)
    for a, b in zip(before, (votes.action, votes.confidence, arbiter, regime, probs), strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize(
    ("at", "match"), [(1, "arbiter must be of shape"), (2, "regime must be of shape"), (3, "meta_probs must be of shape")]
)
def test_wrong_shapes_are_named(at, match):
    block = list(world(seed=15))
    block[at] = block[at][:, 1:]
    with pytest.raises(InputError, match=match):
        decide(*block[:3], PUBLISHED, block[3])
    with pytest.raises(InputError, match="out must hold"):
        decide(*world(seed=15)[:3], PUBLISHED, out=Decisions.empty(3, S))
    rows = Decisions(**{name: getattr(Decisions.empty(N + 1, S), name)[:N] for name in DECISION_COLUMNS})
    with pytest.raises(InputError, match=r"Decisions.empty"):
        decide(*world(seed=15)[:3], PUBLISHED, out=rows)
