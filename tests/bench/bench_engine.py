"""What does a user wait for? The public backtest, one live bar, the first start, the memory of a long history.

Run with `pytest tests/bench/bench_engine.py --benchmark-enable`. What is timed is checked in tests/qtcore/test_engine.py and
tests/research/runs/test_stream.py.
"""

import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

import qtcore as qt
from qtcore.params import Params
from qtcore.types import Bars, Votes
from research import backtest
from research.data import load_bars, save_bars, stream_bars
from research.data.simulate import simulate_blocks
from research.runs.streaming import backtest_stream, paired
from research.training.predictions import Predictions
from research.training.predictions_file import stream_predictions
from tests.support import PUBLISHED
from tests.support.priced import random_maps

S = 19


def best_of(call, seconds: float = 2.0) -> float:
    """Shortest of the calls that fit into `seconds`, in seconds; at least three."""
    call()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.parametrize("n", [4_380, 43_800])
def test_the_public_backtest_on_stored_predictions(benchmark, n):
    bars = load_bars(f"simulated:random_walk?n_bars={n}&n_symbols={S}")
    predictions = Predictions.random(bars, seed=1)
    run = benchmark.pedantic(lambda: backtest(bars, predictions, PUBLISHED), rounds=1, iterations=1, warmup_rounds=1)
    assert len(run.result.fills) > 1_000
    if benchmark.enabled:
        ms = 1e3 * best_of(lambda: backtest(bars, predictions, PUBLISHED))
        benchmark.extra_info["ms"] = ms
        benchmark.extra_info["ms allowed (50 ms + 14 ns a cell)"] = 50.0 + 14e-6 * n * S
        benchmark.extra_info["ns per bar and symbol"] = ms * 1e6 / (n * S)


@pytest.mark.parametrize("params", [PUBLISHED, Params()], ids=["published", "default"])
def test_one_live_bar(benchmark, params):
    """A closed bar for 19 symbols through features, regime, opinion and account, in order, as a bot gets them; without models."""
    n, history = 2_000, 100
    bars = load_bars(f"simulated:random_walk?n_bars={n}&n_symbols={S}")
    maps = random_maps(np.random.default_rng(6), [0, 500, 1_000])
    maps["start"] = bars.close_time[maps["first"]]
    votes = replace(Predictions.random(bars, seed=1).votes(), maps=maps)
    prices = np.ascontiguousarray(np.stack([bars.open, bars.high, bars.low, bars.close, bars.volume]))
    names = qt.FEATURE_SETS["v5_rel"]
    whole = qt.Engine(params, features=names).run(bars, votes)

    def live(is_stepping: bool) -> float:
        engine = qt.Engine(params, features=names)
        engine.run(bars[:history], votes[:history])
        stepper = engine.stepper()
        spent = 0.0
        for t in range(history, n):
            start = time.perf_counter()
            stepper.prices[:, 0], stepper.times[:, 0] = prices[:, t], (bars.open_time[t], bars.close_time[t])
            stepper.action[:], stepper.confidence[:], stepper.probs[:] = votes.action[:, t], votes.confidence[:, t], votes.probs[:, t]
            start = time.perf_counter() if is_stepping else start
            stepper.step()
            spent += time.perf_counter() - start
        assert stepper.lines[0, 0] == whole.equity[-1]
        return spent / (n - history) * 1e6

    benchmark.pedantic(lambda: live(True), rounds=1, iterations=1)
    if benchmark.enabled:
        benchmark.extra_info["us from Python (8 allowed)"] = min(live(True) for _ in range(10))
        benchmark.extra_info["us with the bar written into the buffers"] = min(live(False) for _ in range(10))


FIRST = """
import time
start = time.perf_counter()
import qtcore as qt
imported = time.perf_counter()
import numpy as np
n, S = 500, 19
rng = np.random.default_rng(0)
close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, (n, S)), axis=0))
time_ = 3_600_000_000_000 * np.arange(n)
names = tuple(map(str, range(S)))
bars = qt.Bars(time_, time_ + 3_600_000_000_000, close, close * 1.01, close * 0.99, close, close, names, 3_600_000_000_000)
result = qt.Engine(features=qt.FEATURE_SETS["v5_rel"]).run(bars, qt.Votes.from_probs(rng.dirichlet((1.0, 1.0, 1.0), (5, n, S))))
print(imported - start, time.perf_counter() - start)
"""


def test_the_start(benchmark, tmp_path):
    """Import, and the first backtest with an empty and with a warm compile cache, each in a fresh process."""

    def start() -> tuple[float, float]:
        environment = {**os.environ, "QTCORE_CACHE": str(tmp_path)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # every user has Python's own cache
        done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, check=True, env=environment)
        imported, ran = map(float, done.stdout.split())
        return imported, ran

    if not benchmark.enabled:
        pytest.skip("compiles everything anew; run with --benchmark-enable")
    cold = benchmark.pedantic(start, rounds=1, iterations=1)
    warm = [start() for _ in range(5)]
    benchmark.extra_info["s to import qtcore (0.4 allowed)"] = min(imported for imported, _ in warm)
    benchmark.extra_info["s to the first backtest, empty cache (12 allowed)"] = cold[1]
    benchmark.extra_info["s to the first backtest, warm cache (0.8 allowed)"] = min(ran for _, ran in warm)


def stream_history(folder: Path, n_bars: int, n_symbols: int) -> int:
    """Write a history and predictions to disk block by block, run it from there block by block; return the number of fills."""
    path, parts = folder / "bars.parquet", []
    save_bars(simulate_blocks("random_walk", n_bars=n_bars, n_symbols=n_symbols, interval="5m"), path)
    for i, block in enumerate(stream_bars(path)):
        parts.append(Predictions.random(block, seed=i).save(folder / f"{i}.parquet"))
    blocks: chain[tuple[Bars, Votes]] = chain(paired(stream_bars(path), chain.from_iterable(map(stream_predictions, parts))))
    return len(backtest_stream(blocks, PUBLISHED.with_values({"broker.max_holding_bars": 5})).fills)


def test_the_memory_of_a_long_history(benchmark, tmp_path):
    """A history of 1,000,000 bars and 20 symbols from disk, bars and predictions by block, in a process of its own."""
    if not benchmark.enabled:
        pytest.skip("takes minutes; run with --benchmark-enable")
    code = f"from tests.bench.bench_engine import *; print(stream_history(Path({str(tmp_path)!r}), 1_000_000, 20))"

    def run() -> str:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    fills = benchmark.pedantic(run, rounds=1, iterations=1)
    assert int(fills) > 1_000
    benchmark.extra_info["GiB at most (2 allowed)"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
