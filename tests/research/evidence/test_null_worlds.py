"""Does the whole procedure find an edge where there is none, and the one that is there? The same call with the same defaults for both."""

import math
from pathlib import Path

import pytest

import research
from research.runs.config import load_config
from research.workflow.backtest_job import Job, run_job

QUICK = ["run.models=lgbm", "run.folds=3"]


def summary_of(world: str, folder: Path, sets: list[str]) -> dict:
    return run_job(Job(world, load_config("published", sets=sets), out=folder), verify=False, report=False).summary


def direction_z(summary: dict) -> float:
    """Standard errors by which the ensemble's direction accuracy exceeds one half, at its effective sample size."""
    block = summary["layers"]["ensemble"]
    return (block["direction_accuracy"] - 0.5) / math.sqrt(0.25 / block["direction_n_effective"])


def test_a_random_walk_has_no_edge_and_the_planted_one_is_found(tmp_path: Path) -> None:
    noise = summary_of("simulated:random_walk?n_bars=2500&seed=1", tmp_path / "noise", QUICK)
    assert noise["evidence"]["finding"] != "edge"
    assert direction_z(noise) < 2.5
    planted = summary_of("simulated:planted_edge?n_bars=3500&seed=1", tmp_path / "planted", QUICK)
    assert planted["evidence"]["finding"] == "edge"
    assert planted["layers"]["ensemble"]["direction_accuracy"] > 0.55


@pytest.mark.slow
def test_twenty_random_walks_have_no_edge(tmp_path: Path) -> None:
    found = [summary_of(f"simulated:random_walk?seed={seed}", tmp_path / str(seed), []) for seed in range(20)]
    assert all(summary["pnl"]["n_trades"] >= 200 for summary in found)
    assert sum(summary["evidence"]["finding"] == "edge" for summary in found) <= 1
    assert sum(map(direction_z, found)) / math.sqrt(20) < 2.5


@pytest.mark.slow
def test_the_planted_edge_is_found_with_the_defaults(tmp_path: Path) -> None:
    summary = summary_of("simulated:planted_edge", tmp_path / "run", [])
    assert summary["evidence"]["finding"] == "edge"
    for model in ("xgb", "lgbm"):  # by the sign of p(BUY) - p(SELL) on every move; the layers speak only when sure
        assert summary["models"][model]["direction_ci95"][0] > 0.5
        assert summary["models"][model]["direction_accuracy"] == pytest.approx(0.60, abs=0.03)


@pytest.mark.slow
def test_on_forty_random_walks_no_model_tells_the_direction_beyond_chance(tmp_path: Path) -> None:
    """Trees, and both learned meta layers, asked everywhere; in mode policy the logistic one is the same."""
    sets = ["run.folds=4", "run.meta=none"]
    above = dict.fromkeys(("xgb", "lgbm", "meta_override", "meta_v5"), 0)
    for seed in range(40):
        run = run_job(
            Job(f"simulated:random_walk?seed={seed}&n_bars=3000", load_config("published", sets=sets), out=tmp_path / str(seed)),
            verify=False, report=False,
        )  # fmt: skip
        models = dict(run.summary["models"])
        for mode in ("override", "v5"):
            params = run.params.with_values({"meta.mode": mode})
            meta = research.train_meta(run.bars, run.predictions, params, calibration="none")
            models |= research.backtest(run.bars, run.predictions, params, meta=meta).summary["models"]
        assert set(above) <= set(models)
        for name in above:
            above[name] += models[name]["direction_ci95"][0] > 0.5
    assert max(above.values()) <= 5, above
