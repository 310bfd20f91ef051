"""Does a process that does nothing but trade leave out what only training needs, and decide the same?"""

import gc
import json
import re
import subprocess
import sys

import pytest

import research
from research.data import load_bars
from research.errors import UserError
from research.live.session.fast_start import quiet_heap
from research.live.start import LiveOptions
from research.training.models.schedule import Artefact, ModelSet
from research.training.registry import check_live, load_for_live
from tests.support.as_published import CONFIG
from tests.support.live_market import content, run_live

WORLD = "simulated:random_walk?n_bars=260&n_symbols=2"
ALONE = """
import json, sys
from research.live.session.fast_start import import_lean
from tests.support.live_measure import measure

told = measure(json.loads(sys.argv[1]))
print(json.dumps([told["bars"], *(name in sys.modules for name in ("xgboost", "lightgbm", "sklearn"))]))
import_lean(("xgb", "lgbm"))
from sklearn.linear_model import LogisticRegression
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two kinds of trees, two folds each."""
    folder = tmp_path_factory.mktemp("lean") / "models"
    research.train(load_bars(WORLD), models=("xgb", "lgbm"), preset="tiny", n_folds=2, use_store=False, profile="published").models.save(
        folder
    )
    return folder


def test_without_scikit_learn_every_bit_is_the_same(trained, tmp_path):
    said = {"feed": f"replay:{WORLD}", "journal": str(tmp_path / "alone"), "models": str(trained)}
    done = subprocess.run([sys.executable, "-c", ALONE, json.dumps(said)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [260, True, True, False]
    run_live(LiveOptions(f"replay:{WORLD}", tmp_path / "beside", CONFIG, models=str(trained), allow_rejected=True, allow_synthetic=True))
    alone = content(tmp_path / "alone")
    assert len(alone["bars"]) == 260
    assert alone == content(tmp_path / "beside")


def test_the_heap_is_left_alone_until_the_first_bar_and_given_back():
    before = gc.get_freeze_count()
    with quiet_heap() as settle:
        assert not gc.isenabled()
        settle()
        assert gc.isenabled()
        assert gc.get_freeze_count() > before + 10_000
    assert (gc.isenabled(), gc.get_freeze_count()) == (True, 0)
    with pytest.raises(UserError), quiet_heap():
        raise UserError("refused")
    assert gc.isenabled()


def test_going_live_opens_every_artefact_once_and_refuses_a_damaged_one(trained, tmp_path, monkeypatch):
    opened = []
    load = Artefact.load
    monkeypatch.setattr(Artefact, "load", lambda artefact: opened.append(artefact.path) or load(artefact))
    models = load_for_live(trained, allow_rejected=True, allow_synthetic=True)
    assert sorted(opened) == sorted(a.path for a in models.artefacts)
    models.artefacts[0].path.write_bytes(b"{}")
    with pytest.raises(UserError, match="models must be whole to go live"):
        load_for_live(trained, allow_rejected=True, allow_synthetic=True)
    gone = models.serving[0]
    gone.path.unlink()  # as of a meta layer, which may lack models that serve no more
    with pytest.raises(UserError, match=f"^{gone.slot} must be whole to go live, was not: .* must have the file .*; train again$"):
        check_live(ModelSet.load(trained, is_checked=False), True, True, True)
    lost = rf"^models must have all their files to be kept, were without 1 of \d+: {re.escape(str(gone.path))}; train again$"
    with pytest.raises(UserError, match=lost):
        models.save(tmp_path / "copy")
