"""Does an adaptive search find what is there, keep its constraints, count every trial, and go on as if it had never stopped?"""

import numpy as np
import pandas as pd
import pytest

import research
from research.errors import UserError
from research.evidence.ledger import Ledger
from research.runs.space import Space
from research.sweep.adaptive import BATCH, HEARD, UNKNOWN, Adaptive
from tests.support import PUBLISHED

pytest.importorskip("optuna")

BASE = PUBLISHED.with_values({"broker.max_holding_bars": 5, "governor.max_drawdown": 1.0})
GRID = {"governor.min_confidence": "0.5:0.9", "governor.stop_loss": "0.01:0.10:0.01", "governor.order": "symbols,by_confidence"}
HILL = {"governor.min_confidence": "0:1", "governor.stop_loss": "0.01:0.25:0.01", "meta.enabled": "on,off"}


@pytest.fixture(scope="module")
def world():
    bars = research.load_bars("simulated:random_walk?n_bars=500&n_symbols=2&seed=4")
    return bars, research.Predictions.random(bars, seed=1)


def sweep(world, n, **options):
    return research.sweep(*world, GRID, BASE, search="adaptive", settings=n, seed=3, **options)


def climb(n, where=(), seed=5):
    """Search a hill whose top is known: confidence 0.3, stop loss 0.20, meta layer off."""
    space = Adaptive.begin(Space.of(BASE, HILL, "adaptive", n, seed), "height", where, ["height", "east"])
    tables = []
    for first in range(0, n, space.batch):
        last = min(first + space.batch, n)
        space.ask(first, last)
        table = pd.DataFrame(space.columns(space.draw(first, last)))
        off = ~table["meta.enabled"].to_numpy(bool)
        table["height"] = 0.2 * off - (table["governor.min_confidence"] - 0.3) ** 2 - (table["governor.stop_loss"] - 0.20) ** 2
        table["east"] = table["governor.min_confidence"]
        space.tell(first, table)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def test_it_climbs_a_hill():
    table = climb(5 * BATCH)
    best = table.loc[table["height"].idxmax()]
    assert not best["meta.enabled"]
    assert best["governor.min_confidence"] == pytest.approx(0.3, abs=0.03)
    assert best["governor.stop_loss"] == pytest.approx(0.20, abs=0.02)
    late, early = table["height"][-BATCH:], table["height"][:BATCH]
    assert late.median() > early.quantile(0.9)  # a random search would stay where it began


def test_a_constraint_is_honoured():
    table = climb(5 * BATCH, ["east >= 0.6"])
    allowed = table["east"] >= 0.6
    assert allowed[:BATCH].mean() < 0.5
    assert allowed[-2 * BATCH :].mean() > 0.5  # the top is at the edge, so many fall beside it; without the constraint it looks elsewhere
    assert (climb(5 * BATCH)["east"][-2 * BATCH :] >= 0.6).mean() < 0.2
    assert table.loc[allowed, "height"].max() > 0.2 - 0.3**2 - 0.005


def test_a_figure_that_is_not_there_is_worst():
    space = Adaptive.begin(Space.of(BASE, HILL, "adaptive", 4), "height", ["east < 1", "east > 0"], ["height", "east"])
    space.ask(0, 4)
    table = pd.DataFrame(space.columns(space.draw(0, 4)))
    space.tell(0, table.assign(height=[1.0, np.nan, -np.inf, 2.0], east=[0.5, np.nan, 1.5, -1.0]))
    assert space.scores.tolist() == [1.0, UNKNOWN, UNKNOWN, 2.0]
    assert space.excess.tolist() == [[-0.5, -0.5], [-UNKNOWN, -UNKNOWN], [0.5, -1.5], [-2.0, 1.0]]


def test_a_long_search_hears_the_best_and_a_draw_of_the_rest():
    space = Adaptive.begin(Space.of(BASE, HILL, "adaptive", 3_000), "height", ["east < 1"], ["height", "east"])
    space.scores[:] = np.arange(3_000.0)
    space.excess[2_900:] = 1.0
    heard = space._heard(3_000)
    assert len(heard) == len(np.unique(heard)) == HEARD
    assert set(range(2_650, 2_900)) <= set(heard.tolist())
    assert min(heard) < 100
    assert space.batch == BATCH
    assert Adaptive.begin(Space.of(BASE, HILL, "adaptive", 10_000), "height", (), ["height"]).batch == 2 * BATCH


def test_every_trial_counts_and_the_same_seed_gives_the_same_trials(world, tmp_path):
    whole = sweep(world, 150, out=tmp_path / "whole")
    assert (len(whole), len(whole.parts)) == (150, 3)
    settings = whole.table(list(GRID)).drop_duplicates()
    assert whole.tried.trials == Ledger().count() == len(settings)  # an identical rerun is none
    for trial in (0, 77, 149):
        run = research.backtest(*world, whole.params(trial))
        assert run.result.equity[-1] == whole.table().iloc[trial]["last_equity"]
    again = sweep(world, 150, record=False)
    pd.testing.assert_frame_equal(again.table(), whole.table())
    other = research.sweep(*world, GRID, BASE, search="adaptive", settings=64, seed=4, record=False)
    assert not other.table()["governor.min_confidence"].isin(whole.table()["governor.min_confidence"]).any()


def test_a_search_that_was_stopped_goes_on_with_the_same_trials(world, tmp_path):
    whole = sweep(world, 150, out=tmp_path / "whole", record=False)

    def stop(done, total, text):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(world, 150, out=tmp_path / "cut", progress=stop)
    assert 32 < Ledger().count() <= 64
    rest = sweep(world, 150, out=tmp_path / "cut", resume=True, record=False)
    assert len(rest) == 150
    for path in sorted((tmp_path / "whole" / "trials").iterdir()):
        assert path.read_bytes() == (tmp_path / "cut" / "trials" / path.name).read_bytes()
    assert rest.params(149) == whole.params(149)
    with pytest.raises(UserError, match="must go on with the same sweep, was another space"):
        sweep(world, 150, out=tmp_path / "cut", resume=True, objective="total_return")
