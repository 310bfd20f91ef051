"""Does `qt sweep` do what it says, leave a page that holds it, and refuse a mistake with one sentence?"""

import json

import pytest

from research.cli.app import app
from research.cli.common import guarded
from tests.support import PUBLISHED

DATA = "simulated:random_walk?n_bars=600&n_symbols=2&seed=2"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A finished run, so that no test trains."""
    import research

    bars = research.load_bars(DATA)
    params = PUBLISHED.with_values({"governor.max_drawdown": 1.0})
    return research.backtest(bars, research.Predictions.random(bars, seed=1), params).save(
        tmp_path_factory.mktemp("runs") / "run", record=False
    )


ONE = ["--grid", "governor.stop_loss=0.1"]


def qt(*words):
    return guarded(lambda: app(list(map(str, words)), standalone_mode=False))


def test_a_sweep_of_a_finished_run(run_folder, tmp_path, capsys):
    out = tmp_path / "out"
    grids = ["--grid", "governor.min_confidence=0.50:0.80:0.05", "--grid", "arbiter.score_threshold=0.05,0.15"]
    assert qt("sweep", run_folder, *grids, "--where", "max_drawdown < 0.9", "--out", out, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["n_done"], summary["tried"]["trials"]) == (14, 14)
    assert summary["n_distinct"] <= 14
    assert summary["verdict"]["verdict"] in {"not proven", "no edge", "not enough data"}
    assert set(summary["best"]["setting"]) == {"governor.min_confidence", "arbiter.score_threshold"}
    assert json.loads((out / "summary.json").read_text()) == summary
    assert summary["drivers"] == {"few": 14}
    assert json.loads((out / "sweep.json").read_text())["computed_by"] == {"engine": "local", "workers": 1, "drivers": {"few": 14}}
    page = (out / "sweep.html").read_text()
    for text in (
        "Exact curves",
        summary["verdict"]["sentence"].partition(":")[0],
        "Best rows by sharpe",
        "Figures: not proven.",
        "Computed by the plain driver: 14 (fewer than 24",
        "data:image/svg+xml;base64,",
    ):
        assert text in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert qt("sweep", run_folder, *grids, "--out", out, "--resume") == 0
    told = capsys.readouterr().out
    assert "14 of 14" in told
    assert "distinct outcomes" in told
    assert "computed by" in told
    assert "the plain driver: 14 (fewer than" in " ".join(told.split())
    assert str(out / "sweep.html") in told


def test_a_walk_forward_is_printed_and_shown(run_folder, tmp_path, capsys):
    words = ["--grid", "governor.min_confidence=0.5:0.8:0.1", "--grid", "broker.max_holding_bars=2,5"]
    words += ["--walk-forward", 3, "--out", tmp_path / "out"]
    assert qt("sweep", run_folder, *words) == 0
    told = " ".join(capsys.readouterr().out.split())
    walked = json.loads((tmp_path / "out" / "summary.json").read_text())["walk_forward"]
    assert walked["n_folds"] == len(walked["picks"]) == 2
    assert walked["sentence"] in told
    assert "governor.min_confidence broker.max_holding_bars" in told  # heads of the table, whole
    page = (tmp_path / "out" / "sweep.html").read_text()
    assert walked["sentence"] in page


def test_a_random_search_by_regime(run_folder, tmp_path, capsys):
    words = ["--grid", "governor.min_confidence=0.5:0.8", "--grid", "governor.stop_loss=0.005:0.05", "--search", "random", "--settings", 20]
    words += ["--by-regime", "--objective", "sharpe.volatility_medium", "--out", tmp_path / "out", "--quiet"]
    assert qt("sweep", run_folder, *words) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "sweep.html")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--grid", "governor.min_confidence"], "--grid must be layer.name=values"),
        (["--grid", "governor.stop_loss=0.1", "--grid", "governor.stop_loss=0.2"], "--grid must name a parameter once"),
        ([], "a sweep must have at least one --grid"),
        (["--grid", "governor.stop_loss=0.1", "--engine", "ray", "--address", "127.0.0.1:1"], "Ray must answer at 127.0.0.1:1, did not"),
        (["--grid", "governor.stop_loss=0.1", "--resume"], "--resume must find a sweep"),
        (["--grid", "governor.stop_loss=0.1", "--objective", "luck"], "--objective must name a figure of the sweep, was 'luck'"),
        (["--grid", "governor.stop_loss=0.1", "--walk-forward", "1"], "--walk-forward must be 2 or more folds"),
        (["--grid", "governor.stop_loss=9"], "--grid: governor.stop_loss must be a number in [0.0001, 1.0], was '9'"),
        ([*ONE, "--settings", "5"], "--settings must come with --search random or adaptive, was 5"),
        ([*ONE, "--from", "2024-01-01"], "--from must come with candles, was given with the finished run"),
        ([*ONE, "--profile", "original"], "--profile must come with candles, was given with the finished run"),
        ([*ONE, "--set", "run.models=xgb"], "--set run.models must come with candles, was given with the finished run"),
    ],
)
def test_a_mistake_is_one_sentence(run_folder, tmp_path, capsys, words, sentence):
    assert qt("sweep", run_folder, *words, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([*ONE, "--objective", "luck"], "--objective must name a figure of the sweep, was 'luck'"),
        ([*ONE, "--where", "luck < 1"], "--where must name a figure of the sweep, was 'luck'"),
        ([*ONE, "--where", "max_drawdown"], "--where must be a figure, one of < <= > >=, and a finite number"),
        ([*ONE, "--where", "sharpe < 1", "--where", "sharpe > 2"], "--where must allow something, was sharpe < 1 and sharpe > 2"),
        ([*ONE, "--search", "all"], "search.method (--search) must be one of grid, random, adaptive, was 'all'"),
        ([*ONE, "--search", "random", "--settings", "0"], "--settings must be 1 or more, was 0"),
        ([*ONE, "--settings", "5"], "--settings must come with --search random or adaptive, was 5"),
        ([*ONE, "--search", "adaptive", "--engine", "ray"], "--search adaptive must run on the local engine, was ray"),
        ([*ONE, "--walk-forward", "1"], "--walk-forward must be 2 or more folds"),
        ([*ONE, "--walk-forward", "21"], "--walk-forward must be 2 or more folds of 30 bars or more each, was 21 over 600"),
        ([*ONE, "--resume"], "--resume must find a sweep"),
        ([*ONE, "--predictions", "a", "--models", "b"], "--predictions and --models exclude each other"),
        (["--grid", "governor.stop_los=0.1"], "--grid must name a parameter, was 'governor.stop_los'"),
        (["--grid", "governor.stop_loss=9"], "--grid: governor.stop_loss must be a number"),
        (["--grid", "governor.stop_loss=0.1:0.2"], "--grid governor.stop_loss must have a step"),
        (["--grid", "governor.kelly_trades=30,40"], "which is not where governor.sizing_mode is"),
    ],
)
def test_a_mistake_is_told_before_anything_is_trained(monkeypatch, tmp_path, capsys, words, sentence):
    def trains(*_):
        raise AssertionError("training began")

    monkeypatch.setattr("research.workflow.backtest_job._train", trains)
    assert qt("sweep", DATA, *words, "--out", tmp_path / "out") == 2
    assert sentence in capsys.readouterr().err


def test_a_sweep_of_a_finished_run_takes_a_seed_of_its_search(run_folder, tmp_path, capsys):
    words = ["--grid", "governor.min_confidence=0.5:0.8", "--search", "random", "--settings", 4, "--seed"]
    found = []
    for seed in (1, 2):
        assert qt("sweep", run_folder, *words, seed, "--out", tmp_path / str(seed), "--json") == 0
        found.append(json.loads(capsys.readouterr().out)["best"]["setting"])
    assert found[0] != found[1]
