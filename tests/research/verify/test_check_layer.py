"""Can a researcher add a feature, an ensemble rule and a governor step in a handful of lines, and is a bad one told what it broke?"""

import numpy as np
import pytest

from qtcore import kernel
from qtcore.features import Feature
from qtcore.governor import govern_step
from qtcore.rules import Reason
from research.errors import UserError
from research.verify import check_layer
from research.verify.awkward import awkward_world

# ------------------------------------------------------------------ features: bars -> [n, S]


def candle_body(bars):
    """Where the close lies in its bar, 0 to 1."""
    return (bars.close - bars.low) / (bars.high - bars.low)


def last_five(bars):
    """Return over five bars; the window ends at the bar."""
    out = np.full(bars.close.shape, np.nan)
    out[5:] = bars.close[5:] / bars.close[:-5] - 1.0
    return out


def next_bar(bars):
    out = np.full(bars.close.shape, np.nan)
    out[:-1] = bars.close[1:] / bars.close[:-1] - 1.0
    return out


def whole_sample(bars):
    return bars.close / np.fmax.reduce(bars.close)


def fills_holes(bars):
    return np.nan_to_num(bars.close)


def infinite(bars):
    with np.errstate(divide="ignore", invalid="ignore"):
        return bars.close / bars.volume


def overwrites(bars):
    bars.close[:] = 2.0 * bars.close
    return bars.close.copy()


def wrong_shape(bars):
    return bars.close[1:] - bars.close[:-1]


def single_precision(bars):
    return bars.close.astype(np.float32)


def random_numbers(bars):
    return np.random.default_rng().random(bars.close.shape) + 0.0 * bars.close


def first_column(bars):
    """Strength against whatever stands first: the order of the symbols decides."""
    return bars.close / bars.close[:, :1] - 1.0


def breaks(bars):
    return bars.closing


BAD_FEATURES = {
    next_bar: {"future", "cutting"},
    whole_sample: {"future", "cutting"},
    fills_holes: {"nan_rows"},
    infinite: {"nan_rows"},
    overwrites: {"mutated_input"},
    wrong_shape: {"shape"},
    single_precision: {"shape"},
    random_numbers: {"repeatable"},
    first_column: {"symbol_order"},
    breaks: {"runs"},
}


@pytest.mark.parametrize("feature", [candle_body, last_five])
def test_a_feature_in_a_few_lines_passes(feature):
    report = check_layer(feature)
    assert report, str(report)
    assert report.kind == "feature"


@pytest.mark.parametrize("feature", BAD_FEATURES, ids=lambda f: f.__name__)
def test_a_bad_feature_is_told_the_rule(feature):
    failed = set(check_layer(feature).failed)
    assert BAD_FEATURES[feature] <= failed
    if feature is not random_numbers:  # nothing that follows holds for it
        assert failed == BAD_FEATURES[feature]


def test_the_sentence_says_where():
    (rule,) = (r for r in check_layer(fills_holes).rules if r.name == "nan_rows")
    assert rule.broken == "must be NaN where the symbol has no bar, was 0 at bar 0 of ETHUSDT"
    assert "differs first at bar" in str(check_layer(next_bar))


def opening_gap(bars):
    """Open against the last close."""
    out = np.full(bars.close.shape, np.nan)
    out[1:] = bars.open[1:] / bars.close[:-1] - 1.0
    return out


def test_a_feature_of_the_bank_passes():
    report = check_layer(Feature("opening_gap", opening_gap, lookback=1))
    assert report, str(report)


def test_a_feature_that_reads_further_back_than_it_says_is_told_so():
    assert check_layer(Feature("last_five", last_five, lookback=5))
    assert check_layer(Feature("last_five", last_five, lookback=4)).failed == ("cutting",)


# ------------------------------------------------------------------ an ensemble rule in NumPy


def majority(votes, planes, params):
    """Most heads win, HOLD wins ties; the confidence is the share of heads."""
    count = np.stack([(votes.action == a).sum(axis=0) for a in (1, 0, 2)])
    return np.array([1, 0, 2], np.int8)[count.argmax(axis=0)], count.max(axis=0) / np.maximum(count.sum(axis=0), 1)


def oversold(votes, planes, params):
    """Follow the RSI, not the votes."""
    rsi = np.nan_to_num(planes["rsi"], nan=50.0)
    return np.where(rsi < 30.0, 2, np.where(rsi > 70.0, 0, 1)), np.where(np.abs(rsi - 50.0) > 20.0, 0.8, 0.5)


def tomorrow(votes, planes, params):
    action = np.ones(votes.action.shape[1:], np.int8)
    action[:-1] = np.maximum(votes.action[0, 1:], 0)
    return action, np.full(action.shape, 0.7)


def absent_stays_absent(votes, planes, params):
    return votes.action[0], np.nan_to_num(votes.confidence[0])


def unknown_confidence(votes, planes, params):
    return np.maximum(votes.action[0], 0), votes.confidence[0]


def sorts_in_place(votes, planes, params):
    votes.action.sort(axis=0)
    return np.maximum(votes.action[2], 0), np.full(votes.action.shape[1:], 0.6)


def normalises_over_the_block(votes, planes, params):
    action, confidence = majority(votes, planes, params)
    return action, confidence / max(confidence.max(), 1e-9)


def forgets_symbols(votes, planes, params):
    return np.maximum(votes.action[0, :, 0], 0), np.full(votes.action.shape[1], 0.6)


BAD_JUDGES = {
    tomorrow: {"cutting", "future"},
    absent_stays_absent: {"range"},
    unknown_confidence: {"range"},
    sorts_in_place: {"mutated_input"},
    normalises_over_the_block: {"cutting"},
    forgets_symbols: {"shape"},
}


@pytest.mark.parametrize("judge", [majority, oversold])
def test_an_ensemble_rule_in_a_few_lines_passes(judge):
    report = check_layer(judge)
    assert report, str(report)
    assert report.kind == "judge"


@pytest.mark.parametrize("judge", BAD_JUDGES, ids=lambda f: f.__name__)
def test_a_bad_ensemble_rule_is_told_the_rule(judge):
    assert BAD_JUDGES[judge] <= set(check_layer(judge).failed)


# ------------------------------------------------------------------ a compiled governor step


@kernel
def half_size(side, confidence, edge, risk, symbol, now, loss_time, win_rate, payoff, account, position, params):
    """Ask our governor, take half."""
    notional, reason = govern_step(side, confidence, edge, risk, symbol, now, loss_time, win_rate, payoff, account, position, params)
    return 0.5 * notional, reason


@kernel
def only_the_first(side, confidence, edge, risk, symbol, now, loss_time, win_rate, payoff, account, position, params):
    """A twentieth of equity, first symbol only."""
    if symbol != 0:
        return 0.0, Reason.MAX_EXPOSURE_EXCEEDED
    return side * 0.05 * account["equity"], Reason.APPROVED


@kernel
def forgets_the_side(side, confidence, edge, risk, symbol, now, loss_time, win_rate, payoff, account, position, params):
    """Buy, whatever was asked."""
    return 0.05 * account["equity"], Reason.APPROVED


@kernel
def books_itself(side, confidence, edge, risk, symbol, now, loss_time, win_rate, payoff, account, position, params):
    """Pay a fee of its own."""
    account["balance"] -= 1.0
    return side * 100.0, Reason.APPROVED


@kernel
def says_nothing(side, confidence, edge, risk, symbol, now, loss_time, win_rate, payoff, account, position, params):
    """Refuse without a reason."""
    return 0.0, Reason.NONE


BAD_STEPS = {
    "forgets_the_side": (forgets_the_side, {"range"}),
    "books_itself": (books_itself, {"mutated_input"}),
    "says_nothing": (says_nothing, {"range"}),
}


@pytest.mark.parametrize("step", [half_size, pytest.param(only_the_first, marks=pytest.mark.slow)], ids=lambda k: k.__name__)
def test_a_governor_step_in_a_few_lines_passes(step):
    report = check_layer(step)
    assert report, str(report)
    assert report.kind == "govern_step"


@pytest.mark.parametrize("name", ["forgets_the_side", "books_itself", pytest.param("says_nothing", marks=pytest.mark.slow)])
def test_a_bad_governor_step_is_told_the_rule(name):
    step, rules = BAD_STEPS[name]
    assert rules <= set(check_layer(step).failed)


def test_an_unknown_kind_is_the_users_mistake():
    with pytest.raises(UserError, match="kind must be told"):
        check_layer(lambda a, b: a)
    with pytest.raises(UserError, match="kind must be one of"):
        check_layer(candle_body, kind="broker")


def test_the_world_hurts():
    bars, votes = awkward_world()
    assert np.isnan(bars.close).any(axis=0).all()
    assert (votes.action[:, np.isnan(bars.close)] == -1).all()
    assert (bars.volume == 0.0).any()
