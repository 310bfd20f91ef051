"""Random cells for the tests of the opinion layers: votes, market and probabilities on grids that hit every edge."""

import numpy as np

from qtcore.types import Code, Value, Votes

EDGES = np.array([0.0, 0.4999, 0.5, 0.55, 0.6, 0.65, 0.7, 0.775, 0.9, 0.95, 0.99, 1.0])


def all_patterns(rng: np.random.Generator, n_models: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Every vote of `n_models` models, absent included, as planes [5, 4^n_models] with random confidences."""
    grid = np.stack(np.meshgrid(*([np.arange(-1, 3)] * n_models), indexing="ij")).reshape(n_models, -1)
    action = np.full((5, grid.shape[1]), -1, np.int8)
    action[:n_models] = grid
    return action, random_confidence(rng, action)


def random_confidence(rng: np.random.Generator, action: np.ndarray) -> np.ndarray:
    """Confidences for `action`, half of them on an edge; NaN where absent."""
    free = np.where(rng.random(action.shape) < 0.5, rng.choice(EDGES, action.shape), rng.random(action.shape))
    return np.where(action < 0, np.nan, free)


def random_votes(rng: np.random.Generator, n: int, n_symbols: int, with_probs: bool = False) -> Votes:
    """Votes `[5, n, S]`, a sixth absent, a tenth of the cells without any."""
    action = np.where(rng.random((5, n, n_symbols)) < 0.17, -1, rng.integers(0, 3, (5, n, n_symbols))).astype(np.int8)
    action[:, rng.random((n, n_symbols)) < 0.1] = -1
    if not with_probs:
        return Votes(action, random_confidence(rng, action))
    probs = rng.dirichlet([0.6, 0.6, 0.6], action.shape)
    probs[action < 0] = np.nan
    best = np.where(action < 0, -1, np.nan_to_num(probs).argmax(axis=-1)).astype(np.int8)
    return Votes(best, probs.max(axis=-1), probs)


def random_market(rng: np.random.Generator, n: int, n_symbols: int) -> np.ndarray:
    """Arbiter inputs [6, n, S] around every threshold, some unknown, some cells without any, a few infinite."""
    shape = (n, n_symbols)

    def draw(low: float, high: float, edges: list[float]) -> np.ndarray:
        return np.where(rng.random(shape) < 0.3, rng.choice(edges, shape), rng.uniform(low, high, shape))

    planes = [draw(0, 100, [30, 70, 7.5, 92.5, 0, 100]), draw(-0.2, 0.2, [0, 0.06, -0.06]), draw(-0.1, 0.1, [0, 0, 0.0])]
    planes += [draw(-0.2, 1.2, [0.2, 0.8, 0.5]), draw(0.2, 4, [1.5, 1.0, 3.0]), draw(-0.1, 0.1, [0.02, -0.02, 0.0])]
    out = np.stack(planes)
    out[rng.random(out.shape) < 0.05] = np.nan
    out[rng.random(out.shape) < 0.005] = np.inf
    out[rng.random(out.shape) < 0.005] = -np.inf
    out[:, rng.random(shape) < 0.05] = np.nan
    return out


def random_regime(rng: np.random.Generator, n: int, n_symbols: int) -> np.ndarray:
    """Volatility and trend [2, n, S] on and around the slices' edges, some unknown."""
    free = np.stack([rng.random((n, n_symbols)), rng.uniform(-1, 1, (n, n_symbols))])
    edges = np.stack([rng.choice([0.4, 0.6], (n, n_symbols)), rng.choice([-0.2, 0.2], (n, n_symbols))])
    out = np.where(rng.random(free.shape) < 0.3, edges, free)
    out[rng.random(out.shape) < 0.1] = np.nan
    return out


def random_probs(rng: np.random.Generator, n: int, n_symbols: int) -> np.ndarray:
    """Probabilities [3, n, S] from certain to undecided, some not ready, a few impossible."""
    sharpness = rng.choice([0.05, 0.5, 50.0], (n, n_symbols, 1))
    probs = rng.gamma(sharpness, 1.0, (n, n_symbols, 3)) + 1e-300
    probs = (probs / probs.sum(axis=-1, keepdims=True)).transpose(2, 0, 1).copy()
    probs[:, rng.random((n, n_symbols)) < 0.05] = np.array([[0.6], [0.2], [0.2]])
    probs[:, rng.random((n, n_symbols)) < 0.05] = np.array([[0.0], [0.0], [1.0]])
    probs[:, rng.random((n, n_symbols)) < 0.1] = np.nan
    probs[2, rng.random((n, n_symbols)) < 0.02] = 1.5
    probs[1, rng.random((n, n_symbols)) < 0.02] = np.nan
    return probs


def empty_slabs(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Decision slabs of `n` cells with nonsense in them, so that a column nobody writes is seen."""
    return np.full((len(Code), n), -77, np.int8), np.full((len(Value), n), -7.5)


def cell_votes(action: np.ndarray, confidence: np.ndarray, cell: int) -> list:
    """One cell as the naive twins read it."""
    return [None if a < 0 else (int(a), float(c)) for a, c in zip(action[:, cell], confidence[:, cell])]
