from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qtcore as qt
from qtcore.types import DECISION_COLUMNS, Bars, Votes
from research.training.predictions import Predictions
from tests.conftest import assert_same_bits, awkward_bars
from tests.support import PUBLISHED

N = 400
BARS = awkward_bars(N)
VOTES = Predictions.random(BARS, seed=3).votes()
RESULT_ARRAYS = ("final_action", "governor_reason", "size", "pnl", "equity", "balance", "exposure", "worth", "fills")


def run_in_blocks(cuts: list[int], params: qt.Params = PUBLISHED) -> tuple[dict[str, np.ndarray], qt.Engine]:
    engine = qt.Engine(params, features=qt.FEATURE_SETS["v5_rel"])
    edges = [0, *sorted(set(cuts)), N]
    parts = [engine.run(BARS[a:b], VOTES[a:b]) for a, b in pairwise(edges) if b > a]
    out = {name: np.concatenate([getattr(part, name) for part in parts]) for name in RESULT_ARRAYS}
    out |= {name: np.concatenate([getattr(part.decisions, name) for part in parts]) for name in DECISION_COLUMNS}
    out |= {"planes": np.concatenate([part.planes.values for part in parts], axis=1)}
    return out, engine


WHOLE, WHOLE_ENGINE = run_in_blocks([])


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(1, N - 1), max_size=6))
def test_cutting_the_input_changes_nothing(cuts: list[int]) -> None:
    parts, engine = run_in_blocks(cuts)
    for name, whole in WHOLE.items():
        assert_same_bits(whole, parts[name], name)
    for name, whole in WHOLE_ENGINE.state.items():
        assert_same_bits(whole, engine.state[name], name)


def test_one_bar_at_a_time_changes_nothing() -> None:
    parts, engine = run_in_blocks(list(range(1, N)))
    for name, whole in WHOLE.items():
        assert_same_bits(whole, parts[name], name)
    for name, whole in WHOLE_ENGINE.state.items():
        assert_same_bits(whole, engine.state[name], name)


def test_a_restored_engine_goes_on() -> None:
    first = qt.Engine(PUBLISHED, features=["ema_50"])
    first.run(BARS[:250], VOTES[:250])
    second = qt.Engine(PUBLISHED, features=["ema_50"])
    second.restore(first.state, BARS.symbols, BARS.interval)
    assert_same_bits(second.run(BARS[250:], VOTES[250:]).equity, WHOLE["equity"][250:])


def test_the_stepper_gives_the_bits_of_the_block() -> None:
    engine = qt.Engine(PUBLISHED, features=qt.FEATURE_SETS["v5_rel"])
    with pytest.raises(qt.InputError, match="must know the symbols"):
        engine.stepper()
    engine.run(BARS[:100], VOTES[:100])
    stepper = engine.stepper()
    prices = np.stack([BARS.open, BARS.high, BARS.low, BARS.close, BARS.volume])
    for t in range(100, N):
        stepper.prices[:, 0], stepper.times[:, 0] = prices[:, t], (BARS.open_time[t], BARS.close_time[t])
        stepper.action[:], stepper.confidence[:] = VOTES.action[:, t], VOTES.confidence[:, t]
        n_fills = stepper.step()
        for name in ("final_action", "reasons", "size"):
            assert_same_bits(getattr(stepper, name), WHOLE[name.replace("reasons", "governor_reason")][t], f"{name} of bar {t}")
        assert_same_bits(stepper.lines[:, 0], np.array([WHOLE[name][t] for name in ("equity", "balance", "exposure", "worth")]))
        assert_same_bits(stepper.fills[:n_fills], WHOLE["fills"][WHOLE["fills"]["bar"] == t])
    for name, whole in WHOLE_ENGINE.state.items():
        assert_same_bits(whole, engine.state[name], name)
    judged = qt.Engine(PUBLISHED, judge=lambda votes, planes, params: (votes.action[0], votes.confidence[0]))
    judged.restore(engine.state, BARS.symbols, BARS.interval)
    with pytest.raises(qt.InputError, match="own layers"):
        judged.stepper()


def test_features_that_nobody_reads_are_not_made() -> None:
    lean = qt.Engine(PUBLISHED).run(BARS, VOTES)
    assert "ema_50" not in lean.planes.names
    for name in RESULT_ARRAYS:
        assert_same_bits(getattr(lean, name), WHOLE[name], name)
    assert_same_bits(lean.planes.regime, qt.Engine(PUBLISHED, features=["ema_50"]).run(BARS, VOTES).planes.regime)


def test_it_trades() -> None:
    assert len(WHOLE["fills"]) > 200
    assert set(np.unique(WHOLE["verdict"])) >= {qt.Verdict.DEFER, qt.Verdict.ESCALATE}


def test_the_own_opinion_replaces_the_chain() -> None:
    def always_buy(votes: Votes, planes: qt.Planes, params: qt.Params) -> tuple[np.ndarray, np.ndarray]:
        shape = planes.valid.shape
        return np.full(shape, 2, np.int8), np.full(shape, 0.9)

    result = qt.Engine(PUBLISHED, judge=always_buy).run(BARS, VOTES)
    assert (result.decisions.raw_action == qt.Action.BUY).all()
    assert (result.fills["qty"][result.fills["is_entry"] == 1] > 0).all()
    assert_same_bits(result.decisions.ensemble_action, WHOLE["ensemble_action"])


def test_models_are_asked_when_no_votes_are_given() -> None:
    class Momentum:
        feature_names = ("momentum_10",)
        horizon = 3

        def serve(self, inputs: np.ndarray, close_time: np.ndarray) -> np.ndarray:
            out = np.full((5, *inputs.shape[:2], 3), np.nan)
            up = inputs[..., 0] > 0
            known = np.isfinite(inputs[..., 0])
            out[0][known & up], out[0][known & ~up] = (0.1, 0.1, 0.8), (0.8, 0.1, 0.1)
            return out

    engine = qt.Engine(PUBLISHED, models=Momentum())
    result = engine.run(BARS)
    assert engine.params.broker.max_holding_bars == 3
    assert result.decisions.n_voters.max() == 1
    assert len(result.fills) > 50


def test_a_block_must_continue_the_one_before() -> None:
    engine = qt.Engine(PUBLISHED)
    engine.run(BARS[:100], VOTES[:100])
    with pytest.raises(qt.InputError, match=r"at or after the last close 20.*T.*, was 20.*; drop"):
        engine.run(BARS[50:150], VOTES[50:150])
    other = Bars(**{**vars(BARS), "symbols": tuple("ABCDEF")})
    with pytest.raises(qt.InputError, match="keep the symbols"):
        engine.run(other[100:], VOTES[100:])


def test_votes_of_another_shape_are_refused() -> None:
    with pytest.raises(qt.InputError, match=r"votes.action must be of shape \[5, 400, 6\]"):
        qt.Engine(PUBLISHED).run(BARS, VOTES[:100])


def test_a_judge_of_another_shape_is_refused() -> None:
    with pytest.raises(qt.InputError, match="judge must return two arrays of shape"):
        qt.Engine(PUBLISHED, judge=lambda votes, planes, params: (np.zeros(3, np.int8), np.zeros(3))).run(BARS, VOTES)
