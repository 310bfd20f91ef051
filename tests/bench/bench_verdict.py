"""What does the verdict cost? One run after a million trials, and a sweep with its step-down beside the same sweep without.

`pytest tests/bench/bench_verdict.py --benchmark-enable`. The sweep is 19 symbols x 4,380 hourly bars, as in `bench_sweep`; what a setting
costs does not depend on how many there are, so 16,384 stand for a million. Time is the processor's, which other work does not stretch.
"""

import time
import tracemalloc

import numpy as np
import pytest

import research
from research.data import simulate
from research.data.sketch import sketch
from research.evidence.family import Drawn
from research.evidence.ledger import Ledger
from research.evidence.sign_test import drawn, judge
from research.evidence.trials import Trial
from research.sweep.counting import Counter
from research.training.predictions import Predictions
from tests.research.evidence.test_sign_test import outcome
from tests.support import PUBLISHED

TRIALS, PART = 1_000_000, 50_000
ALLOWED_S, ALLOWED_MB, ALLOWED_SHARE = 1.0, 100.0, 1.25
GRID = {"governor.min_confidence": "0.50:0.8175:0.0025", "arbiter.score_threshold": "0.05:0.3675:0.0025"}  # 128 x 128


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    """A ledger of a million rows of sweeps, of 120 blocks each."""
    ledger, data = Ledger(tmp_path_factory.mktemp("home") / "trials.sqlite"), sketch(simulate("random_walk", n_bars=400, seed=1))
    for first in range(0, TRIALS, PART):
        rows = [Trial(data, f"p{first + i}", "votes", 0.01, 0, np.empty(0, np.float32)) for i in range(PART)]
        ledger.add(rows, Drawn.of(data.digest, outcome(first, PART)))
    return ledger, data


def test_the_verdict_of_a_run_after_a_million_trials(ledger, benchmark):
    known, data = ledger
    asks = Trial(data, "run", "votes", 0.02, 0, np.empty(0, np.float32), outcome=outcome(5, 1, shift=0.4))
    judged = benchmark.pedantic(known.look, (asks,), rounds=5)
    started = time.process_time()
    known.look(asks)
    spent = time.process_time() - started
    tracemalloc.start()
    known.look(asks)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    benchmark.extra_info |= {"seconds": spent, "MB": peak, "critical": judged.critical}
    assert judged.trials == TRIALS + 1
    assert judged.critical > 4.5
    assert spent < ALLOWED_S
    assert peak < ALLOWED_MB


def test_the_test_of_one_run_alone(benchmark):
    """1 to 4 ms where the signs of its blocks are known."""
    mine = outcome(5, 1, n_blocks=584)
    drawn("market", mine.keys, mine.units)
    benchmark.pedantic(judge, ("market", mine), rounds=50)


def test_a_sweep_with_its_step_down_beside_one_without(benchmark, tmp_path, monkeypatch):
    bars = simulate("random_walk", n_bars=4_380, n_symbols=19, seed=3)
    predictions = Predictions.random(bars, seed=3)
    params = PUBLISHED
    monkeypatch.setattr(Counter, "_alone", frozenset())  # 200 settings that are run again alone, however many there are
    add, spent = Ledger.add, {}
    for name in ("without", "with", "without", "with"):  # the first of each compiles
        with monkeypatch.context() as patched:
            if name == "without":  # counted, as all are, and not drawn
                patched.setattr(Counter, "drawing", None)
                patched.setattr(Ledger, "add", lambda ledger, trials, drawn=None: add(ledger, trials))
            patched.setenv("QT_HOME", str(tmp_path / f"{name} {len(spent)}"))
            started = time.process_time()
            trials = research.sweep(bars, predictions, GRID, params, record=name)
            spent[name] = time.process_time() - started
    benchmark.pedantic(lambda: None, rounds=1)
    share = spent["with"] / spent["without"]
    benchmark.extra_info |= spent | {"share": share, "settings": len(trials)}
    assert share < ALLOWED_SHARE
