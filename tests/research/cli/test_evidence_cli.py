"""Does a run fail, and say why, when its predictions are not sound; and does the terminal claim nothing on too few events?"""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from research.cli import show
from research.cli.app import app
from research.data import load_bars
from research.errors import UserError
from research.evidence import summarise
from research.runs.verdict import combined
from research.training.models.schedule import ModelSet
from research.training.predictions import Predictions
from research.workflow.backtest_job import Job, run_job
from tests.support import FLAG
from tests.support.fake_run import fake_run

WORLD = "simulated:random_walk?n_bars=420&n_symbols=2"
SETS = ["--set", "run.models=lgbm", "--set", "run.preset=tiny", "--set", "run.folds=1", "--set", "run.meta=none"]


def test_a_budget_that_is_overdrawn_fails_the_run_after_its_report(tmp_path, monkeypatch):
    monkeypatch.setenv("QT_HOME", str(tmp_path / "home"))
    bars = load_bars(WORLD)
    half = Predictions.random(bars, models=("xgb",)).to_pandas().reset_index()[["close_time", "symbol", "xgb_action", "xgb_confidence"]]
    half.iloc[::2].to_parquet(tmp_path / "half.parquet")
    out = ["--no-verify", "--out", str(tmp_path / "run")]
    arguments = ["backtest", WORLD, FLAG, "--predictions", str(tmp_path / "half.parquet"), *out]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, [*arguments, "--set", "run.provenance_budget=0.1"])
    assert done.exit_code == 1, done.output
    assert "provenance: at most 10.00% of predictions may be absent, stale or synthetic, was 50.00%" in " ".join(done.output.split())
    assert (tmp_path / "run" / "report.html").exists()


def test_models_of_synthetic_labels_are_refused_unless_allowed(tmp_path, monkeypatch):
    monkeypatch.setenv("QT_HOME", str(tmp_path / "home"))
    from research.runs.config import load_config

    sets = SETS[1::2]
    run = run_job(Job(WORLD, load_config("published", sets=sets), out=tmp_path / "first"), verify=False, report=False)
    models = run.predictions.models
    assert isinstance(models, ModelSet)
    fake = replace(models, artefacts=tuple(replace(a, meta=dict(a.meta) | {"synthetic": True}) for a in models.artefacts))
    folder = fake.save(tmp_path / "models") and tmp_path / "models"
    job = Job(WORLD, load_config("published", sets=sets), models=folder, out=tmp_path / "second")
    with pytest.raises(UserError, match="models must be trained on real labels, was synthetic for lgbm; allow it"):
        run_job(job, verify=False, report=False)
    allowed = replace(job, config=load_config("published", sets=[*sets, "run.allow_synthetic=true"]))
    shown = run_job(allowed, verify=False)
    assert shown.summary["provenance"]["models"]["lgbm"]["synthetic"] > 0.9
    assert "trained on synthetic labels" in (tmp_path / "second" / "report.html").read_text(encoding="utf-8")


def shown_of(run, capsys, monkeypatch):
    from research.cli.terminal import Terminal

    monkeypatch.setattr(show, "console", Terminal(width=130))
    run.folder, run.verification = SimpleNamespace(__truediv__=None), {}
    summary = combined(summarise(replace(run, folder=None)), {})
    monkeypatch.setattr(type(run), "summary", property(lambda self: summary))
    from pathlib import Path

    run.folder = Path("reports/x")
    show.run(run, quiet=False, json=False)
    return capsys.readouterr().out


def test_the_terminal_says_why_nothing_was_traded_and_flags_rejected_models(capsys, monkeypatch):
    run = fake_run(n=300, seed=3, min_confidence=1.0)
    artefacts = (
        SimpleNamespace(slot="xgb", meta={"status": "rejected"}, valid_from=0, valid_until=2**62),
        SimpleNamespace(slot="xgb", meta={"status": "accepted"}, valid_from=2**62, valid_until=2**62),
    )
    known = {"thresholds": [{"sell": dict.fromkeys(run.bars.symbols, 0.0)}]}
    run.predictions.models = SimpleNamespace(artefacts=artefacts, slots=("xgb",), config=known, notes=())
    run.predictions.slots = ("xgb", "lgbm")
    text = shown_of(run, capsys, monkeypatch)
    assert "No trades, because the rule LOW_CONFIDENCE blocked" in text
    assert "rejected in 1 of 2 folds" in text
    final = next(line for line in text.splitlines() if line.startswith("final"))
    assert "not enough data" in final
