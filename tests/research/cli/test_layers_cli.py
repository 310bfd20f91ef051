"""Do the commands take a file of layers, and only the one that something was made with?"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import research
from examples.opinion import unanimous
from research.cli.app import app
from research.cli.common import guarded
from research.runs.folder import read_run
from research.training.models.layers import using
from research.workflow.recording import verify_run
from tests.support import FLAG, PUBLISHED
from tests.support.own_layers import TEXT, write_layers

WORLD = "simulated:planted_edge?n_bars=500&n_symbols=2"
PLAIN = [FLAG, "--set", "run.meta=none"]
SMALL = [*PLAIN, "--set", "run.models=sides_model", "--set", "run.folds=2"]


def qt(*words: object) -> int:
    sys.argv[:] = ["qt", *map(str, words)]
    return guarded(lambda: app(standalone_mode=False))


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["qt"])
        patched.setenv("QT_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return write_layers(tmp_path_factory.mktemp("layers"))


@pytest.fixture(scope="module")
def moved(tmp_path_factory) -> Path:
    return write_layers(tmp_path_factory.mktemp("moved"), name="renamed.py")


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """The same file beside another helper."""
    path = write_layers(tmp_path_factory.mktemp("other"))
    (path.parent / "sides.py").write_text((path.parent / "sides.py").read_text() + "# changed\n")
    return path


@pytest.fixture(scope="module")
def finished(file, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert qt("backtest", WORLD, *SMALL, "--layers", file, "--out", folder, "--quiet") == 0
    return folder


@pytest.fixture(scope="module")
def trained(file, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "trained"
    assert qt("train", WORLD, *SMALL, "--layers", file, "--out", folder, "--quiet") == 0
    return folder


def verdict(folder: Path) -> object:
    return json.loads((folder / "verify.json").read_text())["passed"]


def test_backtest_runs_proves_and_names_the_file(finished, file):
    manifest = read_run(finished).manifest
    with using(file) as own:
        assert manifest["layers"] == own.about
    assert manifest["own_layers"] == ["judge", "trade"]
    assert [(found["name"], found["broken"]) for found in manifest["own_checks"]] == [("judge", []), ("trade", [])]
    assert f"--layers {file}" in manifest["command"]
    assert verdict(finished) is True
    meta = json.loads(next((finished / "models").glob("fold_00/*_meta.json")).read_text())
    assert (meta["target"], meta["layers"]) == ("sides:Sides", manifest["layers"])
    assert "drop" in meta["features"]


def test_verify_needs_the_file_wherever_it_lies(finished, moved, other, capsys):
    assert qt("verify", finished) == 2
    assert "must be proven with its file of layers, mine.py, was without; name it with --layers" in " ".join(
        capsys.readouterr().err.split()
    )
    assert verdict(finished) is True
    (finished / "verify.json").write_text('{"passed": null, "checks": []}')
    assert qt("verify", finished) == 0
    assert verdict(finished) is None
    assert "the code of some is in mine.py, which was not at hand; name it with --layers" in " ".join(capsys.readouterr().out.split())
    assert qt("verify", finished, "--layers", other) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"qt: --layers must be the file that .* was made with, mine.py \(\w{12}\), was .* \(\w{12}\); .*\n", said)
    assert qt("verify", finished, "--layers", moved) == 0
    assert verdict(finished) is True


BENT = """
import os


class Bent(Sides):
    def load(self, path):
        super().load(path)
        self.shares = self.shares[:: -1 if "BENT" in os.environ else 1]
        return self


models = {"sides_model": Bent}
"""


def test_a_proof_that_failed_stays_without_the_file(tmp_path, capsys, monkeypatch):
    file, run = write_layers(tmp_path, TEXT.replace('models = {"sides_model": Sides}', BENT)), tmp_path / "run"
    assert qt("backtest", WORLD, *SMALL, "--layers", file, "--out", run, "--quiet") == 0
    with monkeypatch.context() as bent:
        bent.setenv("BENT", "1")
        assert qt("verify", run, "--layers", file) == 1
    failed = (run / "verify.json").read_bytes()
    capsys.readouterr()
    assert qt("verify", run) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "verdict: Invalid: the proof failed" in said
    assert "not covered: whether what failed is mended: that takes its file of layers, mine.py; name it with --layers" in said
    assert (run / "verify.json").read_bytes() == failed
    assert read_run(run).summary["verdict"] == json.loads((run / "summary.json").read_text())["verdict"] == "invalid"
    assert 'class="verdict invalid"' in (run / "report.html").read_text()
    assert qt("reproduce", run, "--layers", file, "--quiet") == 0
    assert "verdict invalid (not to be believed: the proof failed)" in " ".join(capsys.readouterr().out.split())
    assert qt("verify", run, "--layers", file) == 0
    (run / "verify.json").write_text('{"passed": null, "checks": []}')
    capsys.readouterr()
    assert qt("reproduce", run, "--layers", file, "--quiet") == 0
    assert "(not proven)" in capsys.readouterr().out


def test_a_proof_that_failed_stays_without_layers_of_python(tmp_path):
    bars = research.load_bars(WORLD)
    run = research.backtest(bars, research.Predictions.random(bars), PUBLISHED, judge=unanimous)
    run.save(tmp_path / "run")
    failed = {"passed": False, "checks": [{"name": "x: as it was", "passed": False, "detail": ""}]}
    (tmp_path / "run" / "verify.json").write_text(json.dumps(failed))
    kept = verify_run(tmp_path / "run")
    assert kept == failed | {"not_covered": [kept["not_covered"][0]]}
    assert kept["not_covered"][0].startswith("whether what failed is mended: that takes its own layers at hand")
    assert run.verify()["passed"] is not None, "with the functions it is proven anew"


def test_verify_finds_what_was_changed_in_a_run_with_own_layers(finished, file, tmp_path, capsys):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(finished, broken)
    table = pd.read_parquet(broken / "decisions.parquet")
    table.loc[table.index[900], "raw_confidence"] += 1e-9
    table.to_parquet(broken / "decisions.parquet")
    assert qt("verify", broken, "--layers", file) == 1
    assert "replay" in capsys.readouterr().out


def test_reproduce_needs_the_file(finished, moved, other, capsys):
    assert qt("reproduce", finished) == 2
    assert "name mine.py with --layers" in capsys.readouterr().err
    assert qt("reproduce", finished, "--layers", other) == 2
    assert "must be the file that" in capsys.readouterr().err
    assert qt("reproduce", finished, "--layers", moved) == 0
    assert "reproduced: " in capsys.readouterr().out


def test_sweep_runs_every_setting_as_a_backtest_does(finished, file, tmp_path, capsys):
    grid = ["--grid", "arbiter.gate_confidence=0.6,0.7,0.9", "--grid", "governor.max_position=0.05,0.1"]
    assert qt("sweep", finished, "--layers", file, *grid, "--out", tmp_path / "sweep") == 0
    assert "each setting alone" in " ".join(capsys.readouterr().out.split())
    table = pd.concat(pd.read_parquet(part) for part in sorted((tmp_path / "sweep" / "trials").glob("*.parquet")))
    assert table["outcome"].nunique() > 2  # the judge sees the parameters
    with using(file) as own:
        bars, predictions, params, _ = read_run(finished).chain(own)
        for row in table.to_dict("records"):
            setting = {name: row[name] for name in ("arbiter.gate_confidence", "governor.max_position")}
            run = research.backtest(bars, predictions, params.with_values(setting), judge=own.judge, trade=own.trade, custom=own.features)
            assert row["last_equity"] == run.result.equity[-1]
            assert row["n_fills"] == len(run.result.fills)


def test_sweep_of_a_run_made_without_the_file_refuses_its_judge(file, tmp_path, capsys):
    bars = research.load_bars(WORLD)
    research.backtest(bars, research.Predictions.random(bars), PUBLISHED).save(tmp_path / "plain")
    assert qt("sweep", tmp_path / "plain", "--layers", file, "--grid", "governor.max_position=0.05,0.1", "--out", tmp_path / "sweep") == 2
    assert "--layers must come with candles, was given with the finished run" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "sweep").exists()


def test_live_gives_the_equity_of_the_backtest(trained, file, tmp_path, capsys):
    assert qt("backtest", WORLD, "--models", trained, "--layers", file, *PLAIN, "--out", tmp_path / "run", "--quiet") == 0
    journal = tmp_path / "journal"
    words = ["live", "--models", trained, "--journal", journal, "--allow-rejected", *PLAIN, "--quiet"]
    assert qt(*words, "--feed", "mine:planted_edge", "--layers", file) == 0
    assert qt("live-gap", journal, "--layers", file) == 0
    assert qt("status", journal) == 0
    said = capsys.readouterr().out
    assert "no process decides" not in said, "what a feed of one's own replays ends as our replay does"
    assert "overdue" not in said
    assert qt("status", journal, "--export", tmp_path / "export", "--layers", file) == 0
    equity = [pd.read_parquet(tmp_path / name / "equity.parquet")["equity"].to_numpy() for name in ("run", "export")]
    assert np.array_equal(*equity)
    assert len(np.unique(equity[0])) > 10
    assert qt("verify", tmp_path / "export", "--layers", file) == 0
    assert verdict(tmp_path / "export") is True


def test_live_goes_on_with_the_same_file_alone(trained, file, moved, other, tmp_path, capsys):
    journal = tmp_path / "journal"
    words = ["live", "--feed", f"replay:{WORLD}", "--models", trained, "--journal", journal, "--allow-rejected", *PLAIN, "--quiet"]
    assert qt(*words) == 2
    assert "was without; name the file with --layers" in capsys.readouterr().err
    assert qt(*words, "--layers", other) == 2
    assert "was given mine.py" in capsys.readouterr().err
    assert not journal.exists()
    assert qt(*words, "--layers", file) == 0
    assert qt("live-gap", journal) == 2
    assert "the journal must have the file of layers that made it" in capsys.readouterr().err
    assert qt(*words, "--layers", moved) == 0


def test_live_of_stored_votes_refuses_another_judge_in_a_journal(finished, file, tmp_path, capsys):
    plain = write_layers(tmp_path, TEXT.replace("gate_confidence", "score_threshold"))
    journal = tmp_path / "journal"
    words = ["live", "--feed", f"replay:{WORLD}", "--predictions", finished / "predictions.parquet", "--journal", journal, *PLAIN]
    assert qt(*words, "--layers", file) == 0
    for more, was in (([], "no file of layers"), (["--layers", plain], r"mine.py \(\w{12}\)")):
        assert qt(*words, *more) == 2
        assert re.search(rf"what the journal was begun with, mine.py \(\w{{12}}\), was {was}; give that", capsys.readouterr().err)


def test_serving_models_needs_the_file(trained, other, tmp_path, capsys):
    assert qt("backtest", WORLD, "--models", trained, "--out", tmp_path / "run") == 2
    assert "sides_model of fold 1 must have the file of layers that made it, mine.py" in capsys.readouterr().err
    assert qt("backtest", WORLD, "--models", trained, "--layers", other, "--out", tmp_path / "run") == 2
    assert "was given mine.py" in capsys.readouterr().err


def test_the_registry_takes_and_lists_models_of_a_file(trained, file, capsys):
    assert qt("models", "promote", trained, "--as", "own") == 2
    assert "name the file with --layers" in capsys.readouterr().err
    assert qt("models", "promote", trained, "--as", "own", "--layers", file) == 0
    capsys.readouterr()
    assert qt("models", "list", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert "name the file with --layers" in row["problems"][0]
    assert qt("models", "list", "--json", "--layers", file) == 0
    assert json.loads(capsys.readouterr().out)[0]["problems"] == []
    assert qt("models", "show", "own", "--json", "--layers", file) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == []


def test_a_configuration_names_classes_of_the_file(tmp_path, capsys):
    file, config = write_layers(tmp_path, "from sides import Sides\n"), tmp_path / "qt.toml"
    config.write_text('[models]\nsides_model = "Sides"\n')
    words = ["backtest", WORLD, *SMALL, "--config", config, "--quiet"]
    assert qt(*words, "--out", tmp_path / "run") == 2
    assert "name the file with --layers" in capsys.readouterr().err
    assert qt(*words, "--layers", file, "--out", tmp_path / "run") == 0
    assert verdict(tmp_path / "run") is True
    assert qt("reproduce", tmp_path / "run", "--layers", file) == 0
    config.write_text(f'[models]\nsides_model = "{file}"\n')
    assert qt(*words, "--layers", file, "--out", tmp_path / "other") == 2
    assert "[models] must name classes of the file of --layers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def judge(votes): return 1\n", r"the own judge must take \(votes, planes, params\), was judge\(votes\)"),
        ("import sys\nfrom sides import Sides\nclass Ends(Sides):\n    def fit(self, *a): sys.exit(4)\nmodels = {'sides_model': Ends}\n",
         "the own model sides_model must keep the rules of a base model, was not so, runs: raised SystemExit: 4"),
    ],
)  # fmt: skip
def test_a_layer_that_cannot_run_is_refused_before_any_work(tmp_path, capsys, text, says):
    assert qt("backtest", WORLD, *SMALL, "--layers", write_layers(tmp_path, text), "--out", tmp_path / "run") == 2
    assert re.search(says, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_a_misspelled_name_in_the_file_is_told_before_any_work(tmp_path, capsys):
    file = write_layers(tmp_path, TEXT.replace("models = {", "model = {"))
    assert qt("backtest", WORLD, *SMALL, "--layers", file, "--out", tmp_path / "run") == 2
    assert "was 'sides_model', and mine.py holds no models at its top" in " ".join(capsys.readouterr().err.split())


RAISING = """
import sys
import qtcore as qt
from sides import Sides
models = {'sides_model': Sides}
def judge(votes, planes, params):
    raise %s
"""


@pytest.mark.parametrize(("what", "said"), [("SystemExit(0)", "SystemExit: 0"), ("qt.InputError('mine')", "InputError: mine")])
def test_a_judge_that_raises_or_exits_is_named(tmp_path, capsys, what, said):
    file = write_layers(tmp_path, RAISING % what)
    assert qt("backtest", WORLD, *SMALL, "--layers", file, "--out", tmp_path / "run", "--quiet") == 2
    assert f"judge must return actions and confidences, raised {said}; correct it" in capsys.readouterr().err


def test_an_opener_that_exits_is_named(trained, tmp_path, capsys):
    file = write_layers(tmp_path, TEXT.replace("    return ReplayFeed(", "    raise SystemExit(0)\n    return ReplayFeed("))
    words = ["live", "--models", trained, "--journal", tmp_path / "journal", "--allow-rejected", "--quiet"]
    assert qt(*words, "--feed", "mine:planted_edge", "--layers", file) == 2
    assert "the own feed mine:planted_edge must run without errors, raised SystemExit: 0; correct it" in capsys.readouterr().err


def test_explain_shows_the_own_judge_with_its_file(finished, file, capsys):
    row = pd.read_parquet(finished / "decisions.parquet").iloc[900]
    words = ["explain", finished, row["symbol"], row["close_time"].isoformat()]
    assert qt(*words) == 2
    assert "name mine.py with --layers" in capsys.readouterr().err
    assert qt(*words, "--layers", file, "--json") == 0
    layers = {layer["name"]: layer["says"] for layer in json.loads(capsys.readouterr().out)["layers"]}
    assert layers["own judge"].endswith(f"confidence {row['raw_confidence']:.4f} (0 to 1)")
    assert {"meta layer", "arbiter"}.isdisjoint(layers)


def test_an_empty_name_is_no_folder(capsys):
    assert qt("backtest", WORLD, "--layers", "") == 2
    assert "--layers must be a Python file, was ''; see docs/extending.md" in capsys.readouterr().err


@pytest.mark.parametrize(("n_own", "named", "voted"), [(1, "", 4), (3, "", 5), (3, "lgbm,linear,a", 3)])
def test_linear_model_gives_way_to_a_sixth_voter_and_that_is_said(n_own, named, voted, tmp_path, capsys):
    own = ", ".join(f"{name!r}: Sides" for name in "abc"[:n_own])
    layers = write_layers(tmp_path / "layers", f"from sides import Sides\nmodels = {{{own}}}\n")
    words = ["--layers", layers, "--set", "run.preset=tiny", "--set", "run.folds=2", "--set", "run.meta=none"]
    words += ["--set", f"run.models={named}"] if named else []
    assert qt("backtest", WORLD, *words, "--out", tmp_path / "run") == 0
    shown, run = " ".join(capsys.readouterr().out.split()), read_run(tmp_path / "run")
    assert f"models voting {voted} of {voted}" in shown
    says = "linear is left out: xgb, lgbm, a, b and c take the 5 places of voters; name in run.models who votes to have it"
    assert (says in shown, says in str(run.manifest["notes"]), "linear" in run.voters) == ((voted == 5,) * 2 + (voted != 5,))
