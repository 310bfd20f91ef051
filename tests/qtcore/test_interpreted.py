"""Are the kernels plain Python? With the JIT switched off the whole chain gives the same bits."""

import hashlib
import os
import subprocess
import sys

import numpy as np

import qtcore as qt
from research.training.predictions import Predictions
from tests.conftest import awkward_bars
from tests.support import PUBLISHED


def digest() -> str:
    """Hash everything a small run says, by name."""
    bars = awkward_bars(140, n_symbols=3)
    engine = qt.Engine(PUBLISHED.with_values({"features.warmup": 20, "governor.min_confidence": 0.5}), features=qt.FEATURE_SETS["v5_rel"])
    votes = Predictions.random(bars, seed=2).votes()
    parts = [engine.run(bars[:90], votes[:90]), engine.run(bars[90:], votes[90:])]
    out = hashlib.sha256()
    for part in parts:
        assert len(part.fills)
        for array in (part.planes.values, part.final_action, part.governor_reason, part.equity, part.fills, *part.decisions.slabs):
            out.update(np.ascontiguousarray(array).tobytes())
    for name in sorted(engine.state):
        out.update(engine.state[name].tobytes())
    return out.hexdigest()


def test_the_chain_gives_the_same_bits_interpreted() -> None:
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-c", "from tests.qtcore.test_interpreted import digest; print(digest())"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == digest()
