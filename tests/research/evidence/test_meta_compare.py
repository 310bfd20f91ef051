"""Is a meta layer that knows more found better than the base models, one that knows nothing not, on the same cells?"""

import json

import numpy as np
import pytest

from qtcore import Params
from research import backtest
from research.data import simulate
from research.errors import UserError
from research.evidence.meta_comparison import VARIANTS, best_variant, compare, walk_forward_probs
from research.evidence.meta_trials import try_on_run
from research.report import build
from research.training.predictions import Predictions
from tests.conftest import assert_same_bits
from tests.support import PUBLISHED

PLAIN = {
    "plain": {"calibration": "none"},
    "per symbol": {"calibration": "none", "per_symbol": True},
    "longer": {"calibration": "none", "horizon": 12},
}


@pytest.fixture(scope="module")
def bars():
    return simulate("random_walk", n_bars=1500, n_symbols=2)


def test_noise_beats_nobody_and_all_count_on_the_same_cells(bars):
    table = compare(bars, Predictions.random(bars, seed=1), PUBLISHED, variants=PLAIN)
    assert list(table.index) == ["xgb", "lgbm", "nhits", "patchtst", "ensemble", *PLAIN]
    assert table["n"].nunique() == 1
    assert (table["low"] <= table["balanced_accuracy"]).all()
    assert (table["balanced_accuracy"] <= table["high"]).all()
    assert table.loc["ensemble", "minus_ensemble"] == 0.0
    assert (table.loc[list(PLAIN), "entropy"] > 0.9).all()
    assert "does not beat both" in best_variant(table)


def test_a_meta_layer_that_turns_a_contrarian_round_is_found_better(bars):
    """Two models that are wrong in a known way: BUY where SELL is right; only a learned layer can use them."""
    noise = Predictions.random(bars, seed=2, models=("xgb", "lgbm"))
    probs, rng = noise.probs.copy(), np.random.default_rng(3)
    truth = np.where(rng.random(noise.labels.shape) < 0.8, noise.labels, 1)
    wrong = np.choose(np.maximum(truth, 0), [2, 1, 0])
    for m in (0, 1):
        t, s = np.nonzero(~np.isnan(probs[m, ..., 0]))
        probs[m, t, s] = 0.1
        probs[m, t, s, wrong[t, s]] = 0.8
    contrary = Predictions.from_probs(bars, probs, noise.fold, noise.labels, noise.label, imported=True)
    table = compare(bars, contrary, PUBLISHED, variants={"plain": {"calibration": "none"}})
    assert table.loc["plain", "minus_best_low"] > 0.2
    assert "beats both the best base model and the ensemble" in best_variant(table)


def test_layers_learn_sides_where_opinions_have_a_price_too(bars):
    made = Predictions.random(bars, seed=1)
    for vector in ("meta26", "bet30", "bet35"):
        assert vector in {"meta26", *(variant.get("vector") for variant in VARIANTS.values())}
        asked = {"vector": vector, "calibration": "none"}
        published, priced = (walk_forward_probs(bars, made, params, asked, 42) for params in (PUBLISHED, Params()))
        assert_same_bits(published, priced)


def test_what_cannot_be_trained_is_named(bars):
    preds = Predictions.random(bars, seed=1, models=("xgb", "lgbm"))
    few = simulate("random_walk", n_bars=400, n_symbols=1)
    table = compare(bars, preds, PUBLISHED, variants={"plain": {}, "odd": {"kind": "forest", "calibration": "platt"}})
    assert "for kind forest, was 'platt'" in table.attrs["absent"]["odd"]
    with pytest.raises(UserError, match="must hold votes of a base model"):
        compare(bars, Predictions.random(bars, seed=1, models=()), variants={})
    assert "plain" in compare(few, Predictions.random(few, seed=1), PUBLISHED, variants={"plain": {}}).attrs["absent"]


def test_what_was_tried_on_a_run_stands_in_its_folder_and_report(bars, tmp_path):
    folder = backtest(bars, Predictions.random(bars, seed=1, models=("xgb", "lgbm")), PUBLISHED).save(tmp_path / "run", record=False)
    kept = try_on_run(folder, PLAIN | {"odd": {"kind": "forest", "calibration": "platt"}})
    stored = json.loads((folder / "meta_tried.json").read_text())
    assert stored["rows"]["plain"]["balanced_accuracy"] == pytest.approx(kept.loc["plain", "balanced_accuracy"], abs=1e-9)
    assert "odd" in stored["absent"]
    page = build(folder).read_text()
    assert "Meta layers tried" in page
    assert stored["sentence"].split(":")[0] in page
    assert "not trained because" in page
