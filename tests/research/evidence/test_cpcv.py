"""Does combinatorial cross-validation give the paths of the literature, each out of sample, and tell skill from none?"""

import json
from itertools import combinations

import numpy as np
import pytest

import research
from research.cli.app import app
from research.cli.common import guarded
from research.errors import UserError
from research.evidence.cpcv import Paths, audit_cpcv
from research.training.splits import combinatorial, paths
from tests.support import FLAG, PUBLISHED

FREE = PUBLISHED.with_values(
    {"governor.max_drawdown": 1.0, "governor.min_confidence": 0.4, "broker.fee_rate": 0.0, "broker.slippage_rate": 0.0}
)


@pytest.mark.parametrize(("n_groups", "n_test"), [(10, 2), (6, 2), (5, 3), (4, 1)])
def test_paths_are_those_of_the_definition(n_groups, n_test):
    """C(N, k) splits and k / N of them a group, hence C(N, k) k / N paths; a path tests every group once, no split's group twice."""
    splits = list(combinations(range(n_groups), n_test))
    found = paths(n_groups, n_test)
    assert found.shape == (len(splits) * n_test // n_groups, n_groups)
    used = [(int(split), g) for path in found for g, split in enumerate(path)]
    assert all(g in splits[split] for split, g in used)
    assert len(set(used)) == len(used) == len(splits) * n_test
    assert [path[0] for path in found] == sorted(path[0] for path in found)  # the first path takes the first split of each group, and so on


def test_ten_groups_two_tested_are_forty_five_fits_and_nine_paths():
    assert len(combinatorial(np.arange(500) + 3)) == 45
    assert paths().shape == (9, 10)


@pytest.mark.slow
def test_a_planted_edge_shows_on_every_path_and_noise_on_none():
    edge = audit_cpcv(research.load_bars("simulated:planted_edge?n_bars=3000&n_symbols=3"), "lgbm", params=FREE, n_groups=5)
    noise = audit_cpcv(research.load_bars("simulated:random_walk?n_bars=3000&n_symbols=3"), "lgbm", params=FREE, n_groups=5)
    assert edge.spread("sharpe")["lowest"] > 0.5
    assert noise.spread("sharpe")["lowest"] < 0.5
    assert edge.spread("sharpe")["lowest"] > noise.spread("sharpe")["highest"]  # accuracies of worlds with other shares of HOLD say nothing


def test_every_cell_of_a_path_is_tested_once_and_the_spread_is_told(tmp_path, capsys):
    out = tmp_path / "cpcv.json"
    words = ["audit", "cpcv", "simulated:random_walk?n_bars=700&n_symbols=2", "--model", "lgbm", "--groups", 4, "--out", out]
    words += [FLAG, "--set", "governor.min_confidence=0.4", "--set", "governor.max_drawdown=1.0"]
    assert guarded(lambda: app(list(map(str, words)), standalone_mode=False)) == 0
    told = " ".join(capsys.readouterr().out.split())
    found = json.loads(out.read_text())
    assert (found["fits"], len(found["paths"])) == (6, 3)
    assert found["sentence"] in told
    assert len({row["n"] for row in found["paths"]}) == 1
    assert found["paths"][0]["n"] > 1_000
    ratios = sorted(row["sharpe"] for row in found["paths"])
    assert [found["spread"]["sharpe"][name] for name in ("lowest", "median", "highest")] == pytest.approx(ratios)


def test_paths_of_opinions_in_money_have_a_price():
    """The first periods know too little, so what a path earns comes of maps that were fitted on it before."""
    found = audit_cpcv(research.load_bars("simulated:reversion?n_bars=3000&n_symbols=4"), "lgbm", "L1", n_groups=4, preset="tiny")
    assert all(row["n_trades"] > 50 for row in found.rows)


def test_what_cannot_be_split_is_one_sentence():
    bars = research.load_bars("simulated:random_walk?n_bars=300&n_symbols=2")
    with pytest.raises(UserError, match=r"splits must have 1 <= n_test \(--tested\) < n_groups"):
        audit_cpcv(bars, "lgbm", n_groups=3, n_test=3)
    with pytest.raises(UserError, match=r"model \(--model\) must look at one row, was patchtst"):
        audit_cpcv(bars, "patchtst", n_groups=3)


def test_paths_without_trades_and_absurd_ones_are_said():
    row = {"accuracy": 0.4, "total_return": 0.0, "max_drawdown": 0.0, "n_trades": 0.0}
    config = {"model": "xgb", "label": "L3", "fits": 45}
    assert Paths([row | {"sharpe": np.nan}], config).sentence.endswith("no path traded.")
    assert "look for a leak" in Paths([row | {"sharpe": 183.0}], config).sentence
    assert "at or below 0 in 1 of them" in Paths([row | {"sharpe": -1.0}, row | {"sharpe": 2.0}], config).sentence
