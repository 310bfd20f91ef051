"""Real clusters that go wrong: a head that dies in mid-sweep, a Ray of our own at the end and after Ctrl-C, one that wants a token."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

import research
from research.evidence.ledger import Ledger
from research.runs.folder import read_run
from research.sweep import run as run_module
from tests.support import PUBLISHED

psutil = pytest.importorskip("psutil", reason="psutil is not installed; ray brings it")
pytest.importorskip("ray", reason="ray is not installed; it is the extra `ray`")
pytestmark = pytest.mark.slow  # half a minute each: heads and workers are processes that start

DATA = "simulated:random_walk?n_bars=500&n_symbols=2&seed=4"
BASE = PUBLISHED.with_values({"broker.max_holding_bars": 5, "governor.max_drawdown": 1.0})
GRID = {"governor.min_confidence": "0.50:0.80:0.01", "governor.stop_loss": "0.01:0.20:0.01"}  # 620 settings
SLOW = """
import sys, time
from research.cli.app import app
from research.cli.common import guarded
from research.sweep import run
run.PART_CELLS = run.PIECE_CELLS = 1  # parts of 64 settings
keep = run.Store.keep
run.Store.keep = lambda store, first, table: (keep(store, first, table), time.sleep(PAUSE))
sys.exit(guarded(lambda: app(sys.argv[1:], standalone_mode=False)))
"""
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}


@pytest.fixture
def folder(tmp_path):
    """A finished run, as `qt sweep` takes it."""
    bars = research.load_bars(DATA)
    return research.backtest(bars, research.Predictions.random(bars, seed=1), BASE).save(tmp_path / "run", record=False)


def environment(**more):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**kept, "PYTHONPATH": str(Path(research.__file__).parents[1]), **more}


def sweep(folder, *words, pause=0.0, **more):
    """Start `qt sweep` in a process of its own that rests after every part."""
    grids = [word for name, values in GRID.items() for word in ("--grid", f"{name}={values}")]
    command = [sys.executable, "-c", SLOW.replace("PAUSE", str(pause)), "sweep", str(folder), *grids, *words, "--engine", "ray", "--quiet"]
    return subprocess.Popen(command, env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextmanager
def head(**more):
    """Start a head of two workers as a user does; yield its address and a function that kills it."""
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{line.getsockname()[1]}"
    options = [f"--port={address[10:]}", "--num-cpus=2", "--include-dashboard=false", f"--object-store-memory={80 << 20}"]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", *options]
    quiet = {"env": environment(RAY_USAGE_STATS_ENABLED="0", **more), "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    started = subprocess.Popen(command, text=True, **quiet)

    def kill():
        everything = [*psutil.Process(started.pid).children(recursive=True), started] if started.poll() is None else []
        for process in everything:
            process.kill()

    try:
        for line in started.stdout:
            if "block forever" in line:
                break
        assert started.poll() is None
        yield address, kill
    finally:
        kill()
        started.communicate()


def wait_for_parts(out, n, process):
    while len(list((out / "trials").glob("part-*.parquet"))) < n:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def test_a_head_that_dies_is_told_and_what_is_done_is_kept(folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with head(**TOKEN) as (address, kill):
        process = sweep(folder, "--out", str(out), "--address", address, pause=1.0, **TOKEN)
        wait_for_parts(out, 2, process)
        kill()
        said, complaint = process.communicate(timeout=300.0)
    assert (process.returncode, said) == (2, "")
    assert complaint.count("\n") == 1, complaint
    assert complaint.startswith("qt: Ray at ")
    assert "must stay until the work is done, was gone" in complaint
    done = {path.name: path.read_bytes() for path in (out / "trials").iterdir()}
    assert 2 <= len(done) < 10
    assert Ledger().count() == 64 * len(done)  # what was done was tried
    monkeypatch.setattr(run_module, "PART_CELLS", 1)
    files = read_run(folder)
    bars, predictions = files.bars(), research.Predictions.load(files.path / "predictions.parquet")
    trials = research.sweep(bars, predictions, GRID, files.params(), out=out, resume=True)
    assert len(trials) == trials.tried.trials == Ledger().count() == 620
    assert done.items() <= {path.name: path.read_bytes() for path in (out / "trials").iterdir()}.items()


@pytest.mark.parametrize("is_stopped", [True, False])
def test_a_ray_of_our_own_leaves_no_process(folder, tmp_path, is_stopped):
    out = tmp_path / "out"
    process = sweep(folder, "--out", str(out), pause=1.0)
    wait_for_parts(out, 2, process)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) > 3
    if is_stopped:
        process.send_signal(signal.SIGINT)
    said, complaint = process.communicate(timeout=300.0)
    if is_stopped:
        assert (process.returncode, complaint.count("\n")) == (130, 1), complaint
        assert 0 < Ledger().count() < 620
    else:
        assert (process.returncode, complaint) == (0, "")
        assert said.strip() == str(out / "sweep.html")
    _, alive = psutil.wait_procs(family, timeout=20.0)
    assert not alive


def test_a_head_that_wants_a_token_is_told(folder, tmp_path):
    with head(**TOKEN) as (address, _):
        for own in ({}, TOKEN | {"RAY_AUTH_TOKEN": "f" * 64}):
            process = sweep(folder, "--out", str(tmp_path / "out"), "--address", address, **own)
            said, complaint = process.communicate(timeout=300.0)
            assert (process.returncode, said) == (2, "")
            assert complaint.count("\n") == 1, complaint
            assert "RAY_AUTH_MODE=token" in complaint
