"""Does the audit find leakage where it was planted, none where there is none, and never anywhere but in itself?"""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from qtcore.types import Bars
from research.cli.app import app
from research.data import simulate
from research.errors import UserError
from research.evidence.leakage import SPLITS, audit_leakage, shuffled_probs
from research.training.models.inputs import Inputs


@pytest.fixture(scope="module")
def walks() -> Bars:
    return simulate("random_walk", n_bars=900, n_symbols=3, seed=3)


@pytest.fixture(scope="module")
def found(walks):
    return audit_leakage(walks, "lgbm", features=("v5",), n_folds=2)


def test_overlapping_labels_and_raw_prices_make_skill_out_of_noise(found):
    assert [row["split"] for row in found.rows] == list(SPLITS)
    shuffled, honest = found.rows
    assert shuffled["n"] == honest["n"] > 300
    assert shuffled["majority_accuracy"] == honest["majority_accuracy"]
    assert shuffled["volatility_accuracy"] == honest["volatility_accuracy"] > 0.3
    gap = found.gaps["v5"]
    assert gap["accuracy"]["difference"] == pytest.approx(shuffled["accuracy"] - honest["accuracy"])
    assert gap["balanced_accuracy"]["ci95"][0] > 0.0
    assert gap["direction_accuracy"]["ci95"][0] > 0.0
    low, high = honest["direction_ci95"]
    assert low < 0.5 < high


def test_the_sentence_says_what_the_shuffled_split_would_claim(found):
    (text,) = found.sentences
    assert text.startswith("lgbm on v5 features and label L3: a shuffled split scores ")
    assert "the most frequent label scores" in text
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["sentences"] == [text]


def test_the_same_seed_gives_the_same_figures(walks, found):
    assert audit_leakage(walks, "lgbm", features=("v5",), n_folds=2).to_dict() == found.to_dict()


def test_what_cannot_leak_does_not():
    """Independent features and labels of independent cells: shuffling finds nothing either."""
    rng = np.random.default_rng(0)
    inputs = Inputs(("a", "b"), rng.normal(size=(1_200, 2, 2)).astype(np.float32), rng.random((2, 1_200, 2)))
    labels = rng.integers(0, 3, (1_200, 2)).astype(np.int8)
    labels[:100] = -1
    probs = shuffled_probs(inputs, labels, "lgbm", 1)
    at = ~np.isnan(probs[..., 0])
    assert at.sum() == pytest.approx(0.25 * 1_100 * 2, abs=1)
    assert not at[:100].any()
    assert (probs[at].argmax(axis=-1) == labels[at]).mean() == pytest.approx(1 / 3, abs=0.07)


def test_unknown_features_and_models_with_windows_are_refused(walks):
    with pytest.raises(UserError, match=r"features must be among v5_rel, v5, v5_trained, was v9"):
        audit_leakage(walks, features=("v9",))
    empty = Inputs(("a",), np.zeros((10, 1, 1), np.float32), np.zeros((2, 10, 1)))
    with pytest.raises(UserError, match="must look at one row, was nhits"):
        shuffled_probs(empty, np.zeros((10, 1), np.int8), "nhits", 1)


def test_the_command_prints_table_and_sentence_and_writes_json(tmp_path, monkeypatch):
    monkeypatch.setenv("QT_HOME", str(tmp_path / "home"))
    out = tmp_path / "audit.json"
    arguments = [
        "audit",
        "leakage",
        "simulated:random_walk?n_bars=600&n_symbols=2",
        "--model",
        "lgbm",
        "--preset",
        "tiny",
        "--folds",
        "1",
        "--out",
        str(out),
    ]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "140"})
    assert done.exit_code == 0, done.output
    for text in (*SPLITS, "majority", "volatility", "balanced", "direction", "a shuffled split scores"):
        assert text in done.output
    assert json.loads(out.read_text(encoding="utf-8"))["model"] == "lgbm"
    refused = CliRunner().invoke(app, [*arguments, "--features", "none"])
    assert isinstance(refused.exception, UserError)
