"""Is each kernel compiled once, is the cache honest, and does interpreted code give the same bits?

Everything runs in fresh interpreters: what other tests compiled or called may not help.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def python(code: str, *, path: Path = ROOT, timeout: int = 600, **env: str) -> str:
    """Run `code` in a fresh interpreter that finds qtcore in `path`; returns its last line."""
    whole = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), str(ROOT)]), "OMP_NUM_THREADS": "1", **env}
    done = subprocess.run([sys.executable, "-c", code], cwd=path, env=whole, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout.strip().split("\n")[-1]


CHAIN = """
import hashlib, json, sys
from dataclasses import replace
import numpy as np
import qtcore
from qtcore.jit import KERNELS
from tests.conftest import awkward_bars
from tests.qtcore.test_naive_chain import random_votes

n = int(sys.argv[1]) if len(sys.argv) > 1 else {n}
bars = awkward_bars(n, 3, 4)
funded = replace(bars, funding=np.where((np.arange(n) % 8 == 0)[:, None], 1e-4, np.zeros(bars.close.shape)))
votes = random_votes(np.random.default_rng(0), n, 4)
digest = hashlib.sha256()

def note(result):
    for name, dtype in qtcore.types.DECISION_COLUMNS.items():
        digest.update(np.ascontiguousarray(getattr(result.decisions, name)))
    for name in ("final_action", "governor_reason", "size", "pnl", "equity", "balance", "exposure", "worth"):
        digest.update(np.ascontiguousarray(getattr(result, name)))
    digest.update(np.ascontiguousarray(result.planes.values))
    digest.update(result.fills.tobytes())

def run(values, world, live):
    params = qtcore.Params.profile("published").with_values({{"broker.max_holding_bars": 5, "governor.max_drawdown": 1.0, **values}})
    engine = qtcore.Engine(params, features=qtcore.FEATURE_SETS["v5_rel"])
    note(engine.run(world[:n - live], votes[:n - live]))
    for t in range(n - live, n):
        note(engine.run(world[t:t + 1], votes[t:t + 1]))
    engine.finish()
"""

MODES = """
run({}, bars, 0)
run({}, bars, 3)
run({"meta.mode": "override", "governor.order": "by_confidence", "broker.fill": "close"}, funded, 2)
run({"meta.mode": "v5", "governor.cooldown_scope": "last_50", "governor.sizing_mode": "kelly_empirical"}, bars, 2)
run(qtcore.Params.profile("original").flat() | {"meta.enabled": True, "arbiter.enabled": True}, bars, 2)
"""
SWEEP = """
from qtcore.sweep import Market, sweep
params = qtcore.Params.profile("published").with_values({"broker.max_holding_bars": 5})
result = qtcore.Engine(params).run(bars, votes)
market = Market.of(bars, votes, result.planes.arbiter, result.planes.regime)
sweep(market, params.record())
sweep(market, np.repeat(params.record(), 64))
"""


def test_every_kernel_has_one_signature_after_batch_live_and_sweep():
    told = "{k: [str(s) for s in f.signatures] for k, f in KERNELS.items() if len(f.signatures) > 1}"
    several = json.loads(python(CHAIN.format(n=160) + MODES + SWEEP + f"print(json.dumps({told}))"))
    short = {k: [re.sub(r"Record\(\[.*?\], \d+, (True|False)\)", "Record", s) for s in v] for k, v in several.items()}
    assert short == {}, "compiled more than once; look for literals, read-only arrays and ints where floats go"


def test_a_backtest_compiles_no_sweep():
    assert python(CHAIN.format(n=60) + "run({}, bars, 0)\nprint([m for m in sys.modules if m.startswith('qtcore.sweep')])") == "[]"


def test_interpreted_gives_the_same_bits():
    code = CHAIN.format(n=90) + "run({}, bars, 2)\nrun({'meta.mode': 'v5'}, funded, 1)\nprint(digest.hexdigest())"
    assert python(code) == python(code, NUMBA_DISABLE_JIT="1")


@pytest.fixture
def package(tmp_path):
    """A copy of qtcore on disk with two small kernels in two files, and a cache of its own."""
    shutil.copytree(ROOT / "qtcore", tmp_path / "qtcore", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "qtcore" / "callee.py").write_text("from qtcore.jit import kernel\n\n\n@kernel\ndef inner(x):\n    return x + 1.0\n")
    caller = "from qtcore.callee import inner\nfrom qtcore.jit import kernel\n\n\n@kernel\ndef outer(x):\n    return inner(x) * 10.0\n"
    (tmp_path / "qtcore" / "caller.py").write_text(caller)
    (tmp_path / "qtcore" / "__init__.py").write_text("")
    return tmp_path


CALL = "from qtcore.caller import outer\nprint(outer(1.0), sum(outer.stats.cache_hits.values()))"


def call(package: Path, code: str = CALL) -> str:
    return python(code, path=package, QTCORE_CACHE=str(package / "cache"))


def test_the_cache_is_used_and_an_edited_callee_is_noticed(package):
    assert call(package) == "20.0 0"
    assert call(package) == "20.0 1"  # warm: nothing was compiled
    callee = package / "qtcore" / "callee.py"
    callee.write_text(callee.read_text().replace("x + 1.0", "x + 2.0"))
    assert call(package) == "30.0 0"  # numba itself would still answer 20: its key knows the caller's file alone
    callee.write_text(callee.read_text().replace("x + 2.0", "x + 1.0"))
    assert call(package) == "20.0 1"


def test_rebind_ignores_a_warm_cache(package):
    code = """
from qtcore.jit import kernel, rebind
from qtcore.caller import outer
@kernel
def mine(x):
    return x + 4.0
print(outer(1.0), rebind(outer, inner=mine)(1.0), outer(1.0))
"""
    script = package / "script.py"  # a kernel that is cached needs a file
    script.write_text(code)
    run = f"import runpy; runpy.run_path({str(script)!r})"
    assert call(package, run) == "20.0 50.0 20.0"
    assert call(package, run) == "20.0 50.0 20.0"


def test_rebind_names_what_it_cannot_replace(package):
    code = "from qtcore.jit import rebind\nfrom qtcore.caller import outer\n"
    code += "try:\n    rebind(outer, other=abs)\nexcept ValueError as error:\n    print(error)"
    assert call(package, code) == "rebind(outer) can replace only what outer calls, was other"


def test_switches_of_numba_have_their_own_cache(package):
    code = "import qtcore.jit as j\nprint(j.cache_folder())"
    folders = {call(package, code), python(code, path=package, QTCORE_CACHE=str(package / "cache"), NUMBA_BOUNDSCHECK="1")}
    assert len(folders) == 2
