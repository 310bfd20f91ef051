"""Does a run come out again, is a changed bit named by its stage, and do several runs stand side by side?"""

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest
from typer.testing import CliRunner

import research
from research.cli import app
from research.errors import UserError
from research.report.compare import bases, compare, write_page
from research.training import walk_forward
from research.training.models.base import scaler_path
from research.training.models.schedule import artefact_hash
from research.verify.reproduce import STAGES, sentence
from research.workflow.recording import reproduce
from tests.support import PUBLISHED

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def bars():
    return research.simulate("random_walk", seed=5, n_bars=700, n_symbols=3)


@pytest.fixture(scope="module")
def trained(bars, tmp_path_factory):
    """A saved run on models trained here."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QT_HOME", str(tmp_path_factory.mktemp("home")))
        predictions = research.train(
            bars, models=["lgbm"], label="L3", n_folds=2, processes=1, calibration="temperature", profile="published"
        )
        research.backtest(bars, predictions, PUBLISHED).save(folder)
    return folder


@pytest.fixture(scope="module")
def imported(bars, tmp_path_factory):
    """Two saved runs on imported predictions, with different parameters."""
    root = tmp_path_factory.mktemp("imported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QT_HOME", str(tmp_path_factory.mktemp("home")))
        for name, floor in (("strict", 0.70), ("loose", 0.50)):
            params = PUBLISHED.with_values({"governor.min_confidence": floor})
            research.backtest(bars, research.Predictions.random(bars, seed=1), params).save(root / name)
    return root


def test_a_trained_run_comes_out_again(trained):
    report = reproduce(trained)
    assert report["equal"], sentence(report)
    assert report["first"] is None
    assert report["notes"] == []
    assert report["changed"] == []
    by_stage = {stage["stage"]: stage for stage in report["stages"]}
    assert by_stage["training"]["arrays"] == 2  # one model, two folds
    assert report["verdict"]["stored"] == report["verdict"]["again"]
    assert report["verdict"]["declined"] is False
    assert "have the bits of the first run" in sentence(report)


@pytest.mark.parametrize(("declined", "word"), [(True, "declined (not proven)"), (False, "not enough data (not proven)")])
def test_a_chain_that_declined_every_trade_is_told_so(declined, word):
    verdict = {"stored": "not enough data", "again": "not enough data", "declined": declined, "figures": "not proven"}
    assert sentence({"equal": True, "stages": [{"arrays": 3}], "verdict": verdict}).endswith(f"; verdict {word}")


@pytest.mark.parametrize(("change", "equal"), [(1e-14, True), (1e-6, False)])
def test_calibration_may_differ_in_the_digits_of_another_processor_alone(trained, monkeypatch, change, equal):
    train = walk_forward.run_plan

    def elsewhere(artefact):
        told = json.loads(scaler_path(artefact.path).read_text())
        told["calibration"]["scale"] *= 1.0 + change
        scaler_path(artefact.path).write_text(json.dumps(told))
        return replace(artefact, hash=artefact_hash(artefact.path))

    def run_plan(*args, **how):
        made = train(*args, **how)
        return replace(made, models=replace(made.models, artefacts=tuple(elsewhere(a) for a in made.models.artefacts)))

    monkeypatch.setattr(walk_forward, "run_plan", run_plan)
    report = reproduce(trained)
    assert report["equal"] == equal
    assert report["first"] == (None if equal else "training")
    assert any("in the last digits, as on another processor" in note for note in report["notes"]) == equal


def test_every_array_of_the_manifest_belongs_to_one_stage(trained):
    names = json.loads((trained / "manifest.json").read_text())["arrays"]
    for name in names:
        assert sum(name.startswith(prefixes) for prefixes in STAGES.values()) == 1, name


def changed(folder, copy, array):
    """Copy a run and put another hash for `array` into its manifest."""
    shutil.copytree(folder, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["arrays"][array] = "0" * 64
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


@pytest.mark.parametrize(
    ("array", "stage"),
    [
        ("votes.probs", "predictions"),
        ("decisions.volatility", "features"),
        ("decisions.raw_action", "arbiter"),
        ("fills", "account"),
    ],
)
def test_the_first_stage_that_differs_is_named(imported, tmp_path, array, stage):
    report = reproduce(changed(imported / "strict", tmp_path / "copy", array))
    assert report["first"] == stage
    assert f"the first stage that differs is {stage} ({array})" in sentence(report)


def test_candles_that_are_not_the_runs_are_refused(imported, tmp_path):
    with pytest.raises(UserError, match=r"bars\.parquet must be as the backtest wrote it, was with another close"):
        reproduce(changed(imported / "strict", tmp_path / "copy", "bars.close"))


def test_a_changed_parameter_shows_where_it_acts_and_how_far(imported, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(imported / "strict", copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["params"]["governor.min_confidence"] = 0.65
    manifest["versions"]["numpy"] = "1.0"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    report = reproduce(copy)
    assert report["first"] == "governor"
    account = next(stage for stage in report["stages"] if stage["stage"] == "account")
    assert account["distance"] > 0.0
    assert account["where"].startswith("bar ")
    assert "numpy 1.0 is now" in sentence(report)
    assert report["notes"] == ["predictions were taken as stored: they were imported"]


def test_the_commands_answer_with_exit_codes(imported, tmp_path):
    good = RUNNER.invoke(app, ["reproduce", str(imported / "strict")])
    assert good.exit_code == 0
    assert "reproduced:" in good.output
    bad = RUNNER.invoke(app, ["reproduce", "--json", str(changed(imported / "strict", tmp_path / "copy", "equity"))])
    assert bad.exit_code == 1
    assert json.loads(bad.output)["first"] == "account"
    page = tmp_path / "page.html"
    shown = RUNNER.invoke(app, ["compare", str(imported / "strict"), str(imported / "loose"), "--out", str(page)])
    assert shown.exit_code == 0
    assert "governor.min_confidence" in shown.output
    assert page.exists()


def test_runs_stand_side_by_side(imported, trained, tmp_path):
    folders = [imported / "strict", imported / "loose", trained]
    table = compare(folders)
    assert list(table.columns) == ["strict", "loose", "trained"]
    assert table.loc["governor.min_confidence"].tolist() == [0.70, 0.50, 0.65]
    assert "governor.cooldown_minutes" not in table.index  # the same in all
    assert table.loc["verdict"].isin(["not proven", "no edge", "not enough data"]).all()
    page = write_page(folders, tmp_path / "sub" / "page.html").read_text(encoding="utf-8")
    assert [names for names, _ in bases(folders)] == ["strict, loose, trained"]
    assert page.count("a side: fee 0.040 %, slippage 0.010 %; funding none") == 1
    assert "http" not in page.replace("http-equiv", "")
    assert "different candles" not in page
    for name in table.columns:
        assert name in page
    assert isinstance(table, pd.DataFrame)


def test_what_the_figures_rest_on_is_said_for_each_that_differs(bars, imported, tmp_path):
    dear = PUBLISHED.with_values({"broker.fee_rate": 0.002})
    other = research.backtest(bars, research.Predictions.random(bars, seed=1), dear).save(tmp_path / "dear", record=False)
    said = dict(bases([imported / "strict", other, imported / "loose"]))
    assert list(said) == ["strict, loose", "dear"]
    assert "fee 0.200 %, slippage 0.010 %" in said["dear"]


def test_runs_of_different_candles_say_so_in_the_terminal_and_on_the_page(bars, imported, tmp_path):
    short = bars[:600]
    other = research.backtest(short, research.Predictions.random(short, seed=1), PUBLISHED).save(tmp_path / "short", record=False)
    shown = RUNNER.invoke(app, ["compare", str(imported / "strict"), str(other), "--out", str(tmp_path / "page.html")])
    text = "These runs are of different candles: their figures are not of the same market."
    assert text in shown.output
    assert text in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text not in RUNNER.invoke(app, ["compare", str(imported / "strict"), str(imported / "loose")]).output


def test_too_few_or_missing_runs_are_one_sentence(imported, tmp_path):
    with pytest.raises(UserError, match="two runs or more, was 1"):
        compare([imported / "strict"])
    with pytest.raises(UserError, match="run must be a folder"):
        compare([imported / "strict", tmp_path / "nothing"])
    with pytest.raises(UserError, match="run must be a folder"):
        reproduce(tmp_path / "nothing")
