"""Does the edge map find what is planted, nothing in noise, and an error that covers?"""

import numpy as np
import pytest

from qtcore.types import NS_PER_HOUR
from research.training.edge import LEVEL, MIN_BLOCKS, MIN_CELLS, EdgeMap, blocks_of, leaning, quantile


def world(slope, n=2_000, n_symbols=4, seed=0, horizon=12):
    """Leans that last, volatility that clusters, results that overlap and that symbols share."""
    rng = np.random.default_rng(seed)
    volatility = 0.01 * np.exp(0.5 * np.cumsum(rng.normal(0.0, 0.05, (n, 1)), axis=0) + rng.normal(0.0, 0.1, (n, n_symbols)))
    lean = np.clip(np.cumsum(rng.normal(0.0, 0.05, (n, n_symbols)), axis=0) % 2.0 - 1.0, -0.9, 0.9)
    moves = (rng.standard_t(4, (n + horizon, n_symbols)) + rng.standard_t(4, (n + horizon, 1))) * volatility[:1].mean()
    noise = np.stack([moves[t : t + horizon].sum(axis=0) for t in range(n)])
    results = slope * np.abs(lean) * volatility + np.sign(lean) * noise
    return lean, volatility, results, np.repeat(blocks_of(np.arange(n) * NS_PER_HOUR, horizon * NS_PER_HOUR)[:, None], n_symbols, axis=1)


def naive(lean, volatility, results, block):
    """Least squares with weights 1 / volatility^2, and once more without each block."""

    def slope(kept):
        x, y, w = (np.abs(lean) * volatility)[kept], results[kept], volatility[kept] ** -2.0
        return np.sum(w * x * y) / np.sum(w * x * x)

    numbers = np.unique(block)
    whole = np.ones(lean.shape, bool)
    drawn = np.array([slope(block != b) for b in numbers])
    share = np.array([np.sum(lean[block == b] ** 2) for b in numbers]) / np.sum(lean**2)
    error = np.sqrt((len(numbers) - 1) / len(numbers) * np.sum((drawn - slope(whole)) ** 2))
    return slope(whole), error, 1.0 / np.sum(share**2)


@pytest.mark.parametrize("seed", range(3))
def test_edge_map_is_weighted_least_squares_with_a_jackknife_over_blocks(seed):
    made = world(0.5, seed=seed)
    slope, error, effective = naive(*made)
    found = EdgeMap.fit(*made)
    assert (found.slope, found.error, found.n_effective) == (pytest.approx(slope), pytest.approx(error), pytest.approx(effective))
    reach = quantile(effective) * error
    assert found.counts == pytest.approx(slope * (1.0 - (reach / slope) ** 2) if slope > reach else 0.0)
    assert (found.n_cells, found.n_blocks) == (8_000, len(np.unique(made[3])))


def test_edge_map_counts_on_an_edge_that_is_there():
    found = EdgeMap.fit(*world(3.0, n=6_000))
    assert 0.5 < found.counts < found.slope
    lean, volatility = np.array([0.5, -0.5, 0.0, np.nan]), np.full(4, 0.01)
    assert found.gross(lean, volatility)[:3] == pytest.approx([found.counts * 0.005] * 2 + [0.0])
    assert np.isnan(found.gross(lean, volatility)[3])


def test_edge_map_counts_on_nothing_in_noise_as_often_as_its_level_says():
    counted = sum(EdgeMap.fit(*world(0.0, n=1_500, seed=seed)).counts > 0.0 for seed in range(300))
    assert counted <= 9, "99.9 % of samples of 300 with a chance of 1 % have at most 9"
    assert LEVEL == 0.99


def test_edge_map_of_an_edge_against_the_lean_is_zero():
    assert EdgeMap.fit(*world(-3.0)).counts == 0.0


@pytest.mark.parametrize(
    "cut", [{"n": MIN_CELLS // 4 - 1}, {"n": int(72 * (MIN_BLOCKS - 1)), "n_symbols": 20}, {"n": 0}], ids=["cells", "blocks", "none"]
)
def test_edge_map_of_too_little_is_zero(cut):
    made = world(50.0, n=3_000, n_symbols=cut.pop("n_symbols", 4))
    found = EdgeMap.fit(*(a[: cut["n"]] for a in made))
    assert (found.slope, found.counts, found.n_cells) == (0.0, 0.0, made[0][: cut["n"]].size)


def test_edge_map_leaves_out_what_is_unknown():
    lean, volatility, results, block = world(2.0)
    known = EdgeMap.fit(lean, volatility, results, block)
    pad = [np.vstack([a, np.full((3, 4), value)]) for a, value in ((lean, 0.5), (volatility, 0.01), (results, 0.1), (block, 10**6))]
    pad[0][-3], pad[1][-2], pad[2][-1] = np.nan, 0.0, np.nan
    assert EdgeMap.fit(*pad) == known
    assert np.array_equal(
        leaning(np.array([[0.2, -0.2, 0.0]]), np.array([[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]])), [[4.0, 2.0, np.nan]], True
    )


def test_blocks_are_longer_where_trades_last():
    hours = np.arange(1_000) * NS_PER_HOUR
    assert len(np.unique(blocks_of(hours, 24 * NS_PER_HOUR))) == 14
    assert len(np.unique(blocks_of(hours, 120 * NS_PER_HOUR))) == 3
