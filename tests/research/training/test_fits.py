"""Is a known fit taken from the store, an unknown or altered one fitted, and does a stopped training go on where it was?"""

import dataclasses
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from research.errors import ModelError
from research.training.models import fits, worker
from research.training.models.imports import imports_of
from research.training.models.schedule import ModelSet
from research.training.predictions import Predictions
from research.training.walk_forward import retrain_fold, train
from tests.conftest import assert_same_bits, awkward_bars

BARS = awkward_bars(600, seed=0, n_symbols=4)
QUICK = {"models": ("xgb", "lgbm"), "n_folds": 2, "processes": 1, "preset": "tiny"}


def quick(bars=BARS, **options) -> Predictions:
    return train(bars, profile="published", **(QUICK | options))


def entries() -> list[Path]:
    return sorted(fits.folder().iterdir())


@pytest.fixture
def no_fit(monkeypatch):
    """Any fit and any worker is a mistake."""

    def refuse(*args, **options):
        raise AssertionError("a known fit was fitted again")

    monkeypatch.setattr(worker, "_fit", refuse)
    monkeypatch.setattr(worker, "_start", refuse)


def same(a: Predictions, b: Predictions) -> None:
    assert_same_bits(a.probs, b.probs)
    assert [x.hash for x in a.models.artefacts] == [x.hash for x in b.models.artefacts]
    passing = {"timestamp", "version"}
    for x, y in zip(a.models.artefacts, b.models.artefacts):
        assert {k: v for k, v in x.meta.items() if k not in passing} == {k: v for k, v in y.meta.items() if k not in passing}


@pytest.mark.parametrize("processes", [1, 2])
def test_a_second_identical_training_fits_nothing(processes, tmp_path, request):
    first = quick(processes=processes)
    assert first.models.n_stored == 0
    assert len(entries()) == 4
    request.getfixturevalue("no_fit")
    seen = []
    again = quick(processes=processes, progress=lambda *report: seen.append(report), out=tmp_path / "models")
    assert again.models.n_stored == 4
    assert seen == [(4, 4, "training: 4 of 4 fits from the store")]
    same(again, first)
    loaded = ModelSet.load(tmp_path / "models")
    assert loaded.notes == ()
    same(dataclasses.replace(again, models=loaded), first)


def test_whatever_a_fit_reads_changes_its_name():
    quick()
    for options in ({"seed": 43}, {"preset": "fast"}, {"max_train_rows": 300}, {"embargo": 0}, {"label": "L3"}, {"weights": "uniqueness"}):
        assert quick(**options).models.n_stored == 0, options
    other = dataclasses.replace(BARS, volume=np.where(np.arange(600)[:, None] == 70, BARS.volume * 2.0, BARS.volume))
    assert quick(other).models.n_stored == 0
    assert quick(models=("lgbm",)).models.n_stored == 2  # nothing of another model is read


def test_later_bars_leave_earlier_folds_known():
    long = awkward_bars(600, seed=0, n_symbols=4)
    assert quick(long[:480], retrain_every=120, train_share=0.5).models.n_stored == 0
    made = quick(long[:560], retrain_every=120, train_share=240.0 / 560.0)
    assert [a.fold for a in made.models.artefacts if a.slot == "xgb"] == [0, 1, 2]
    assert made.models.n_stored == 2 * 1  # the second fold's last labels were not known before


def test_the_code_of_the_models_and_the_libraries_are_part_of_the_name(monkeypatch):
    job = dict.fromkeys(fits.READ, 1) | {"target": "research.training.models.xgboost:XGBoost"}
    name = fits.fit_key(job, "content")
    assert fits.fit_key(job, "other") != name
    monkeypatch.setattr(fits, "_source", lambda target: "edited")
    assert fits.fit_key(job, "content") != name
    monkeypatch.undo()
    monkeypatch.setattr(fits, "machine", lambda: "newer")
    assert fits.fit_key(job, "content") != name
    monkeypatch.undo()
    assert fits.fit_key(job, "content") == name


def own(monkeypatch, target="tests.support.own_models:Sides") -> dict:
    """Put a model of one's own into the free slot."""
    monkeypatch.setattr("research.training.models.base._REGISTRY", {"tft": target})
    return {"models": ("tft",)}


def test_a_model_without_scaler_and_preset_is_stored_saved_and_served(monkeypatch, tmp_path, request):
    first = quick(**own(monkeypatch), out=tmp_path / "models")
    assert first.models.n_stored == 0
    assert not list((tmp_path / "models").rglob("*_scaler.json"))
    request.getfixturevalue("no_fit")
    same(quick(**own(monkeypatch)), first)
    loaded = ModelSet.load(tmp_path / "models")
    assert loaded.notes == ()
    file = loaded.artefacts[0].path
    file.with_name(f"{file.stem}_scaler.json").write_text("{}")  # a file that was not there belongs to no model
    assert "altered" in ModelSet.load(tmp_path / "models").notes[0]


def test_a_model_that_says_what_it_is_is_fitted_again_to_the_same_identity(monkeypatch):
    said = quick(**own(monkeypatch, "tests.support.own_models:SaysWhatItIs")).models
    assert retrain_fold(BARS, said, 1) == said.hashes(1)
    silent = quick(**own(monkeypatch, "tests.support.own_models:NotesTheTime")).models
    assert retrain_fold(BARS, silent, 1) != silent.hashes(1)


OWN = "import sklearn\nfrom own_parts import weights\nclass Mine:\n    def load(self):\n        from own_kit.shapes import size\n"


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A class in a file of its own, which imports a file beside it and, later, one in a package."""
    (tmp_path / "own_kit").mkdir()
    files = {
        "own_class.py": OWN,
        "own_kit/__init__.py": "",
        "own_kit/shapes.py": "size = 1\n",
        "else.py": "",
        "own_parts.py": "weights = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("own_class", "own_parts", "own_kit", "own_kit.shapes"):
        sys.modules.pop(name, None)


def test_a_model_is_known_by_its_own_files_and_the_versions_of_its_libraries(source):
    before = imports_of("own_class")
    assert set(before) == {"own_class", "own_parts", "own_kit", "own_kit.shapes", "sklearn"}
    assert before["sklearn"] == importlib.metadata.version("scikit-learn")
    (source / "else.py").write_text("y = 2\n")
    assert imports_of("own_class") == before
    for name in ("own_class.py", "own_parts.py", "own_kit/__init__.py", "own_kit/shapes.py"):
        (source / name).write_text((source / name).read_text() + "# edited\n")
        after = imports_of("own_class")
        assert [module for module in before if after[module] != before[module]] == [
            name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        ]
        before = after


def test_a_source_that_changed_after_its_import_is_not_taken_for_the_class_in_use(source):
    job = dict.fromkeys(fits.READ, 1) | {"target": "own_class:Mine"}
    assert fits.fit_key(job, "content") == fits.fit_key(job, "content")
    (source / "own_parts.py").write_text("weights = 2\n")
    with pytest.raises(ModelError, match="source of own_class:Mine must be as it was when it was first used here, was changed since"):
        fits.fit_key(job, "content")
    sys.modules.pop("own_class")  # as a new process, or a reload, has it
    assert fits.fit_key(job, "content")


def test_an_altered_or_half_written_entry_is_fitted_again():
    first = quick()
    damages = (
        lambda entry: (entry / "model").write_bytes(b"other"),
        lambda entry: (entry / "scaler.json").unlink(),
        lambda entry: (entry / "entry.json").write_text("{"),
        lambda entry: (entry / "entry.json").write_text((entry / "entry.json").read_text().replace('"n_fit": ', '"n_fit": 1')),
    )
    for entry, damage in zip(entries(), damages, strict=True):
        damage(entry)
    again = quick()
    assert again.models.n_stored == 0
    same(again, first)
    assert quick().models.n_stored == 4
    (entries()[0] / "test.npz").write_bytes(b"")
    assert quick().models.n_stored == 3


def test_an_absent_model_is_known_too(request):
    close = np.where((np.arange(600)[:, None] < 300) & ~np.isnan(BARS.close), 1.02 ** np.arange(600)[:, None] * np.ones(4), BARS.close)
    rising = dataclasses.replace(BARS, open=close, high=close, low=close, close=close)
    first = quick(rising, label="L1", models=("lgbm",))
    assert "without SELL" in first.notes[0]
    request.getfixturevalue("no_fit")
    again = quick(rising, label="L1", models=("lgbm",))
    assert again.models.n_stored == 2
    assert again.notes == first.notes


def test_the_proof_never_reads_the_store(monkeypatch):
    made = quick()
    monkeypatch.setattr(fits, "fetch", lambda *a: pytest.fail("read the store"))
    monkeypatch.setattr(fits, "keep", lambda *a: pytest.fail("wrote the store"))
    assert retrain_fold(BARS, made.models, 1) == made.models.hashes(1)
    assert quick(use_store=False).models.n_stored == 0


def test_the_oldest_leave_when_the_store_is_full():
    quick()
    count, size = fits.usage()
    assert count == 4
    for i, entry in enumerate(entries()):
        for file in entry.iterdir():
            os.utime(file, (1_000_000 + i, 1_000_000 + i))
    kept = entries()[2:]
    (fits.folder() / ".draft").mkdir()  # of a fit that was killed
    removed, freed = fits.trim(sum(f.stat().st_size for e in kept for f in e.iterdir()))
    assert entries() == kept
    assert removed == 3
    assert fits.usage() == (2, size - freed)
    assert fits.trim(0)[0] == 2
    assert fits.usage() == (0, 0)


def test_a_folder_that_cannot_be_written_stops_nothing(monkeypatch, tmp_path):
    (tmp_path / "store").write_text("a file where the folder should be")
    monkeypatch.setenv("QT_HOME", str(tmp_path))
    made = quick()
    assert (made.action[0] >= 0).any()
    assert made.models.n_stored == 0


STOPPED = """
import sys
world = "simulated:random_walk?n_bars=1500&n_symbols=5"
sys.argv = ["qt", "train", world, "--out", sys.argv[1], "--set", "run.models=xgb", "--set", "run.folds=3"]
from research.cli import main
main()
"""


def test_an_interrupt_leaves_finished_fits_and_the_next_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("QT_HOME", str(tmp_path / "home"))
    command = [sys.executable, "-c", STOPPED, str(tmp_path / "models")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p) + os.pathsep + os.getcwd()}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    until = time.monotonic() + 120.0
    while not list(fits.folder().glob("[!.]*/entry.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=30)
    assert process.returncode == 130, error
    assert error.splitlines()[-1].endswith("of 3 fits kept; the same command goes on from there")
    assert "Traceback" not in error
    assert out == ""
    kept = len(list(fits.folder().glob("[!.]*/entry.json")))
    assert 1 <= kept <= 3
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert f"{kept} of 3 fits from the store" in done.stdout
    assert json.loads((tmp_path / "models" / "schedule.json").read_text())["artefacts"]
