"""How long does an opinion take? ns per cell of the vote and of the decision, us per row of a meta model; NumPy and scikit-learn beside.

Run with `pytest tests/bench/bench_decide.py --benchmark-enable`. What is timed is checked against the naive twins in
tests/qtcore/test_decide.py and tests/qtcore/test_meta.py, and against the competitor here; ratios are of one run.
"""

import time
from collections.abc import Callable

import numpy as np
import pytest

from qtcore.chain.decide import CHUNK, decide, decide_block
from qtcore.chain.patterns import look_up, pattern_table
from qtcore.chain.price import N_BIDS, N_PRICING, no_map, told
from qtcore.ensemble import average
from qtcore.meta import VECTORS, MetaModel, model
from qtcore.params import Params
from qtcore.types import Code, Decisions, Value, Votes
from tests.support import PUBLISHED

N, S = 4_380, 19
UNPRICED = np.empty((5, 0)), np.empty((N_BIDS, 0))
SHAPES = [(1, 1), (1, 19), (10_000, 1), (N, S), (2_000, 200)]


def world(n: int, n_symbols: int, seed: int = 1) -> tuple[Votes, np.ndarray, np.ndarray]:
    """Votes of four models that follow a common opinion two times in three, arbiter and regime inputs: a third of the cells escalates."""
    rng = np.random.default_rng(seed)
    shares = [0.2, 0.6, 0.2]
    common, own = rng.choice(3, (n, n_symbols), p=shares), rng.choice(3, (5, n, n_symbols), p=shares)
    action = np.where(rng.random(own.shape) < 0.67, common, own).astype(np.int8)
    confidence = rng.uniform(0.5, 0.95, action.shape)
    action[4], confidence[4] = -1, np.nan
    arbiter = rng.normal(0.0, 0.05, (6, n, n_symbols)) + np.array([50.0, 0.0, 0.0, 0.5, 1.0, 0.0])[:, None, None]
    return Votes(action, confidence), arbiter, rng.random((2, n, n_symbols))


def cells(n: int, n_symbols: int, params: Params) -> tuple[np.ndarray, ...]:
    """Arguments of `decide_block` on reused buffers."""
    votes, arbiter, regime = world(n, n_symbols)
    slabs, record = Decisions.empty(n, n_symbols).slabs, params.record()
    codes, values, *planes = (a.reshape(len(a), -1) for a in (*slabs, arbiter, regime))
    scratch = np.empty(min(CHUNK, n * n_symbols), np.int32)
    unpriced = np.empty((N_PRICING, 0)), no_map(), 0
    rest = record, codes, values, pattern_table(record), scratch, *UNPRICED
    return (*told(votes), *planes, np.full((3, 1), np.nan), np.array([6]), *unpriced, *rest)


def report(benchmark, function: Callable[[], object], units: int, unit: str, scale: float = 1e9) -> float:
    """Time `function`, note and return `scale` * seconds per unit; NaN with benchmarks off."""
    benchmark.pedantic(function, rounds=100 if benchmark.enabled else 1, warmup_rounds=1)
    value = benchmark.stats.stats.min / units * scale if benchmark.enabled else np.nan
    benchmark.extra_info[unit] = value
    return value


def best_of(function: Callable[[], object], n: int = 20) -> float:
    """Shortest of n calls, seconds; the first compiles."""
    function()
    times = []
    for _ in range(n):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.parametrize(("n", "n_symbols"), SHAPES)
def test_the_whole_decision(benchmark, n, n_symbols):
    arguments = cells(n, n_symbols, PUBLISHED)
    report(benchmark, lambda: decide_block(*arguments), n * n_symbols, "ns per cell")


@pytest.mark.parametrize("mode", ["policy", "override", "v5", "off"])
def test_the_modes(benchmark, mode):
    params = PUBLISHED.with_values({"meta.enabled": False} if mode == "off" else {"meta.mode": mode})
    arguments = cells(N, S, params)
    report(benchmark, lambda: decide_block(*arguments), N * S, "ns per cell")


def test_the_public_call(benchmark):
    block, params, out = world(N, S), PUBLISHED, Decisions.empty(N, S)
    report(benchmark, lambda: decide(*block, params, out=out), N * S, "ns per cell")


def numpy_vote(action: np.ndarray, confidence: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Winner and confidence of every cell, vectorised over cells."""
    votes = np.stack([np.where(action == a, weights[:, None], 0.0).sum(axis=0) for a in (0, 1, 2)])
    top = votes.max(axis=0)
    is_tie = (top - votes <= 1e-12).sum(axis=0) >= 2
    winner = np.where(is_tie, 1, np.where(votes[2] == top, 2, np.where(votes[0] == top, 0, 1)))
    won = action == winner
    mean = np.where(won, confidence, 0.0).sum(axis=0) / np.maximum(won.sum(axis=0), 1)
    return winner.astype(np.int8), np.where(is_tie, 0.5, np.minimum(0.95, mean))


def test_the_vote_against_numpy(benchmark):
    params = PUBLISHED
    action, confidence, _, _, regime, *_, record, codes, values, table, found, _, _ = cells(N, S, params)
    weights = np.array(params.ensemble.weights)

    def vote():
        for start in range(0, N * S, CHUNK):
            stop = min(start + CHUNK, N * S)
            look_up(action, regime, table, found, codes, start, stop)
            average(action, confidence, record, codes, values, start, stop)

    vote()
    winner, mean = numpy_vote(action, confidence, weights)
    np.testing.assert_array_equal(codes[Code.ENSEMBLE_ACTION], winner)
    np.testing.assert_allclose(values[Value.ENSEMBLE_CONFIDENCE], mean, rtol=1e-12)
    ns = report(benchmark, vote, N * S, "ns per cell")
    if benchmark.enabled:
        benchmark.extra_info["times faster than NumPy"] = best_of(lambda: numpy_vote(action, confidence, weights)) / (N * S) * 1e9 / ns


def fitted() -> tuple[MetaModel, Callable[[np.ndarray], np.ndarray], MetaModel, Callable[[np.ndarray], np.ndarray]]:
    """A calibrated regression and a network, as ours and as scikit-learn's."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(800, 26)), rng.integers(0, 3, 800)
    regression = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
    calibrated = CalibratedClassifierCV(FrozenEstimator(regression), method="sigmoid").fit(x, y)
    sigmoids = calibrated.calibrated_classifiers_[0].calibrators
    arrays = {
        "mean": regression[0].mean_,
        "scale": regression[0].scale_,
        "coef": regression[1].coef_,
        "intercept": regression[1].intercept_,
    }
    arrays |= {"slope": np.array([s.a_ for s in sigmoids]), "offset": np.array([s.b_ for s in sigmoids])}
    network = make_pipeline(StandardScaler(), MLPClassifier((32, 32), max_iter=2000, random_state=0, tol=1e-2)).fit(x[:, :8], y)
    layers = {"mean": network[0].mean_, "scale": network[0].scale_}
    for k in range(3):
        layers |= {f"w{k + 1}": network[1].coefs_[k], f"b{k + 1}": network[1].intercepts_[k]}
    ours = MetaModel("logistic_platt", VECTORS["meta26"], arrays), MetaModel("mlp", VECTORS["v5"], layers)
    return ours[0], calibrated.predict_proba, ours[1], network.predict_proba


@pytest.mark.parametrize("kind", ["logistic_platt", "mlp"])
def test_inference_against_scikit_learn(benchmark, kind):
    regression, their_regression, network, their_network = fitted()
    learned, theirs = (regression, their_regression) if kind == "logistic_platt" else (network, their_network)
    rows = np.random.default_rng(1).normal(size=(2_000, len(learned.feature_names)))
    out = np.empty((2_000, 3))
    model._infer(learned, rows, out)
    np.testing.assert_allclose(out, theirs(rows), rtol=1e-12, atol=1e-15)
    us = report(benchmark, lambda: model._infer(learned, rows, out), 2_000, "us per row", 1e6)
    if benchmark.enabled:
        assert us <= 1.0
        benchmark.extra_info["times faster than scikit-learn, batch"] = best_of(lambda: theirs(rows)) / 2_000 * 1e6 / us
        benchmark.extra_info["times faster than scikit-learn, row by row"] = best_of(lambda: theirs(rows[:1])) * 1e6 / us
