"""How long do the base models take to answer? One closed bar of 19 symbols, and a history, on one thread.

Run with `pytest tests/bench/bench_models.py --benchmark-enable`. That both give the same bits is checked here and in
tests/research/training/test_neural.py.
"""

import numpy as np
import pytest

from research.training.models.base import lookback_of, make_model, model_target
from research.training.models.windows import inputs_of
from tests.bench.bench_engine import S, best_of
from tests.conftest import assert_same_bits

N_FEATURES, N_BARS = 18, 4_380
ALLOWED = {"xgb": 2.0, "lgbm": 2.0, "linear": 2.0, "nhits": 10.0, "patchtst": 46.0}  # ms a bar; 60 for all four


@pytest.mark.parametrize("slot", ALLOWED)
def test_one_bar_of_19_symbols(benchmark, slot):
    """Default sizes; how well it was fitted changes nothing but the number of trees."""
    rng = np.random.default_rng(0)
    model = make_model(model_target(slot), [f"feature_{i}" for i in range(N_FEATURES)])
    lookback = lookback_of(model)
    matrix = rng.normal(size=(lookback + 400, S, N_FEATURES)).astype(np.float32)
    n_fit = 6_000 if lookback == 1 else 60
    cells = np.arange((lookback - 1) * S, (lookback + 400) * S)
    classes = np.digitize(matrix.reshape(-1, N_FEATURES)[cells, 0] + rng.normal(size=len(cells)), [-0.6, 0.6]).astype(np.int8)
    fit, valid = cells[:n_fit], cells[n_fit : n_fit + 600] if lookback == 1 else cells[n_fit : n_fit + 60]
    parts = [(inputs_of(matrix, part, lookback), classes[part - cells[0]]) for part in (fit, valid)]
    model.fit(*parts[0], *parts[1], 42)
    bar, history = (inputs_of(matrix, cells[:count], lookback) for count in (S, 100 * S))
    whole = benchmark.pedantic(lambda: model.predict_proba(history), rounds=1, iterations=1, warmup_rounds=1)
    assert_same_bits(model.predict_proba(bar), whole[:S])
    if benchmark.enabled:
        benchmark.extra_info["ms a bar"] = 1e3 * best_of(lambda: model.predict_proba(bar))
        benchmark.extra_info["ms a bar allowed"] = ALLOWED[slot]
        seconds = best_of(lambda: model.predict_proba(history))
        benchmark.extra_info[f"seconds for {S} x {N_BARS:,} rows"] = seconds * N_BARS / 100
