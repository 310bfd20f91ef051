"""What does a cluster cost? The same settings in 64 chunks through Ray on this machine, as a multiple of the time of a local sweep.

4,096 settings x 19 symbols x 4,380 bars: one worker a processor, each on one thread, against kernels on all threads. The start of the
workers is not counted; the market on its way to them, 64 results on their way back and the table of them are. `pytest
tests/bench/bench_ray.py --benchmark-enable`. That the results are the same bits is checked in tests/research/test_engines.py, and here.
"""

import time

import pandas as pd
import pytest

import research
from research.parallel import Here, n_processors, opened
from research.runs.case import Case
from research.runs.space import Space
from research.sweep.work import Settings
from tests.bench.bench_trade import N, S
from tests.support import PUBLISHED

P, CHUNKS, ALLOWED = 4_096, 64, 1.6
GRID = {"governor.min_confidence": "0.50:0.815:0.005", "arbiter.score_threshold": "0.05:0.365:0.005"}


@pytest.fixture(scope="module")
def work():
    bars = research.load_bars(f"simulated:random_walk?n_bars={N}&n_symbols={S}")
    params = PUBLISHED.with_values({"broker.max_holding_bars": 24})
    return Settings(Space.of(params, GRID), Case.of(bars, research.Predictions.random(bars))).packed()


def seconds(pool, work, items):
    started = time.perf_counter()
    found = [(item[2], *done) for item, done in pool.map(work, items, waiting=1)]
    table = work.table(0, P, found)
    return time.perf_counter() - started, table


def test_chunks_through_ray(benchmark, work):
    if not benchmark.enabled:
        benchmark(lambda: None)
        return
    pytest.importorskip("ray", reason="ray is not installed; it is the extra `ray`")
    whole, chunks = [(0, P, None)], list(work.pieces(0, P, P // CHUNKS))
    assert len(chunks) == CHUNKS
    work((0, 1, None))
    with opened("ray") as pool:
        list(pool.map(work, [(i, i + 1, None) for i in range(4 * n_processors())]))
        rounds = [(seconds(Here(), work, whole), seconds(pool, work, chunks)) for _ in range(5)]
        benchmark.pedantic(seconds, (pool, work, chunks), rounds=1)
    for here, there in rounds:
        pd.testing.assert_frame_equal(here[1], there[1])
    here, there = (min(r[side][0] for r in rounds) for side in (0, 1))
    benchmark.extra_info["seconds here, all threads"] = here
    benchmark.extra_info["seconds in 64 chunks through Ray"] = there
    benchmark.extra_info["x the local time"] = there / here
    benchmark.extra_info["x allowed"] = ALLOWED
