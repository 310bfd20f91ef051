"""Do the simulated worlds hold what they promise, to the bit and to the size?"""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtcore.types import NS_PER_HOUR
from research.data import WORLDS, fingerprint, load_bars, simulate
from research.data.quality import quality
from research.data.simulate import START, describe_worlds, simulate_blocks
from research.data.worlds import BLOCK, SEEN, planted_accuracy, planted_share, planted_signal
from research.errors import UserError
from research.evidence.skill import information
from tests.research.data.test_data import PLANES, assert_same_bars


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_is_clean_and_its_seed_gives_the_same_bits(name):
    bars = simulate(name, seed=3, n_bars=BLOCK + 100, n_symbols=3)
    assert fingerprint(bars) == fingerprint(simulate(name, seed=3, n_bars=BLOCK + 100, n_symbols=3))
    assert bars.symbols == ("SIM01", "SIM02", "SIM03")
    assert (bars.open_time[0], bars.interval) == (START, NS_PER_HOUR)
    assert not [issue for issue in quality(bars).issues if issue.action != "told"]
    assert np.all(np.isnan(bars.close) == np.isnan(bars.volume))
    if name != "constant":
        assert fingerprint(bars) != fingerprint(simulate(name, seed=4, n_bars=BLOCK + 100, n_symbols=3))


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(list(WORLDS)), st.integers(2, 3 * BLOCK), st.integers(0, 9))
def test_a_longer_run_begins_with_the_shorter(name, n_bars, seed):
    whole = simulate(name, seed=seed, n_bars=3 * BLOCK, n_symbols=2)
    assert_same_bars(simulate(name, seed=seed, n_bars=n_bars, n_symbols=2), whole[:n_bars])
    assert sum(block.n for block in simulate_blocks(name, seed, n_bars, 2)) == n_bars


def test_simulated_worlds_keep_their_bits():
    """A change here changes every simulated result: say so in the CHANGELOG."""
    assert fingerprint(simulate("random_walk", seed=1, n_bars=50))[:16] == "3889cde105cf5502"
    assert fingerprint(simulate("planted_edge", seed=1, n_bars=50))[:16] == "76a4f9c3096ca13a"
    assert fingerprint(simulate("reversion", seed=1, n_bars=50))[:16] == "a2c63a241dcc735d"
    assert fingerprint(simulate("macd", seed=1, n_bars=50))[:16] == "998359b2492912d2"
    assert fingerprint(simulate("relative", seed=1, n_bars=50))[:16] == "49b713bdbe994b89"


def test_a_random_walk_is_fair_clustered_and_correlated():
    bars = simulate("random_walk", n_bars=20_000, n_symbols=20)
    ret = bars.close[1:] / bars.close[:-1] - 1.0
    n_effective = ret.size / (1.0 + 19 * 0.5)
    assert abs(ret.mean() / ret.std()) * n_effective**0.5 < 3.0
    assert ret.std() == pytest.approx(0.006, rel=0.05)
    assert np.corrcoef(ret.T)[np.triu_indices(20, 1)].mean() == pytest.approx(0.5, abs=0.06)
    lagged = [[np.corrcoef(f(ret[1:, s]), f(ret[:-1, s]))[0, 1] for s in range(20)] for f in (np.abs, lambda x: x)]
    assert np.mean(lagged[0]) > 0.1
    assert abs(np.mean(lagged[1])) < 0.01
    assert np.mean([np.corrcoef(bars.volume[1:, s], np.abs(ret[:, s]))[0, 1] for s in range(20)]) > 0.5
    gap = bars.open[1:] / bars.close[:-1] - 1.0
    assert gap.std() < 0.15 * ret.std()
    assert np.all((bars.high >= bars.open) & (bars.high >= bars.close) & (bars.low <= bars.open) & (bars.low <= bars.close))
    daily = simulate("random_walk", n_bars=4_000, n_symbols=5, interval="1d", correlation=0.0)
    assert (daily.close[1:] / daily.close[:-1] - 1.0).std() == pytest.approx(0.006 * 24**0.5, rel=0.1)


def test_a_stop_filled_at_its_level_earns_nothing():
    bars = simulate("random_walk", seed=3, n_bars=20_000, n_symbols=10, interval="1d", correlation=0.0)
    held = bars.close / bars.open - 1.0
    for stop in (0.01, 0.02, 0.03):
        long = np.where(bars.low <= bars.open * (1.0 - stop), -stop, held)
        short = np.where(bars.high >= bars.open * (1.0 + stop), -stop, -held)
        for earned in (long, short):
            assert (earned != held).mean() > 0.2
            assert abs(earned.mean()) / earned.std() * earned.size**0.5 < 3.0


def best_rule_accuracy(bars, horizon: int = 5, move: float = 0.015) -> float:
    """Share of the moves whose side the rule that reads the volume gets right, a coin where it says nothing."""
    signal = planted_signal(bars.volume)[:-horizon]
    ret = bars.close[horizon:] / bars.close[:-horizon] - 1.0
    right = np.where(signal == 0.0, 0.5, signal == np.sign(ret))
    return float(right[np.abs(ret) > move].mean())


@pytest.mark.parametrize("accuracy", [0.5, 0.55, 0.60, 0.75])
def test_the_planted_edge_has_its_size(accuracy):
    bars = simulate("planted_edge", seed=1, n_bars=30_000, n_symbols=20, accuracy=accuracy)
    assert best_rule_accuracy(bars) == pytest.approx(accuracy, abs=0.005)


def test_the_planted_edge_at_its_defaults():
    bars = simulate("planted_edge", n_bars=30_000, n_symbols=20)
    signal = planted_signal(bars.volume)
    share = planted_share(0.60)
    assert (signal != 0.0).mean() == pytest.approx(share, rel=0.05)
    assert (signal == 1.0).mean() == pytest.approx((signal == -1.0).mean(), rel=0.1)
    ret = bars.close[5:] / bars.close[:-5] - 1.0
    buy, sell = ret > 0.015, ret < -0.015
    assert (ret > 0.015)[signal[:-5] == 1.0].mean() == pytest.approx(0.78, abs=0.02)
    assert 0.09 < buy.mean() < 0.13
    assert 0.09 < sell.mean() < 0.13
    quiet = signal[:-5] == 0.0
    assert abs(buy[quiet].mean() - sell[quiet].mean()) < 0.005
    change = bars.volume[1:] / bars.volume[:-1] - 1.0
    assert np.abs(np.abs(change) - SEEN).min() > 0.0
    assert planted_accuracy(share, 5, 0.015, 0.006) == pytest.approx(0.60, abs=1e-9)
    other = simulate("planted_edge", n_bars=30_000, n_symbols=20, accuracy=0.65, horizon=3, move=0.01)
    assert best_rule_accuracy(other, 3, 0.01) == pytest.approx(0.65, abs=0.005)


@pytest.mark.parametrize(("pull", "accuracy"), [(0.0, 0.50), (0.1, 0.587), (0.25, 0.686)])
def test_prices_that_come_back_are_foreseen_by_their_last_moves(pull, accuracy):
    bars = simulate("reversion", n_bars=20_000, n_symbols=20, pull=pull)
    ret = bars.close[1:] / bars.close[:-1] - 1.0
    trailing = np.sqrt(np.lib.stride_tricks.sliding_window_view(ret**2, 72, axis=0).mean(axis=2))
    stretch = np.zeros(trailing.shape)
    for t in range(1, len(stretch)):
        stretch[t] = 0.8 * stretch[t - 1] + 0.6 * ret[71 + t] / trailing[t]
    ahead = bars.close[77:] / bars.close[72:-5] - 1.0
    moved = np.abs(ahead) > 0.015
    assert (stretch[:-5] * ahead < 0.0)[moved].mean() == pytest.approx(accuracy, abs=0.005)
    assert np.mean([np.corrcoef(np.abs(ret[1:, s]), np.abs(ret[:-1, s]))[0, 1] for s in range(20)]) > 0.1


@pytest.mark.parametrize(("pull", "accuracy"), [(0.0, 0.50), (0.1, 0.616), (0.15, 0.673)])
def test_prices_that_follow_their_macd_are_foreseen_by_it(pull, accuracy):
    bars = simulate("macd", n_bars=20_000, n_symbols=20, pull=pull)
    close = pd.DataFrame(np.log(bars.close))
    line = close.ewm(span=12, adjust=False).mean() - close.ewm(span=26, adjust=False).mean()
    side = (line - line.ewm(span=9, adjust=False).mean()).to_numpy()[100:-5]
    ahead = bars.close[105:] / bars.close[100:-5] - 1.0
    assert (side * ahead > 0.0)[np.abs(ahead) > 0.015].mean() == pytest.approx(accuracy, abs=0.005)


@pytest.mark.parametrize(("ic", "memory"), [(0.0, 0.9), (0.05, 0.9), (0.1, 0.98)])
def test_prices_that_come_back_to_one_another_are_foreseen_among_symbols_and_not_in_the_market(ic, memory):
    bars = simulate("relative", n_bars=20_000, n_symbols=20, ic=ic, memory=memory)
    ret = bars.close[1:] / bars.close[:-1] - 1.0
    trailing = np.sqrt(np.lib.stride_tricks.sliding_window_view(ret**2, 72, axis=0).mean(axis=2))
    scaled = ret[71:] / trailing
    beyond = scaled - scaled.mean(axis=1, keepdims=True)
    stretch = np.zeros(beyond.shape)
    for t in range(1, len(stretch)):
        stretch[t] = memory * stretch[t - 1] + (1.0 - memory**2) ** 0.5 * beyond[t]
    found = information(-stretch[200:-1], ret[272:])
    assert found["value"] == pytest.approx(0.93 * ic, abs=0.003 + 0.1 * ic)  # ranks of moves whose volatility differs
    assert (found["ci95"][0] > 0.0) == (ic > 0.0)
    market = ret.mean(axis=1)
    assert abs(np.corrcoef(market[1:], market[:-1])[0, 1]) < 0.02
    assert np.corrcoef(ret.T)[np.triu_indices(20, 1)].mean() == pytest.approx(0.5, abs=0.06)


def test_boosted_trees_find_the_planted_edge_in_plain_features():
    """The features are written here from the closes and volumes alone: what the chain's own 18 see, in miniature."""
    lightgbm = pytest.importorskip("lightgbm")
    bars = simulate("planted_edge", seed=2, n_bars=4_000, n_symbols=5)
    volume, close = bars.volume, bars.close
    planes = np.full((3, *close.shape), np.nan)
    planes[0, 1:] = volume[1:] / volume[:-1] - 1.0
    planes[1, 9:] = volume[9:] / np.lib.stride_tricks.sliding_window_view(volume, 10, axis=0).mean(axis=2)
    planes[2, 10:] = close[10:] / close[:-10] - 1.0
    ret = close[5:] / close[:-5] - 1.0
    label = np.where(ret > 0.015, 2, np.where(ret < -0.015, 0, 1))
    features, rows = planes[:, 10:-5].reshape(3, -1).T, label[10:].ravel()
    half = len(rows) // 2
    model = lightgbm.LGBMClassifier(n_estimators=60, num_leaves=15, n_jobs=1, verbose=-1).fit(features[: half - 25], rows[: half - 25])
    probs = model.booster_.predict(features[half:])
    moved = rows[half:] != 1
    side = np.sign(probs[:, 2] - probs[:, 0])
    found = (side == rows[half:] - 1)[moved].mean()
    assert found > 0.57
    assert found > best_rule_accuracy(bars[2_000:]) - 0.02
    assert (probs.max(axis=1)[probs.argmax(axis=1) != 1] > 0.65).sum() > 100


def test_small_worlds_are_what_their_names_say():
    still = simulate("constant", n_bars=100, n_symbols=2)
    assert all(np.all(getattr(still, name) == getattr(still, name)[0]) for name in PLANES)
    up = simulate("trend", n_bars=100, n_symbols=1)
    assert up.close[1:] / up.close[:-1] == pytest.approx((1.0 + 0.001 / 8.0) ** 8, rel=1e-12)
    assert np.all(up.open[1:] == up.close[:-1])
    leap = simulate("jumps", n_bars=5_000, n_symbols=4)
    gap = np.abs(leap.open[1:] / leap.close[:-1] - 1.0)
    assert (gap > 0.09).mean() == pytest.approx(1 / 200, rel=0.25)
    assert gap[gap <= 0.09].max() < 0.01
    holes = np.isnan(simulate("gaps", n_bars=2_000, n_symbols=3).close)
    assert np.all(holes[497:500])
    assert not holes[0, 0]
    assert np.all(holes[:200, 2])
    assert 0.005 < holes[200:, 0].mean() < 0.03


def test_load_bars_takes_a_world_by_name():
    assert_same_bars(load_bars("simulated:planted_edge?seed=3&n_bars=50&accuracy=0.55&interval=15m"),
                     simulate("planted_edge", seed=3, n_bars=50, accuracy=0.55, interval="15m"))  # fmt: skip
    assert load_bars("simulated:random_walk", symbols=["SIM02"]).symbols == ("SIM02",)
    worlds = {row["name"]: row for row in describe_worlds()}
    assert {"random_walk", "planted_edge"} <= set(worlds)
    assert worlds["planted_edge"]["parameters"] == {"accuracy": 0.60, "horizon": 5, "move": 0.015, "drift": 0.006}


@pytest.mark.parametrize(("source", "text"), [
    ("simulated:no",
     "world must be one of random_walk, planted_edge, reversion, macd, relative, constant, trend, jumps, gaps, was 'no'; "
     "see qt data simulate --list"),
    ("simulated:random_walk?n_bars=1", "n_bars (--bars) must be an int of at least 2, was 1"),
    ("simulated:random_walk?n_bars=2.5", "n_bars (--bars) must be an int of at least 2, was 2.5"),
    ("simulated:random_walk?seed", "parameter of random_walk must be written key=value, was 'seed'"),
    ("simulated:random_walk?volatility=high", "volatility must be a number, was 'high'"),
    ("simulated:random_walk?volatility=2", "volatility must be in (0, 0.05] an hour, was 2"),
    ("simulated:random_walk?correlation=2", "correlation must be in [0, 1], was 2"),
    ("simulated:random_walk?size=2", "parameter of random_walk must be one of volatility, correlation, was 'size'"),
    ("simulated:planted_edge?accuracy=0.999", "accuracy must be in [0.5, 0.940] for a drift of 0.006 a bar, was 0.999"),
    ("simulated:reversion?pull=2", "pull must be in [0, 1], was 2"),
    ("simulated:relative?ic=0.6",
     "ic must be in [0, 0.5], memory in [0, 1) and symbols 2 or more, was ic 0.6, memory 0.9, 5 symbols"),
    ("simulated:planted_edge?horizon=2.5", "horizon must be an int, was 2.5"),
    ("simulated:random_walk?n_bars=999999&interval=1d",
     "simulated bars must end before 2262, was 999,999 of 1d; ask for fewer or shorter ones"),
    ("simulated:trend?drift=-9",
     "simulated prices must stay above 0, was not so; lower the volatility, the drift or the size of the jumps"),
])  # fmt: skip
def test_a_world_that_does_not_do_is_refused(source, text):
    with pytest.raises(UserError) as error:
        load_bars(source)
    assert str(error.value) == text


@pytest.mark.parametrize("size", [{"n_bars": 10**9, "n_symbols": 10**4}, {"n_bars": 2, "n_symbols": 10**9}])
def test_a_world_that_no_memory_holds_is_refused_before_it_is_made(size):
    with pytest.raises(UserError, match=r"bars must fit into 50% of the memory here .* load a shorter span, fewer symbols"):
        simulate("random_walk", **size)
    if size["n_bars"] == 2:
        with pytest.raises(UserError, match="bars must fit into"):
            next(simulate_blocks("random_walk", **size))
