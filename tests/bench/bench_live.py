"""How long from a closed bar to its line in the journal, how fast a replay, how flat the memory?

Run with `pytest tests/bench/bench_live.py --benchmark-enable`. What is timed is checked in tests/test_live.py.
"""

import resource
import sqlite3
import time

import numpy as np
import pytest

from research.data import load_bars
from research.live.start import Wish, start_live
from research.predictions import Predictions

S = 19


def replayed(tmp_path, n: int, **options):
    """Replay n bars of 19 symbols with stored predictions; returns (outcome, seconds, seconds of the processor)."""
    world = f"simulated:random_walk?n_bars={n}&n_symbols={S}"
    bars = load_bars(world)
    Predictions.random(bars, seed=1).save(tmp_path / "predictions.parquet")
    runner, close = start_live(Wish(f"replay:{world}", tmp_path / "journal.sqlite", predictions=tmp_path / "predictions.parquet"))
    for name, value in options.items():
        setattr(runner.options, name, value)
    start, cpu = time.perf_counter(), time.process_time()
    outcome = runner.run()
    spent = time.perf_counter() - start, time.process_time() - cpu
    close()
    return outcome, *spent


@pytest.mark.parametrize("mode", ["replay", "live"])
def test_bars_a_second(benchmark, tmp_path, mode):
    n = 2_000 if benchmark.enabled else 60
    options = {} if mode == "replay" else {"snapshot_bars": 1, "checkpoint_bars": 1}
    outcome, seconds, cpu = benchmark.pedantic(lambda: replayed(tmp_path, n, **options), rounds=1, iterations=1)
    assert outcome.bars == n
    latency = np.array(outcome.latency) / 1e6
    benchmark.extra_info["bars a second"] = n / seconds
    benchmark.extra_info["bars a second of processor time"] = n / cpu
    benchmark.extra_info["ms median"], benchmark.extra_info["ms 99 %"] = float(np.median(latency)), float(np.quantile(latency, 0.99))


def test_the_restart_does_not_know_the_journals_age(benchmark, tmp_path):
    n = 2_000 if benchmark.enabled else 60
    replayed(tmp_path, n)
    world = f"simulated:random_walk?n_bars={n}&n_symbols={S}"
    wish = Wish(f"replay:{world}", tmp_path / "journal.sqlite", predictions=tmp_path / "predictions.parquet")

    def restart() -> int:
        runner, close = start_live(wish)
        outcome = runner.run()
        close()
        return outcome.resumed

    assert benchmark.pedantic(restart, rounds=1, iterations=1) == n


def test_memory_is_flat(benchmark, tmp_path):
    n, warm = (10_000, 2_000) if benchmark.enabled else (60, 20)
    world = f"simulated:random_walk?n_bars={n}&n_symbols={S}"
    Predictions.random(load_bars(world), seed=1).save(tmp_path / "predictions.parquet")
    runner, close = start_live(Wish(f"replay:{world}", tmp_path / "journal.sqlite", predictions=tmp_path / "predictions.parquet"))
    peaks: dict[int, int] = {}

    def watch(entry) -> None:
        if entry.bar in (warm, n - 1):
            peaks[entry.bar] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    runner.watchers = (watch,)
    benchmark.pedantic(runner.run, rounds=1, iterations=1)
    close()
    grown = (peaks[n - 1] - peaks[warm]) / 1024
    benchmark.extra_info["MiB grown"] = grown
    with sqlite3.connect(tmp_path / "journal.sqlite") as db:
        assert db.execute("SELECT COUNT(*) FROM bars").fetchone()[0] == n
    if benchmark.enabled:
        assert grown < 10.0
