"""Do 95 % intervals cover what they state? Against a plain loop, by hand, and on worlds whose volatility lasts."""

import numpy as np
import pytest
from scipy.stats import t

from research.training.scoring.bootstrap import Bootstrap
from research.training.scoring.intervals import N_WAVES, QUANTILE, error, limits, share_limits, tilted
from research.training.scoring.opinions import Opinion, blocks, tally
from tests.naive import evidence as naive
from tests.support.interval_worlds import KINDS, accepted, covered, trained


def test_the_quantile_is_that_of_student():
    assert pytest.approx(t.ppf(0.975, N_WAVES), rel=1e-12) == QUANTILE


@pytest.mark.parametrize("seed", range(3))
def test_intervals_of_shares_are_those_of_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    labels, action = rng.integers(-1, 3, (2, 200, 3)).astype(np.int8)
    counted = tally(Opinion(action, np.full(action.shape, 0.5)), labels, np.zeros(labels.shape, np.int8), 1)
    block = blocks(counted, Bootstrap(200, 5.0), slice(0, 200), np.ones((1, 1)), ("total",))["total"]
    known, moved = (labels >= 0) & (action >= 0), (labels != 1) & (action != 1)
    for name, cells in (("ci95", known), ("direction_ci95", known & moved)):
        want = naive.wave_interval(*((cells & of).sum(axis=1).tolist() for of in (labels == action, True)), QUANTILE)
        assert block[name] == pytest.approx(want, rel=1e-9), name


def test_the_error_of_a_mean_of_independent_bars_is_the_usual_one():
    x, ones = np.random.default_rng(0).standard_normal((2_000, 500)), np.ones(500)
    errors = [float(error(tilted(row[:, None], ones)[..., 0] / 500)) for row in x]
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(500**-0.5, rel=0.03)


def test_bars_without_cells_change_nothing():
    rng = np.random.default_rng(1)
    cells, hits = np.full(100, 4), rng.integers(0, 5, 100)
    holes = np.zeros(400, int)
    holes[150:250] = 1
    spread = np.zeros((400, 2), int)
    spread[holes > 0] = np.stack([hits, cells], axis=-1)
    assert np.array_equal(tilted(spread, spread[:, 1]), tilted(np.stack([hits, cells], axis=-1), cells))


def test_an_interval_of_a_share_stays_between_zero_and_one():
    wide = np.array([[0.6] * N_WAVES, [0.5] * N_WAVES])
    low, high = share_limits(0.97, wide)
    assert 0.0 < low < 0.97 < high < 1.0
    assert limits(0.5, wide) == pytest.approx([0.5 - QUANTILE * 0.1, 0.5 + QUANTILE * 0.1])
    assert share_limits(1.0, wide) == [1.0, 1.0]
    assert all(np.isnan(share_limits(np.nan, wide)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_intervals_cover_where_volatility_lasts(kind):
    rates = covered(kind, range(10_000, 10_200))
    assert 0.92 < np.mean(list(rates.values())) < 0.98
    assert min(rates.values()) > 0.88  # 95 % of 200 worlds, less four standard errors


@pytest.mark.slow
def test_the_direction_of_trees_trained_on_noise_is_covered():
    assert min(trained(range(20)).values()) >= 0.8  # 19 of 20 expected, fewer than 16 has a probability of 0.3 %


@pytest.mark.slow
def test_models_of_noise_are_not_accepted_and_those_of_an_edge_are():
    assert accepted("random_walk", range(20_000, 20_010)) <= 0.1  # 120 fits, of which 3 are expected
    assert accepted("planted_edge", range(4)) >= 0.4
