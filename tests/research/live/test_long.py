"""Does a month behave like a minute? Memory that stays flat, and every bit of the backtest with models running, on real candles."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

import research
from research import backtest
from research.data import load_bars, save_bars
from research.live.start import LiveOptions
from research.training.predictions import Predictions
from tests.conftest import shared_data
from tests.research.live.test_live import check_against
from tests.support import PUBLISHED
from tests.support.as_published import CONFIG
from tests.support.live_market import run_live


def grown(tmp_path, n: int, marks: tuple[int, int]) -> float:
    """MiB that a process of its own grows by between two bars of a replay."""
    bars = load_bars(f"simulated:random_walk?n_bars={n}&n_symbols=19")
    save_bars(bars, tmp_path / "bars.parquet")
    Predictions.random(bars, seed=1).save(tmp_path / "predictions.parquet")
    said = {"feed": f"replay:{tmp_path / 'bars.parquet'}", "journal": str(tmp_path / "j"), "marks": marks}
    said["predictions"] = str(tmp_path / "predictions.parquet")
    done = subprocess.run([sys.executable, "-m", "tests.support.live_measure", json.dumps(said)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["bars"] == n
    return float(told["own"][str(marks[1])] - told["own"][str(marks[0])])


def test_memory_is_flat_over_a_month(tmp_path):
    assert grown(tmp_path, 900, (179, 899)) < 10.0


@pytest.mark.slow
def test_memory_is_flat_from_bar_2000_to_bar_10000(tmp_path):
    assert grown(tmp_path, 10_000, (1_999, 9_999)) < 10.0


@pytest.mark.slow
def test_a_month_with_four_models_is_the_backtest(tmp_path):
    """Trained on three symbols before the month, served to nineteen in it; stopped twice and gone on with."""
    source = shared_data("crypto_spot_1h_wide.parquet")
    names = load_bars(source, start="2024-03-01", end="2024-03-02").symbols[:19]
    trained = research.train(
        load_bars(source, symbols=names[:3], start="2024-01-15", end="2024-03-01"),
        models=("xgb", "lgbm", "nhits", "patchtst"), preset="tiny", n_folds=2, profile="published",
    )  # fmt: skip
    trained.models.save(tmp_path / "models")
    how = {"symbols": list(names), "start": "2024-03-01", "end": "2024-04-01"}
    asked = LiveOptions(f"replay:{source}", tmp_path / "j", CONFIG, models=str(tmp_path / "models"), allow_rejected=True, how=how)
    for until in (250, 251, None):
        outcome, _ = run_live(asked, until)
    bars = load_bars(source, **how)
    assert outcome.resumed + outcome.bars == bars.n == 744
    run = backtest(bars, Predictions.from_models(tmp_path / "models", bars), PUBLISHED)
    assert (run.result.votes.action[:4, 200:] >= 0).any(axis=(1, 2)).all()
    assert len(run.result.fills) > 10
    check_against(run, tmp_path / "j")
    assert run_live(replace(asked, journal=tmp_path / "j"))[0].bars == 0
