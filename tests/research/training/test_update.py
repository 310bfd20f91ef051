"""Does a training go on with the bars since, and is nothing fitted again that has not changed?"""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import research
from research.cli.app import app
from research.cli.common import guarded
from research.data import load_bars
from research.data.frames import save_bars
from research.errors import UserError
from research.evidence.envelope import FILE
from research.training.models.artefacts import FOREVER
from research.training.models.schedule import ModelSet
from research.training.predictions import Predictions
from research.training.update import update
from tests.conftest import assert_same_bits
from tests.support import FLAG

BARS = load_bars("simulated:random_walk?n_bars=760&n_symbols=3")
FIRST, SECOND = 600, 680


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("update") / "models"
    os.environ["QT_HOME"] = str(folder.with_name("home"))
    research.train(BARS[:FIRST], models=("lgbm",), n_folds=2, processes=1, preset="tiny", out=folder, profile="published")
    return folder


@pytest.fixture
def known(trained, tmp_path, monkeypatch) -> Path:
    """The training, with the store of fits as it left it."""
    monkeypatch.setenv("QT_HOME", str(shutil.copytree(trained.with_name("home"), tmp_path / "home")))
    return trained


def test_an_update_fits_one_fold_and_keeps_the_others(known):
    before = ModelSet.load(known)
    made = update(BARS[:SECOND], before)
    after = made.models
    assert after.n_stored == 2
    assert [a.hash for a in after.artefacts[:2]] == [a.hash for a in before.artefacts]
    assert [(a.valid_from, a.valid_until) for a in after.artefacts] == [
        (before.artefacts[0].valid_from, before.artefacts[0].valid_until),
        (before.artefacts[1].valid_from, int(BARS.close_time[FIRST])),
        (int(BARS.close_time[FIRST]), FOREVER),
    ]
    assert after.artefacts[2].meta["split"]["close_time"]["test"] == [int(BARS.close_time[FIRST]), int(BARS.close_time[SECOND - 1])]
    earlier = Predictions.from_models(before, BARS[:FIRST])
    assert_same_bits(made.probs[:, :FIRST], earlier.probs, "predictions of earlier folds")
    assert made.fold[FIRST:].tolist() == [2] * (SECOND - FIRST)
    fit = after.artefacts[2].meta["split"]["close_time"]["valid"]
    assert fit[1] < int(BARS.close_time[FIRST])  # nothing since trains the fold that is scored on it


def test_updates_follow_one_another(known):
    twice = update(BARS, update(BARS[:SECOND], ModelSet.load(known)).models)
    assert twice.models.n_stored == 3
    assert len(twice.models.artefacts) == 4
    again = update(BARS, update(BARS[:SECOND], ModelSet.load(known)).models)
    assert (again.models.n_stored, again.models.hashes(3)) == (4, twice.models.hashes(3))


def test_the_newest_fold_knows_nothing_of_what_it_is_scored_on(known):
    rng = np.random.default_rng(0)
    planes = {name: getattr(BARS, name).copy() for name in ("open", "high", "low", "close", "volume")}
    factor = np.exp(np.cumsum(rng.normal(0.0, 0.02, (BARS.n - FIRST, 3)), axis=0))
    for name in ("open", "high", "low", "close"):
        planes[name][FIRST:] *= factor
    other = type(BARS)(BARS.open_time, BARS.close_time, **planes, symbols=BARS.symbols, interval=BARS.interval)
    one, two = (update(bars[:SECOND], ModelSet.load(known)) for bars in (BARS, other))
    assert one.models.hashes(2) == two.models.hashes(2)
    assert not np.array_equal(one.probs[:, FIRST:], two.probs[:, FIRST:], equal_nan=True)


def test_a_changed_history_is_fitted_again(known):
    planes = {name: getattr(BARS, name).copy() for name in ("open", "high", "low", "close", "volume")}
    planes["volume"][100] *= 1.5
    changed = type(BARS)(BARS.open_time, BARS.close_time, **planes, symbols=BARS.symbols, interval=BARS.interval)
    assert update(changed[:SECOND], ModelSet.load(known)).models.n_stored == 0


def test_too_little_and_missing_history_are_told(known):
    models = ModelSet.load(known)
    with pytest.raises(UserError, match=r"must get at least 11 bars after .*, was 4; wait for more"):
        update(BARS[: FIRST + 4], models)
    with pytest.raises(UserError, match="was without those from"):
        update(BARS[50:SECOND], models)


def test_the_command_updates_the_folder_in_place(tmp_path, capsys):
    for name, bars in (("old", BARS[:FIRST]), ("new", BARS[:SECOND])):
        save_bars(bars, tmp_path / f"{name}.parquet")
    folder = tmp_path / "m"

    def run(name: str, *words: str, out: Path = folder) -> int:
        return guarded(lambda: app(["train", FLAG, str(tmp_path / f"{name}.parquet"), "--out", str(out), *words], standalone_mode=False))

    assert run("old", "--set", "run.models=lgbm", "--set", "run.preset=tiny", "--set", "run.folds=2") == 0
    first = json.loads((folder / FILE).read_text())
    assert run("new", "--update") == 0
    assert "2 of 3 fits from the store" in capsys.readouterr().out
    assert len(ModelSet.load(folder).artefacts) == 3
    assert json.loads((folder / FILE).read_text())["bars"] == first["bars"] + SECOND - FIRST
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []
    assert run("old", "--update") == 2
    assert "wait for more" in capsys.readouterr().err
    assert len(ModelSet.load(folder).artefacts) == 3
    assert run("old", "--update", out=tmp_path / "none") == 2
