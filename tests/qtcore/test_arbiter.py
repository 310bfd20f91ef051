"""Does the arbiter read the market as written? Kernels against their twins on random and edge inputs, and the facts of `spec` 9.3."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtcore import arbiter
from qtcore.rules import Reason
from qtcore.types import Action, Code, Value, Verdict
from tests.conftest import assert_same_bits
from tests.naive import opinion
from tests.support import PUBLISHED
from tests.support.cells import empty_slabs, random_market

N = 3_000
NEUTRAL = (50.0, 0.0, 0.0, 0.5, 1.0, 0.0)
COLUMNS = {
    "arbiter_action": Code.ARBITER_ACTION,
    "arbiter_reason": Code.ARBITER_REASON,
    "raw_action": Code.RAW_ACTION,
    "source": Code.SOURCE,
}
NUMBERS = {"arbiter_confidence": Value.ARBITER_CONFIDENCE, "arbiter_score": Value.ARBITER_SCORE, "raw_confidence": Value.RAW_CONFIDENCE}


def prepared(n, seed=0):
    rng = np.random.default_rng(seed)
    codes, values = empty_slabs(n)
    codes[Code.VERDICT] = rng.choice([Verdict.DEFER, Verdict.ESCALATE, Verdict.NONE], n)
    codes[Code.ENSEMBLE_ACTION] = rng.integers(0, 3, n)
    values[Value.ENSEMBLE_CONFIDENCE] = rng.random(n)
    return np.ascontiguousarray(random_market(rng, n, 1).reshape(6, n)), codes, values


def columns(codes, values, i):
    return {**{c: int(codes[row, i]) for c, row in COLUMNS.items()}, **{c: float(values[row, i]) for c, row in NUMBERS.items()}}


def same(got, want):
    return got.keys() == want.keys() and all(got[k] == want[k] or (got[k] != got[k] and want[k] != want[k]) for k in got)


@pytest.mark.parametrize(
    "changed", [{}, {"arbiter.score_threshold": 0.10}, {"arbiter.gate_confidence": 0.85}, {"arbiter.gate_confidence": 0.0}]
)
def test_settling_equals_the_naive_arbiter(changed):
    market, codes, values = prepared(N)
    params = PUBLISHED.with_values(changed)
    arbiter.settle(market, params.record(), codes, values, 0, N)
    for i in range(N):
        before = {"verdict": codes[Code.VERDICT, i], "ensemble_action": int(codes[Code.ENSEMBLE_ACTION, i])}
        before["ensemble_confidence"] = float(values[Value.ENSEMBLE_CONFIDENCE, i])
        want = opinion.settle(market[:, i].tolist(), before, params.flat())
        assert same(columns(codes, values, i), want), (i, market[:, i], columns(codes, values, i), want)
    assert set(codes[Code.ARBITER_REASON]) >= ({0, 40, 41, 43} if changed.get("arbiter.gate_confidence") != 0.0 else {0, 40, 41})


def test_keeping_equals_its_twin():
    _, codes, values = prepared(500)
    arbiter.keep(codes, values, 0, 500)
    for i in range(500):
        before = {"verdict": codes[Code.VERDICT, i], "ensemble_action": int(codes[Code.ENSEMBLE_ACTION, i])}
        before["ensemble_confidence"] = float(values[Value.ENSEMBLE_CONFIDENCE, i])
        assert same(columns(codes, values, i), opinion.keep(before))


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(0, 700))
def test_cutting_the_cells_changes_no_bit(cut):
    market, codes, values = prepared(700)
    parts = codes.copy(), values.copy()
    record = PUBLISHED.record()
    arbiter.settle(market, record, codes, values, 0, 700)
    arbiter.settle(market, record, *parts, 0, cut)
    arbiter.settle(market, record, *parts, cut, 700)
    assert_same_bits(codes, parts[0])
    assert_same_bits(values, parts[1])


INPUTS = [st.floats(-50, 150), st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 2), st.floats(0, 10), st.floats(-0.5, 0.5)]


@settings(max_examples=200, deadline=None)
@given(inputs=st.tuples(*INPUTS), threshold=st.sampled_from([0.1, 0.15, 0.3]), gate=st.floats(0, 1))
def test_the_rules_equal_their_twins(inputs, threshold, gate):
    signals = arbiter.signal_rule(*inputs)
    assert list(signals) == opinion.signal_rule(*inputs)
    score = arbiter.score_rule(signals)
    action, confidence = arbiter.settle_rule(score, threshold)
    assert (score, action, confidence) == (opinion.score_rule(signals), *opinion.settle_rule(score, threshold))
    assert arbiter.gate_rule(action, confidence, gate) == opinion.gate_rule(action, confidence, gate)
    assert arbiter.answer_rule(signals, False, threshold, gate) == opinion.answer_rule(signals, False, threshold, gate)
    if threshold == 0.15 and action != Action.HOLD:
        assert confidence >= 0.775 - 1e-12  # spec 9.3


def test_scores_of_cells():
    market = random_market(np.random.default_rng(5), 60, 4).reshape(6, -1)
    scores = np.empty(market.shape[1])
    arbiter.score_cells(market, scores, 0, len(scores))
    assert_same_bits(np.array([opinion.score_cells(column.tolist()) for column in market.T]) + 0.0, scores + 0.0)


@settings(deadline=None)
@given(trend=st.sampled_from([-1.0, -0.31, -0.3, 0.0, 0.3, 0.31, float("nan")]))
def test_the_trend_is_reported_beyond_three_tenths(trend):
    assert arbiter.trend_rule(trend) == opinion.trend_rule(trend)


def settle_one(**changed):
    names = ("rsi", "macd", "macd_signal", "bb_position", "volume_trend", "momentum_1h")
    inputs = [changed.get(name, value) for name, value in zip(names, NEUTRAL, strict=True)]
    action, confidence = arbiter.settle_rule(arbiter.score_rule(arbiter.signal_rule(*map(float, inputs))), 0.15)
    return Action(action).name, confidence


def test_published_edges():
    """MACD alone decides from a difference of 0.06, RSI alone from 7.5 and 92.5, the band alone never inside (9.3)."""
    assert settle_one(macd=0.06) == ("BUY", pytest.approx(0.775))
    assert settle_one(macd=0.0599999)[0] == "HOLD"
    assert [settle_one(rsi=x)[0] for x in (7.5, 7.6, 92.5, 92.4)] == ["BUY", "HOLD", "SELL", "HOLD"]
    assert [settle_one(bb_position=x)[0] for x in (0.0, 1.0)] == ["HOLD", "HOLD"]
    assert settle_one(volume_trend=3.0) == ("HOLD", 0.7)  # high volume without a MACD difference says nothing (D-55)
    assert settle_one(momentum_1h=0.02) == ("HOLD", 0.7)
    assert settle_one(macd=0.3, rsi=0.0, bb_position=-0.2, volume_trend=4.0, momentum_1h=0.2) == ("BUY", 0.95)


def test_what_is_not_known_is_neutral():
    signals = arbiter.signal_rule(*[np.nan] * 6)
    assert signals == (0.0,) * 5
    assert arbiter.answer_rule(signals, True, 0.15, 0.7)[1:] == (Action.HOLD, 0.5, Reason.NO_MARKET_DATA)
    assert arbiter.answer_rule((0.0, 0.0, np.inf, -np.inf, 0.0), False, 0.15, 0.7)[1:] == (Action.HOLD, 0.5, Reason.ANALYSIS_ERROR)
