"""Rates of `qt study`: how often it finds a planted cross-sectional edge, and how often it takes noise for one.

`python -m tests.study_rates` studies 40 worlds of each kind, three years of 4-hour bars of 20 symbols, and prints what it found; with
`--stop 0.02` under the usual stop. The number of a world is its seed. Every study has a ledger of its own, 4 combinations, and the best of
them proven.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from research.runs.config import load_config
from research.workflow.study_job import run_study

WORLDS = 40
KINDS = {"strong": 0.08, "planted": 0.05, "noise": 0.0}  # information coefficient of a bar
SHAPE = "n_bars=6575&n_symbols=20&interval=4h"
PLAN = """
[study]
data = "simulated:relative?ic={ic}&seed={seed}&{shape}"
families = ["cross_section"]
targets = ["XS@6"]
books = ["symbols", "cross_section"]

[features]
sets = ["v5_rel"]

[governor]
neutral = "dollar"
max_daily_trades = 1000
stop_loss = {stop}

[run]
models = ["lgbm"]
preset = "fast"
folds = 4
meta = "none"
"""


def studied(kind: str, seed: int, stop: float = 0.5, shape: str = SHAPE) -> dict[str, Any]:
    """Study one world with a fresh ledger; what `study.json` holds."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("QT_HOME", folder)
        plan = Path(folder) / "study.toml"
        plan.write_text(PLAN.format(ic=KINDS[kind], seed=seed, stop=stop, shape=shape))
        return run_study(load_config(path=plan), Path(folder) / "out", declare=4).summary


def is_found(summary: dict[str, Any]) -> bool:
    """Whether the study says edge: of a proven run, after all its trials."""
    best = summary["best"]
    return best is not None and best["proven"] and best["verdict"] == "edge"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--worlds", type=int, default=WORLDS)
    parser.add_argument("--stop", type=float, default=0.5, help="governor.stop_loss")
    given = parser.parse_args()
    for kind in given.kinds:
        n, started = 0, time.monotonic()
        for seed in range(given.worlds):
            summary = studied(kind, seed, given.stop)
            best = summary["best"] or {"test": {"t": None}, "families": "", "target": "", "book": ""}
            n += is_found(summary)
            told = f"t {best['test']['t']}, {best['families']} {best['book']}; {n} of {seed + 1} found"
            print(f"{kind} {seed}: {told}, {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
