"""Does a page that reads part by part show what the whole table says?"""

import numpy as np
import pandas as pd
import pytest

import research
from research.runs.space import Axis
from research.sweep import digest as digest_module
from research.sweep import run as run_module
from research.sweep.digest import Scale, digest
from research.sweep.rules import parse_rules
from tests.support import PUBLISHED

BASE = PUBLISHED.with_values({"broker.max_holding_bars": 5, "governor.max_drawdown": 1.0})
GRID = {"governor.min_confidence": "0.5:0.8", "governor.stop_loss": "0.01:0.10:0.01", "governor.order": "symbols,by_confidence"}
X, Y, Z = GRID


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    bars = research.load_bars("simulated:random_walk?n_bars=500&n_symbols=2&seed=4")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "PART_CELLS", 1)  # parts of 64 rows
        out = tmp_path_factory.mktemp("sweep") / "out"
        return research.sweep(
            bars,
            research.Predictions.random(bars),
            GRID,
            BASE,
            search="random",
            settings=300,
            out=out,
            record=False,
            where=["n_trades > 120"],
        )


def test_a_digest_of_parts_is_that_of_the_table(trials, monkeypatch):
    monkeypatch.setattr(digest_module, "SAMPLE", 50)
    rules = parse_rules(trials.where, trials.columns)
    columns = ["trial", X, Y, Z, "total_return"]
    found, table = digest(trials, columns, ("total_return", -1.0), [(X, Y), (Y, Z)], 7, rules), trials.table()
    assert len(trials.parts) == 5
    worst = table[table["n_trades"] > 120].sort_values("total_return", kind="stable")[columns][:7].reset_index(drop=True)
    pd.testing.assert_frame_equal(found.top, worst)
    drawn = found.sample["trial"].to_numpy()
    assert (drawn // 6).tolist() == list(range(50))  # one of each six
    assert len(set(drawn % 6)) == 6
    assert digest(trials, columns, ("total_return", -1.0), [], 7, rules).sample.equals(found.sample)
    assert found.counts.sum() == 300
    by_order = table.pivot_table(index=Z, columns=Y, values="total_return", aggfunc="mean")
    np.testing.assert_allclose(found.maps[Y, Z], by_order.to_numpy(), rtol=1e-12)
    bins = np.clip(((table[X] - 0.5) / 0.3 * 8).astype(int), 0, 7)
    means = table.groupby([table[Y], bins])["total_return"].mean()
    for (stop, place), mean in means.items():
        assert found.maps[X, Y][found.scales[Y].places.index(stop), place] == pytest.approx(mean, rel=1e-9)
    assert np.isfinite(found.maps[X, Y]).sum() == len(means)


def test_the_sample_does_not_keep_step_with_a_grid(trials, monkeypatch):
    monkeypatch.setattr(digest_module, "SAMPLE", 10)
    grid = {"governor.min_confidence": "0.5:0.59:0.01", "arbiter.score_threshold": "0.1:0.19:0.01"}
    found = research.sweep(trials.case.bars, research.Predictions.random(trials.case.bars), grid, BASE, record=False)
    sample = digest(found, [*grid, "sharpe"], ("sharpe", 1.0), [], 1).sample
    assert sample["governor.min_confidence"].nunique() == 10
    assert sample["arbiter.score_threshold"].nunique() > 3  # a stride of ten would show one


def test_scales_hold_values_or_bins():
    few = Scale.of(Axis(Y, (0.3, 0.1, 0.2)), [0.3, 0.1, 0.2], 9)
    assert few.places == [0.1, 0.2, 0.3]
    assert few.code(pd.Series([0.3, 0.1, 0.3])).tolist() == [2, 0, 2]
    words = Scale.of(Axis(Z, ("symbols", "by_confidence")), ["symbols", "by_confidence"], 9)
    assert words.code(pd.Series(["symbols", "by_confidence"])).tolist() == [1, 0]
    switch = Scale.of(Axis("meta.enabled", (True, False)), [True, False], 9)
    assert switch.code(pd.Series([True, False, True])).tolist() == [1, 0, 1]
    many = [i / 1000 for i in range(601)]
    binned = Scale.of(Axis(X, tuple(many)), many, 1_000_000)
    assert [len(Scale.of(Axis(X, (), 0.0, 1.0), (), n)) for n in (10, 500, 10**6)] == [8, 10, 60]
    assert len(binned) == 60
    assert binned.code(pd.Series([0.0, 0.005, 0.5999, 0.6])).tolist() == [0, 0, 59, 59]
