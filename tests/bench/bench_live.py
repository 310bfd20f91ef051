"""How long from a closed bar to its line in the journal, how fast a replay, how long to be ready?

Run with `pytest tests/bench/bench_live.py --benchmark-enable`. What is timed is checked in tests/research/live/test_live.py; flat memory
and the models' bits in tests/research/live/test_long.py. 19 symbols; `live` syncs the disk and writes a full state at every bar, `replay`
at every 24th. Wanted of a machine that does nothing else: a replay of 500 bars a second with stored predictions and 10 with four models; a
live bar in 10 ms (99 %: 50) with trees, in 100 ms (250) with four models; ready within 5 s of the start, after a kill too.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import research
from research.data import load_bars, save_bars
from research.training.predictions import Predictions

S, YEAR = 19, 8_760
MODELS = {"trees": ("xgb", "lgbm"), "four models": ("xgb", "lgbm", "nhits", "patchtst")}


def world(n: int, n_symbols: int = S) -> str:
    return f"simulated:random_walk?n_bars={n}&n_symbols={n_symbols}"


def measured(**said) -> dict:
    """Run a process of its own; Python's cache of compiled modules is in use, as with every user."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.live_measure", json.dumps(said)], capture_output=True, text=True, env=environment
    )
    assert done.returncode in (0, -9), done.stderr
    return json.loads(done.stdout)


def stored(folder: Path, n: int, **said) -> dict:
    """What replays n bars with stored predictions."""
    bars = load_bars(world(n))
    save_bars(bars, folder / "bars.parquet")
    Predictions.random(bars, seed=1).save(folder / "predictions.parquet")
    said = {"feed": f"replay:{folder / 'bars.parquet'}", "journal": str(folder / "journal.sqlite"), **said}
    return said | {"predictions": str(folder / "predictions.parquet")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, str]:
    """Folders of models, trained on a small world."""
    folders = {}
    for name, slots in MODELS.items():
        folders[name] = str(tmp_path_factory.mktemp("models"))
        research.train(load_bars(world(600, 2)), models=slots, preset="tiny", n_folds=2, out=folders[name])
    return folders


@pytest.mark.parametrize("mode", ["replay", "live"])
def test_bars_a_second(benchmark, tmp_path, mode):
    n = 2_000 if benchmark.enabled else 60
    said = stored(tmp_path, n, is_live=mode == "live")
    told = benchmark.pedantic(lambda: measured(**said), rounds=1, iterations=1)
    assert told["bars"] == n
    benchmark.extra_info["bars a second"], benchmark.extra_info["bars a second of processor time"] = told["rate"], told["rate_cpu"]
    benchmark.extra_info["ms median"], benchmark.extra_info["ms 99 %"] = float(np.median(told["ms"])), float(np.quantile(told["ms"], 0.99))


@pytest.mark.parametrize("kind", MODELS)
def test_a_live_bar_with_models(benchmark, tmp_path, trained, kind):
    """A year of history as one block, then live bars: ready within seconds, each decided within its budget."""
    n, live = (YEAR + 150, 150) if benchmark.enabled else (400, 3)
    bars = load_bars(world(n))
    save_bars(bars, tmp_path / "bars.parquet")
    since = str(np.datetime64(int(bars.open_time[n - live]), "ns"))
    said = {"feed": f"replay:{tmp_path / 'bars.parquet'}", "journal": str(tmp_path / "j"), "models": trained[kind], "live_from": since}
    measured(**said | {"journal": str(tmp_path / "warm")}, until=n - live + 1)
    told = benchmark.pedantic(lambda: measured(**said, is_live=True), rounds=1, iterations=1)
    assert told["bars"] == live
    median, late = float(np.median(told["ms"])), float(np.quantile(told["ms"], 0.99))
    benchmark.extra_info["bars a second"] = told["rate"]
    benchmark.extra_info["s to the first bar"], benchmark.extra_info["s of processor time"] = told["ready"], told["ready_cpu"]
    benchmark.extra_info["ms median"], benchmark.extra_info["ms 99 %"] = median, late
    benchmark.extra_info["ms 99 % of processor time"] = float(np.quantile(told["ms_cpu"], 0.99))


def test_the_restart_after_a_kill_does_not_know_the_journals_age(benchmark, tmp_path):
    n = 10_000 if benchmark.enabled else 60
    said = stored(tmp_path, n)
    assert measured(**said, until=n - 10, dies=True)["bars"] == n - 10
    told = benchmark.pedantic(lambda: measured(**said), rounds=1, iterations=1)
    assert (told["resumed"], told["bars"]) == (n - 10, 10)
    benchmark.extra_info["s to the first bar"], benchmark.extra_info["s of processor time"] = told["ready"], told["ready_cpu"]
