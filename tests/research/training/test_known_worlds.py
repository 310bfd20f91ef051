"""Does a chain whose opinions have a price keep the edge of worlds that have one, and its money in worlds that have none?"""

import numpy as np
import pytest

from qtcore.check import as_bars
from tests.conftest import assert_same_bits
from tests.support.known_worlds import KINDS, NOISE, SEEDS, TUNED, by_confidence, calibration_error, measure, world, worlds


def foreseen(bars, kind):
    """Slope of the next bar's return, in deviations, on the state as the candles show it."""
    returns = bars.close[1:] / bars.close[:-1] - 1.0
    sign, memory = KINDS[kind]
    state = np.log(bars.volume / 1_000.0) / 0.5
    if sign:
        state, moves = np.zeros(bars.close.shape), np.clip(returns / returns.std(axis=0), -4.0, 4.0)
        for t in range(len(moves)):
            state[t + 1] = memory * state[t] + sign * (1.0 - memory**2) ** 0.5 * moves[t]
    x, y = state[100:-1].ravel(), (returns / returns.std(axis=0))[100:].ravel()
    return (x @ y) / (x @ x)


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_of_a_world_pulls_its_prices_by_what_was_asked(kind):
    bars = as_bars(world(kind, 0.15, TUNED[0], 4_000))
    assert foreseen(bars, kind) == pytest.approx(0.15, abs=0.03)
    assert foreseen(world(kind, 0.0, TUNED[0], 4_000), kind) == pytest.approx(0.0, abs=0.02)
    assert_same_bits(world(kind, 0.15, TUNED[0], 50).close, bars.close[:50])
    assert not set(TUNED) & set(SEEDS)


@pytest.mark.parametrize("kind", NOISE)
def test_noise_has_volatility_that_lasts_and_tells_no_direction(kind):
    bars = as_bars(world(kind, 0.0, SEEDS[0], 4_000))
    returns = np.log(bars.close[1:] / bars.close[:-1])
    returns = returns[np.isfinite(returns).all(axis=1)]
    size = np.abs(returns).mean(axis=1)
    assert np.corrcoef(size[1:], size[:-1])[0, 1] > 0.1
    sides = np.sign(returns).mean(axis=1)
    assert abs(np.corrcoef(sides[1:], sides[:-1])[0, 1]) < 0.05


def test_a_calibration_error_is_the_distance_of_what_was_said_from_what_came():
    said, pays = np.full((1_000, 1), 0.61), np.arange(1_000)[:, None] % 2 == 0
    wins = by_confidence(said, pays, np.ones(said.shape, bool))
    assert calibration_error(wins) == pytest.approx(0.11)
    assert wins[0].sum() == 1_000


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_strong_edge_is_kept(kind):
    found = [measure(bars) for *_, bars in worlds(kind, 68, 2)]
    assert all(m.gain > 0.0 for m in found)
    assert sum(m.gain for m in found) > 0.7 * sum(m.hindsight.max() for m in found)
    assert calibration_error(sum(m.wins for m in found)) < 0.03
    assert all(m.move > 8.0 for m in found), "a typical move is worth eight round trips"


@pytest.mark.slow
def test_noise_hardly_trades():
    found = [measure(bars) for *_, bars in worlds("noise", 0, 6)]
    assert np.mean([m.gain for m in found]) > -0.005
    assert min(m.gain for m in found) > -0.08
    assert np.mean([slope > 0.0 for m in found for slope in m.slopes]) < 0.1
