"""Does the registry hand out whole models only, go forward and back in one step, and keep bad ones from money?"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from research.cli.app import app
from research.cli.common import guarded
from research.data.frames import save_bars
from research.errors import UserError
from research.training import registry
from research.training.models.artefacts import FOREVER
from research.training.models.folder import meta_path
from research.training.models.schedule import ModelSet
from research.training.predictions import Predictions
from research.training.walk_forward import train
from research.workflow.backtest_job import Job, run_job
from tests.conftest import assert_same_bits, awkward_bars
from tests.support.as_published import CONFIG

BARS = awkward_bars(600, seed=0, n_symbols=4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder as `qt train` leaves it: two models, two folds."""
    folder = tmp_path_factory.mktemp("trained") / "base"
    train(BARS, models=("xgb", "lgbm"), n_folds=2, processes=1, preset="tiny", out=folder, profile="published")
    return folder


@pytest.fixture
def copy(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "base"))


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes, indent=1, sort_keys=True))


def file_of(folder: Path, slot: str, fold: int) -> Path:
    (found,) = (a.path for a in ModelSet.load(folder).artefacts if (a.slot, a.fold) == (slot, fold))
    return found


def test_versions_go_forward_and_back(trained):
    first = registry.promote(trained)
    assert (first.name, first.version) == ("base", 1)
    second = registry.promote(trained, "base")
    assert (second.version, second.versions) == (2, [1, 2])
    assert not (second.path / "predictions.parquet").exists()
    assert registry.resolve("base") == second.path
    assert registry.resolve("base@1") == first.path
    assert registry.resolve(trained) == trained
    back = registry.rollback("base")
    assert (back.version, registry.resolve("base")) == (1, first.path)
    assert [step["what"].split()[0] for step in back.history] == ["promoted", "promoted", "rolled"]
    with pytest.raises(UserError, match="base must have an earlier version to go back to, was at 1, its first"):
        registry.rollback("base")
    assert registry.promote(trained, "base").version == 3  # what was left behind stays
    assert [entry.name for entry in registry.entries()] == ["base"]
    assert not list(registry.registry_folder().rglob(".*"))  # no drafts


def test_a_version_is_spelled_in_one_way_by_every_command(trained, capsys):
    def qt(*words):
        code = guarded(lambda: app(["models", *words], standalone_mode=False))
        return code, "".join(capsys.readouterr())

    for _ in range(3):
        registry.promote(trained, "mine")
    code, shown = qt("show", "mine@1", "--json")
    assert (code, json.loads(shown)["version"], json.loads(shown)["current"]) == (0, 1, 3)
    assert json.loads(shown)["folder"] == str(registry.resolve("mine@1"))
    code, said = qt("rollback", "mine@1")
    assert (code, registry.find("mine").version) == (0, 1)
    assert "mine is now version 1" in said
    code, said = qt("rollback", "mine@2")
    assert (code, registry.find("mine").version) == (2, 1)
    assert "mine must have an earlier version to go back to, was at 1, its first" in said
    code, said = qt("promote", "mine@2")
    assert (code, registry.find("mine").version) == (0, 4)
    assert registry.describe(registry.find("mine"))["history"][-1]["what"] == f"promoted from {registry.resolve('mine@2')}"
    code, said = qt("rollback", "mine@4")
    assert code == 2
    assert "mine must go back to a version before the current 4, was 4; `qt models promote` goes forward" in said
    for word in ("mine@9", "mine@x", "mine@"):
        code, said = qt("show", word)
        assert code == 2
        assert f"version of mine must be one of 1, 2, 3, 4, was {word.partition('@')[2]!r}" in said
    code, said = qt("promote", str(trained), "--as", "mine@1")
    assert code == 2
    assert "name (--as) must consist of letters" in said
    assert "was 'mine@1'" in said


def test_a_version_answers_like_what_was_promoted(trained):
    entry = registry.promote(trained, "copy")
    shown, own = (Predictions.from_models(folder, BARS) for folder in (entry.path, trained))
    assert_same_bits(shown.probs, own.probs)
    facts = registry.describe(entry)
    assert facts["models"] == ["xgb", "lgbm"]
    assert (facts["label"], facts["artefacts"], facts["synthetic"], facts["problems"]) == ("L1", 4, False, [])
    assert facts["data_from"] < facts["data_to"]
    assert set(facts["balanced_accuracy"]) == {"xgb", "lgbm"}
    assert registry.promote(trained, "elsewhere", trained.parent / "other").folder == trained.parent / "other" / "elsewhere"


def test_a_set_that_live_refuses_is_promoted_with_the_reason(trained, tmp_path, capsys):
    serving = [a.meta["status"] for a in ModelSet.load(trained).artefacts if a.valid_until == FOREVER]
    assert serving == ["unskilled", "unskilled"]  # a random walk teaches nothing
    constant = with_meta(ModelSet.load(trained), status="rejected", warnings=["rejected: it says HOLD"]).save(tmp_path / "constant")
    assert guarded(lambda: app(["models", "promote", str(tmp_path / "constant"), "--as", "weak", "--quiet"], standalone_mode=False)) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(registry.find("weak").path)
    assert "warning: `qt live` will refuse version 1: " in err
    assert "must be accepted to go live, was not: rejected: " in err
    assert f"(accepted: 0 of {len(constant.artefacts)} models)" in err
    assert registry.describe(registry.find("weak"))["live_refuses"] in err.replace("\n", " ")
    assert guarded(lambda: app(["models", "list"], standalone_mode=False)) == 0
    assert "not for live" in capsys.readouterr().out
    good = with_meta(ModelSet.load(trained)).save(tmp_path / "good")
    assert all(a.meta["status"] == "accepted" for a in good.artefacts)
    assert guarded(lambda: app(["models", "promote", str(tmp_path / "good")], standalone_mode=False)) == 0
    assert "warning" not in capsys.readouterr().err
    assert registry.describe(registry.find("good"))["live_refuses"] is None


DAMAGES = {
    "half-written": (lambda d: (d / "schedule.json").unlink(), "must be a finished folder of `qt train`"),
    "older schema": (lambda d: edit(d / "schedule.json", schema_version=1), "must be of schema version 2, was 1; train again"),
    "altered schedule": (lambda d: edit(d / "schedule.json", notes=["fine"]), "must be as the training wrote it, was altered"),
    "damaged schedule": (lambda d: (d / "schedule.json").write_text("{"), "must be a schedule as `qt train` writes it, was no JSON"),
    "altered model": (lambda d: file_of(d, "xgb", 1).write_bytes(b"x"), r"must have the hash \w{12} of its schedule, was altered"),
    "missing scaler": (lambda d: next(d.rglob("lightgbm*_scaler.json")).unlink(), "was altered, or its scaler is gone; train again"),
    "praised metadata": (
        lambda d: edit(meta_path(file_of(d, "lgbm", 0)), status="accepted", x=1),
        "_meta.json must be as the training wrote",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_models_are_refused_with_a_sentence(name, copy):
    damage, sentence = DAMAGES[name]
    damage(copy)
    with pytest.raises(UserError, match=sentence):
        registry.promote(copy)
    with pytest.raises(UserError, match=sentence.replace("must be a finished folder of `qt train`", "schedule|valid|whole|accepted")):
        registry.load_for_live(copy)
    assert registry.entries() == []


def with_meta(models: ModelSet, **changes) -> ModelSet:
    made = tuple(replace(a, meta={**a.meta, "status": "accepted", **changes}, meta_hash="") for a in models.artefacts)
    return ModelSet(made, models.feature_names, models.config)


def test_other_features_and_other_code_are_refused(trained):
    models = ModelSet.load(trained)
    turned = ModelSet(models.artefacts, models.feature_names[::-1], models.config)
    assert all("in another order" in why for why in turned.check())
    assert len(turned.check()) == 4
    with pytest.raises(UserError, match=r"must have the features .* was in another order"):
        registry.load_for_live(turned)
    with pytest.raises(
        UserError, match=r"xgb must be of the registered class research.training.models.xgboost:XGBoost, was os:system; register it first"
    ):
        registry.load_for_live(with_meta(models, target="os:system"))


def test_only_accepted_models_of_real_labels_go_live(trained):
    models = ModelSet.load(trained)
    assert registry.load_for_live(with_meta(models)).slots == ("xgb", "lgbm")
    for status in ("rejected", "of an earlier release"):
        with pytest.raises(UserError, match=r"xgb must be accepted to go live, was not: .*; train another or pass --allow-rejected$"):
            registry.load_for_live(with_meta(models, status=status))
    assert registry.load_for_live(with_meta(models, status="rejected"), allow_rejected=True)
    unskilled = with_meta(models, status="unskilled")
    assert registry.unfit(registry.load_for_live(unskilled, may_advise=True)) == {"unskilled": ["xgb", "lgbm"]}
    with pytest.raises(UserError, match=r"pass --allow-rejected; where decide.rule is edge it advises and does not trade"):
        registry.load_for_live(unskilled)
    assert registry.load_for_live(unskilled, allow_rejected=True)
    with pytest.raises(UserError, match="xgb must be trained on real labels to go live, was synthetic; pass --allow-synthetic"):
        registry.load_for_live(with_meta(models, synthetic=True))
    assert registry.load_for_live(with_meta(models, synthetic=True), allow_synthetic=True)
    ended = ModelSet(tuple(a for a in models.artefacts if a.fold == 0), models.feature_names, models.config)
    with pytest.raises(UserError, match="must have an artefact that is still valid"):
        registry.load_for_live(ended)


def test_registry_tells_a_mistake_in_a_sentence(trained, tmp_path):
    with pytest.raises(UserError, match=r"must be a name in the registry .* \(none\), was 'absent'; put it there with `qt models promote`"):
        registry.resolve("absent")
    with pytest.raises(UserError, match="must be a folder that `qt train` wrote or a name in the registry, was 'no/folder'"):
        registry.resolve("no/folder")
    with pytest.raises(UserError, match=r"name \(--as\) must consist of letters, .* was '\.\./up'; give another with --as"):
        registry.promote(trained, "../up")
    entry = registry.promote(trained, "base")
    with pytest.raises(UserError, match="version of base must be one of 1, was '7'"):
        registry.resolve("base@7")
    (entry.folder / "current.json").write_text("{")
    with pytest.raises(UserError, match=r"current.json must be the pointer of a registry to a version, was no JSON"):
        registry.resolve("base")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="registry must be writable, was not"):
        registry.promote(trained, "base", tmp_path / "file")


def test_a_backtest_takes_a_name(trained, tmp_path):
    registry.promote(trained, "base")
    data = tmp_path / "bars.parquet"
    save_bars(BARS, data)
    run = run_job(Job(str(data), CONFIG, models=Path("base"), out=tmp_path / "run"), verify=False, report=False)
    assert_same_bits(run.predictions.probs, Predictions.from_models(trained, BARS).probs)
    assert registry.promote(tmp_path / "run", "again").version == 1  # a run's folder holds its models


def test_qt_models_lists_promotes_shows_and_rolls_back(trained, capsys):
    def qt(*words: str) -> str:
        app(["models", *words], standalone_mode=False)
        return capsys.readouterr().out

    assert "no models yet" in qt("list")
    assert qt("promote", str(trained), "--as", "mine").startswith("mine is now version 1; use it with --models mine\n")
    qt("promote", str(trained), "--as", "mine", "--quiet")
    assert json.loads(qt("list", "--json"))[0]["version"] == 2
    assert "mine" in qt("list")
    assert qt("rollback", "mine").startswith("mine is now version 1\n")
    shown = qt("show", "mine")
    assert "rolled back from 2" in shown
    assert json.loads(qt("show", "mine", "--json"))["versions"] == [1, 2]
    assert "0 left (0 MiB)" in qt("clean")
