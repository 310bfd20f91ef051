"""Do models read the families that `features.sets` names, in training, proof and page?"""

import numpy as np
import pytest

import research
from qtcore import FEATURE_SETS, InputError
from tests.support import PUBLISHED

SETS = ("v5_rel", "volatility", "clock", "range", "cross_section", "market", "flow")


def test_models_read_the_sets_that_are_named_and_the_run_is_proven(tmp_path):
    bars = research.load_bars("simulated:random_walk?n_bars=2400&n_symbols=5&seed=2")
    params = PUBLISHED.with_values({"features.sets": SETS})
    made = research.train(bars, ("lgbm",), "L1", params, preset="tiny", n_folds=2)
    assert made.models.feature_names == tuple(name for key in SETS for name in FEATURE_SETS[key])
    assert (made.action >= 0).any(axis=0).mean() > 0.5
    run = research.backtest(bars, made, params)
    run.save(tmp_path / "run", record=False)
    assert {check["id"] for check in run.verify()["checks"] if not check["passed"]} == set()
    page = research.load_run(tmp_path / "run").report(tmp_path / "page.html").read_text()
    assert " ".join(SETS) in page
    assert np.isfinite(run.result.equity).all()


def test_a_set_across_symbols_is_refused_before_the_training():
    bars = research.load_bars("simulated:random_walk?n_bars=600&n_symbols=3")
    with pytest.raises(InputError, match=r"features\.sets may hold market for 5 symbols or more, was for 3"):
        research.train(bars, ("lgbm",), "L1", PUBLISHED.with_values({"features.sets": "v5_rel,market"}), preset="tiny")
