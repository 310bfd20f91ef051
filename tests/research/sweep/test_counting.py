"""Is everything that a walk forward tries counted, once, as what it is on all candles?"""

import json

import pytest

import research
from research.cli.app import app
from research.cli.common import guarded
from research.evidence.ledger import Ledger
from research.evidence.trials import hash_params
from research.sweep.adaptive import Adaptive
from research.sweep.walk import _from, walk
from tests.support import PUBLISHED

BASE = PUBLISHED.with_values({"broker.max_holding_bars": 5, "governor.max_drawdown": 1.0})
GRID = {"governor.min_confidence": [0.5, 0.6, 0.7], "arbiter.score_threshold": [0.05, 0.2]}
FREE = {"governor.min_confidence": "0.4:0.8"}
N, FOLDS = 480, 3
DATA = f"simulated:random_walk?n_bars={N}&n_symbols=2&seed=4"


@pytest.fixture(scope="module")
def world():
    bars = research.load_bars(DATA)
    return bars, research.Predictions.random(bars, seed=1)


def counted() -> list[str]:
    return sorted(row["params"] for row in Ledger().table())


def tried_in(world, fold, n):
    """Name what an adaptive search of `n` settings tries in a fold."""
    bars, predictions = world
    first, last = (N // FOLDS * k for k in (fold, fold + 1))
    found = research.sweep(bars[:last], _from(predictions[:last], first), FREE, BASE, search="adaptive", settings=n, record=False)
    return [hash_params(found.params(i).flat()) for i in range(n)]


def test_a_setting_of_many_folds_is_one_trial_on_all_candles(world, tmp_path):
    found = walk(*world, GRID, BASE, n_folds=FOLDS)
    assert found.tried.trials == Ledger().count() == 6
    by_walk = {row["params"]: row["sharpe"] for row in Ledger().table()}
    again = research.sweep(*world, GRID, BASE)
    assert again.tried.trials == Ledger().count() == 6  # none is new
    assert by_walk == {hash_params(again.params(i).flat()): again.table()["sharpe_bar"].iloc[i] for i in range(6)}
    research.backtest(*world, again.params(2)).save(tmp_path / "run")
    assert Ledger().count() == 6
    assert walk(*world, GRID, BASE, n_folds=FOLDS, record=False).tried is None


def test_every_setting_that_a_fold_tried_is_counted_once(world):
    pytest.importorskip("optuna")
    found = walk(*world, FREE, BASE, n_folds=FOLDS, search="adaptive", settings=70)
    tried = {name for fold in range(FOLDS) for name in tried_in(world, fold, 70)}
    assert len(tried) > 70  # folds look elsewhere after the first batch
    assert counted() == sorted(tried)
    assert found.tried.trials == len(tried)
    assert Ledger().table()[0]["name"] == "walk forward over governor.min_confidence"


def test_a_fold_that_is_stopped_counts_what_it_tried(world, monkeypatch):
    pytest.importorskip("optuna")
    asked, ask = [], Adaptive.ask

    def stop(self, first, last):
        asked.append(first)
        if len(asked) == 4:  # the second batch of the second fold
            raise KeyboardInterrupt
        ask(self, first, last)

    with monkeypatch.context() as patch:
        patch.setattr(Adaptive, "ask", stop)
        with pytest.raises(KeyboardInterrupt):
            walk(*world, FREE, BASE, n_folds=FOLDS, search="adaptive", settings=70)
    assert counted() == sorted({*tried_in(world, 0, 70), *tried_in(world, 1, 64)})


def test_the_verdict_of_an_adaptive_sweep_counts_what_its_folds_tried(world, tmp_path, capsys):
    pytest.importorskip("optuna")
    run = research.backtest(*world, BASE).save(tmp_path / "run", record=False)
    words = ["sweep", run, "--grid", "governor.min_confidence=0.4:0.8", "--search", "adaptive", "--settings", "70", "--walk-forward", FOLDS]
    assert guarded(lambda: app([str(word) for word in [*words, "--out", tmp_path / "out", "--json"]], standalone_mode=False)) == 0
    summary = json.loads(capsys.readouterr().out)
    assert {f"{what} of {run} over governor.min_confidence" for what in ("sweep", "walk forward")} <= {
        row["name"] for row in Ledger().table()
    }
    assert (
        summary["tried"]["trials"] == summary["verdict"]["trials"]["trials"] == Ledger().count() > 80
    )  # 70, of which folds tried the first 64 too
