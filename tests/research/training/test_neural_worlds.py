"""Do the sequence models find an edge where there is none, and the one that is there? Preset `tiny`, the same call for both worlds."""

from pathlib import Path

import pytest

from research.runs.config import load_config
from research.workflow.backtest_job import Job, run_job

SLOTS = ("nhits", "patchtst")
SMALL = ["run.models=nhits,patchtst", "run.preset=tiny", "run.folds=3"]
SEEDS = 8
ATTAINABLE = 0.60  # of the planted world


def blocks(world: str, folder: Path) -> dict:
    """Accuracy of each model on its test folds."""
    models = run_job(Job(world, load_config("published", sets=SMALL), out=folder), verify=False, report=False).summary["models"]
    return {slot: models[slot] for slot in SLOTS}


@pytest.mark.slow
def test_the_planted_edge_is_found(tmp_path: Path) -> None:
    for slot, block in blocks("simulated:planted_edge", tmp_path).items():
        assert block["direction_ci95"][0] > 0.5, slot
        assert block["direction_accuracy"] >= (0.5 + ATTAINABLE) / 2, slot
        assert block["direction_accuracy"] < ATTAINABLE + 0.03, slot  # nobody can


@pytest.mark.slow
def test_random_walks_have_no_edge(tmp_path: Path) -> None:
    found = [blocks(f"simulated:random_walk?seed={seed}", tmp_path / str(seed)) for seed in range(SEEDS)]
    for slot in SLOTS:
        above = [block[slot]["direction_accuracy"] for block in found if block[slot]["direction_ci95"][0] > 0.5]
        assert len(above) <= 2, (slot, above)
