"""Does every profile keep the promises: a run that is proven, a sweep that is the single run, and paper trading that is the backtest?"""

import numpy as np
import pytest

import research
from qtcore import Params
from qtcore.profiles import PROFILES
from research.data import save_bars
from research.data.worlds import planted_signal
from research.live.monitoring.gap import live_gap
from research.live.monitoring.journal_source import JournalSource
from research.live.start import LiveOptions
from research.runs.config import load_config
from research.training.labels import score_labels
from research.training.predictions import Predictions
from tests.conftest import assert_same_bits
from tests.support.live_market import run_live

N, S = 1_200, 3
GRID = {"broker.fee_rate": [0.0004, 0.0008], "governor.max_daily_trades": [2, 20]}


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """A market whose volume gives its moves away, two voters who read it, and their files."""
    folder, rng = tmp_path_factory.mktemp("market"), np.random.default_rng(1)
    made = research.simulate("planted_edge", seed=2, n_bars=N, n_symbols=S, interval="4h", accuracy=0.75)
    save_bars(made, folder / "bars.parquet")
    bars = research.load_bars(folder / "bars.parquet", symbols=made.symbols)
    signal, probs = planted_signal(bars.volume), np.full((5, N, S, 3), np.nan)
    for m in range(2):
        side = 0.4 + 0.5 * np.abs(signal) * rng.random(signal.shape)
        buy = np.where(signal > 0.0, side, np.where(signal < 0.0, 0.1, 0.2))
        sell = np.where(signal < 0.0, side, np.where(signal > 0.0, 0.1, 0.2))
        probs[m] = np.stack([sell, 1.0 - buy - sell, buy], axis=-1)
    return folder, bars, Predictions.from_probs(bars, probs, np.full(N, -1, np.int16), *score_labels(bars, "L1"), imported=True)


@pytest.fixture(scope="module", params=PROFILES)
def run(request, market):
    _, bars, said = market
    return request.param, research.backtest(bars, said, Params.profile(request.param))


def test_a_run_of_every_profile_trades_and_is_proven(run):
    _, made = run
    assert len(made.trades) > 20
    assert made.verify()["passed"]


def test_a_sweep_of_every_profile_is_the_single_run(run, market):
    _, bars, said = market
    _, made = run
    trials = research.sweep(bars, said, GRID, made.params, record=False)
    found = trials.table()["total_return"].to_numpy()
    assert len(set(found)) == len(found)
    for k, value in enumerate(found):
        equity = research.backtest(bars, said, trials.params(k)).result.equity
        assert_same_bits(value, equity[-1] / made.params.broker.initial_cash - 1.0)


def test_paper_trading_of_every_profile_is_the_backtest(run, market, tmp_path):
    folder, _, _ = market
    name, made = run
    said, journal = made.predictions.save(tmp_path / "predictions.parquet"), tmp_path / "journal.sqlite"
    how = {"symbols": made.bars.symbols}
    run_live(LiveOptions(f"replay:{folder / 'bars.parquet'}", journal, load_config(name), predictions=said, how=how))
    equity = np.array(JournalSource(journal).rows("SELECT equity FROM bars ORDER BY bar"))[:, 0]
    assert_same_bits(equity, made.result.equity)
    assert live_gap(journal)["identical"]
