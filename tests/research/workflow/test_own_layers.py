"""Is every own feature and layer tried before it is used, and does the certificate say what was found?"""

import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import research
from qtcore import Engine, FeatureBank, rebind
from qtcore.chain.trade import trade
from qtcore.features import Feature
from qtcore.types import NS_PER_DAY, NS_PER_HOUR, InputError
from research.data import simulate
from research.errors import UserError
from research.training.walk_forward import train as train_untried
from research.verify import check_layer
from research.verify.own import try_features
from research.workflow.own_layers import OwnLayerWarning
from research.workflow.recording import verify_run
from tests.support import PUBLISHED


@pytest.fixture(scope="module")
def bars():
    return simulate("random_walk", n_bars=1500, n_symbols=3, seed=11)


def returns_after(bars, h, weight=1.0, seed=5):
    """The return of the next h bars, in standard deviations, with noise beside it."""
    out = np.full(bars.close.shape, np.nan)
    out[:-h] = np.log(bars.close[h:] / bars.close[:-h])
    noise = np.random.default_rng(seed).normal(0.0, 1.0, out.shape)
    return weight * out / np.nanstd(out) + np.sqrt(1.0 - weight**2) * noise


def by_time(bars, table):
    """A feature that looks its value up in a table by close time and symbol."""
    known = {(int(t), name): table[i, s] for i, t in enumerate(bars.close_time) for s, name in enumerate(bars.symbols)}

    def look(seen):
        return np.array([[known.get((int(t), name), np.nan) for name in seen.symbols] for t in seen.close_time])

    return Feature("table", look)


def momentum(bars):
    out = np.full(bars.close.shape, np.nan)
    out[10:] = bars.close[10:] / bars.close[:-10] - 1.0
    return out


def centred(bars):
    out = np.full(bars.close.shape, np.nan)
    out[2:-2] = bars.close[2:-2] / ((bars.close[:-4] + bars.close[4:]) / 2.0) - 1.0
    return out


def high_of_the_day(bars):
    day = bars.open_time // NS_PER_DAY
    out = np.empty(bars.close.shape)
    for d in np.unique(day):
        out[day == d] = np.fmax.reduce(bars.high[day == d])
    return bars.close / out - 1.0


def hour(bars):
    return np.repeat((bars.open_time // NS_PER_HOUR % 24)[:, None], len(bars.symbols), axis=1).astype(np.float64)


def weekday(bars):
    return np.repeat((bars.open_time // NS_PER_DAY % 7)[:, None], len(bars.symbols), axis=1).astype(np.float64)


def below_the_top(bars):
    return bars.close / np.fmax.reduce(bars.close)


def against_the_first(bars):
    """Depends on the order of the symbols, and on nothing later."""
    return bars.close / bars.close[:, :1]


HONEST = [Feature("momentum", momentum, lookback=10), Feature("hour", hour), Feature("weekday", weekday)]
LEAKY = [Feature("centred", centred, lookback=4), Feature("day_high", high_of_the_day, lookback=24), Feature("top", below_the_top)]


@pytest.mark.parametrize("feature", HONEST, ids=lambda f: f.name)
def test_an_honest_feature_breaks_nothing(bars, feature):
    (found,) = try_features([feature], bars, PUBLISHED)
    assert (found["broken"], found["looks_up"]) == ([], "")


@pytest.mark.parametrize("feature", LEAKY, ids=lambda f: f.name)
def test_a_feature_that_looks_ahead_is_named(bars, feature):
    (found,) = try_features([feature], bars, PUBLISHED)
    assert any(line.startswith(("future", "cutting")) for line in found["broken"])


@pytest.mark.parametrize(("h", "weight"), [(1, 1.0), (4, 1.0), (4, 0.3), (12, 0.5)])
def test_a_table_of_later_returns_is_found_by_what_it_knows(bars, h, weight):
    (found,) = try_features([by_time(bars, returns_after(bars, h, weight))], bars, PUBLISHED)
    assert found["looks_up"] == "time"
    assert [line.split(":")[0] for line in found["broken"]] == ["looks_ahead"]


def test_a_table_by_place_or_by_price_is_found_too(bars):
    table = returns_after(bars, 4)
    place = Feature("place", lambda seen: table[: seen.n, : len(seen.symbols)].copy())
    prices = {float(c): float(v) for c, v in zip(bars.close.ravel(), table.ravel())}
    price = Feature("price", lambda seen: np.vectorize(lambda c: prices.get(float(c), np.nan), otypes=[float])(seen.close))
    zero = Feature("zero", lambda seen: np.vectorize(lambda c: prices.get(float(c), 0.0), otypes=[float])(seen.close))
    for feature in (place, price, zero):
        (found,) = try_features([feature], bars, PUBLISHED)
        assert found["broken"], feature.name


@pytest.mark.parametrize("key", ["close", "volume"])
def test_a_table_with_an_honest_value_beside_it_is_found_by_what_it_knows(bars, key):
    """On other prices it is a momentum like any other; on candles of our own simulator, where much may be known, nothing is compared."""
    theirs, ahead = replace(bars, origin=""), returns_after(bars, 4)
    known = {float(k): float(v) for k, v in zip(getattr(bars, key).ravel(), ahead.ravel())}

    def disguised(seen):
        keys, honest = getattr(seen, key), 50.0 * (seen.close / seen.open - 1.0)
        return np.array([[known.get(float(k), h) for k, h in zip(*rows)] for rows in zip(keys, honest)])

    (found,) = try_features([Feature("disguised", disguised)], theirs, PUBLISHED)
    assert found["looks_up"] == ""
    assert [line.split(":")[0] for line in found["broken"]] == ["looks_ahead"]
    assert try_features([Feature("disguised", disguised)], bars, PUBLISHED)[0]["broken"] == []


def frame(bars):
    return pd.DataFrame(bars.close)


CARRIED = [  # sums of pandas that begin with the block: the last digits follow the cutting
    Feature("deviation", lambda bars: frame(bars).pct_change(fill_method=None).rolling(24).std().to_numpy(), lookback=24),
    Feature("ewm", lambda bars: (frame(bars) / frame(bars).ewm(span=20).mean()).to_numpy(), lookback=300),
]


@pytest.mark.parametrize("feature", CARRIED, ids=lambda f: f.name)
def test_last_digits_are_told_and_fail_nothing(bars, feature):
    (found,) = try_features([feature], bars, PUBLISHED)
    assert found["broken"] == []
    assert found["told"][0].startswith("rounding: in")
    assert found["told"][0].endswith("the last digits of a live value may be others")


def test_the_rules_of_a_layer_tell_rounding_from_another_cutting():
    assert check_layer(CARRIED[0]).failed == ("rounding",)


def test_a_lookback_that_is_too_short_is_no_rounding(bars):
    short = replace(CARRIED[1], lookback=100)
    said = try_features([short], bars, PUBLISHED)[0]["broken"][0]
    assert said.startswith("cutting: the feature ewm needs more than its declared lookback of 100 bars; in ")


def test_a_feature_that_looks_ahead_is_not_told_to_look_back_further(bars):
    for feature in LEAKY:
        assert not any("declared lookback" in text for text in try_features([feature], bars, PUBLISHED)[0]["broken"]), feature.name


@pytest.mark.parametrize(
    ("custom", "was"),
    [
        ([momentum], r"custom must be a list of Feature\(name, function, lookback\), was with the function momentum; write"),
        (momentum, "was with the function momentum; write"),
        (HONEST[0], r"was a single Feature; write custom=\[Feature\(\.\.\.\)\]"),
        ([HONEST[0], Feature("momentum", hour)], "own features must have one name each, was 'momentum' twice; rename one"),
    ],
)
def test_what_is_no_list_of_features_is_refused_before_anything_is_tried(bars, custom, was):
    for use in (
        lambda: research.train(bars, models=("lgbm",), n_folds=2, custom=custom, profile="published"),
        lambda: train_untried(bars, models=("lgbm",), n_folds=2, custom=custom),
        lambda: Engine(PUBLISHED, custom=custom),
        lambda: FeatureBank(PUBLISHED, bars.symbols, bars.interval, custom=custom),
    ):
        with pytest.raises(InputError, match=was):
            use()


def test_a_table_without_knowledge_is_told_and_breaks_nothing(bars):
    """Data of another source, joined by time: when it became known cannot be seen, and that is said."""
    noise = np.random.default_rng(0).normal(0.0, 1.0, bars.close.shape)
    (found,) = try_features([by_time(bars, noise)], bars, PUBLISHED)
    assert (found["broken"], found["looks_up"]) == ([], "time")


def test_awkward_data_is_told_and_fails_nothing(bars):
    (found,) = try_features([Feature("relative", against_the_first)], bars, PUBLISHED)
    assert found["broken"] == []
    assert found["told"][0].startswith("symbol_order")


def test_a_feature_that_cannot_be_computed_is_refused_before_training(bars):
    def broken(seen):
        raise KeyError("VIX")

    with pytest.raises(UserError, match=r"own feature vix must have values on these bars, was not so: it raised KeyError: 'VIX'"):
        research.train(bars, models=("lgbm",), n_folds=2, custom=[Feature("vix", broken)], processes=1, profile="published")


def proof_of(bars, feature, tmp_path, train=research.train):
    predictions = train(bars, models=("lgbm",), n_folds=2, preset="tiny", custom=[feature], processes=1)
    run = research.backtest(bars, predictions, PUBLISHED)
    return verify_run(run.save(tmp_path / "run", record=False))


def test_the_certificate_of_a_leaky_feature_fails(bars, tmp_path):
    with pytest.warns(OwnLayerWarning, match="the own feature centred breaks a rule, future"):
        certificate = proof_of(bars, Feature("centred", centred, lookback=4), tmp_path)
    assert certificate["passed"] is False
    (check,) = [c for c in certificate["checks"] if c["group"] == "own"]
    assert not check["passed"]
    assert "own: " in check["detail"]
    assert "centred: future" in check["detail"]


def test_the_certificate_of_an_honest_feature_passes(bars, tmp_path):
    certificate = proof_of(bars, HONEST[0], tmp_path)
    assert certificate["passed"] is True
    assert [c["passed"] for c in certificate["checks"] if c["group"] == "own"] == [True]


def test_the_certificate_names_a_table_whose_origin_is_unknown(bars, tmp_path):
    noise = np.random.default_rng(0).normal(0.0, 1.0, bars.close.shape)
    with pytest.warns(OwnLayerWarning, match="looks values up by time"):
        certificate = proof_of(bars, by_time(bars, noise), tmp_path)
    assert certificate["passed"] is True
    assert any("looks values up by time: when they became known cannot be seen" in line for line in certificate["not_covered"])


def test_a_feature_that_nobody_tried_proves_nothing(bars, tmp_path):
    certificate = proof_of(bars, HONEST[0], tmp_path, train=train_untried)
    assert certificate["passed"] is None
    assert certificate["not_covered"][0].startswith("the own features momentum: nobody tried them")


def hold(votes, planes, params):
    return np.ones(votes.action.shape[1:], np.int8), np.full(votes.action.shape[1:], 0.5)


def knows_the_block(votes, planes, params):
    """Says BUY where the block is long: a backtest, never live."""
    shape = votes.action.shape[1:]
    return np.full(shape, 2 if shape[0] > 1 else 1, np.int8), np.full(shape, 0.9)


def test_an_own_judge_is_tried(bars, tmp_path):
    predictions = research.Predictions.random(bars, seed=1)
    honest = research.backtest(bars, predictions, PUBLISHED, judge=hold)
    assert [found["broken"] for found in honest.own_checks] == [[]]
    with pytest.warns(OwnLayerWarning, match="the own judge breaks a rule, cutting"):
        run = research.backtest(bars, predictions, PUBLISHED, judge=knows_the_block)
    certificate = verify_run(run.save(tmp_path / "run", record=False))
    assert certificate["passed"] is False


def test_an_own_trade_loop_is_tried(bars):
    predictions = research.Predictions.random(bars, seed=1)
    run = research.backtest(bars, predictions, PUBLISHED, trade=rebind(trade))
    assert [(found["kind"], found["broken"]) for found in run.own_checks] == [("trade", [])]


@pytest.mark.slow
def test_the_trials_take_at_most_half_of_the_training(bars):
    features = [*HONEST, Feature("noise", by_time(bars, np.random.default_rng(0).normal(0.0, 1.0, bars.close.shape)).function)]
    started = time.perf_counter()
    try_features(features, bars, PUBLISHED)
    tried = time.perf_counter() - started
    started = time.perf_counter()
    train_untried(bars, custom=features, use_store=False, processes=1)
    assert tried <= 0.5 * (time.perf_counter() - started)
