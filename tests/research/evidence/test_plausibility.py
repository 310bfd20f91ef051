"""Are figures too good to be true found, and honest ones left alone? Planted leaks, honest noise, and the parts against other libraries."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import norm, spearmanr
from statsmodels.stats.proportion import proportion_confint

import research
from qtcore.types import NS_PER_DAY, NS_PER_HOUR, NS_PER_MINUTE
from research.data import load, load_bars, made_again, save_bars
from research.evidence.planted import enlargement, plants, unnoticed
from research.evidence.plausibility import NAMES, Figure, fifths, mean_recall, overall, sharpe_figure, told, wilson
from research.runs.verdict import judge
from research.training.labels import score_labels
from research.training.predictions import Predictions
from research.training.scoring.bootstrap import Bootstrap
from research.training.scoring.ceilings import CEILINGS, ceilings_of
from research.training.scoring.opinions import Opinion
from research.training.scoring.ranks import Z, correlations, fisher, independent, lean, ranks_in, standard_ranks, within
from research.training.targets import forward_return
from tests.support import FLAG, PUBLISHED

INTERVALS = ("5m", "1h", "4h", "1d", "1w")
PLANTED = ("the label", "right in 60 of 100", "a share of the future")


@pytest.fixture(autouse=True)
def _own_ledger(monkeypatch, tmp_path):
    monkeypatch.setenv("QT_HOME", str(tmp_path / "home"))


def candles(interval="1h", n_bars=1500, seed=0, n_symbols=2):
    """Fair prices whose origin nobody knows: to the program they are candles of the user's own."""
    return replace(load_bars(f"simulated:random_walk?n_bars={n_bars}&n_symbols={n_symbols}&seed={seed}&interval={interval}"), origin="")


def probabilities(side):
    """Votes whose lean is `side` [n, S] in [-1, 1], NaN absent; the same from two models."""
    probs = np.full((5, *side.shape, 3), np.nan)
    probs[0] = probs[1] = np.stack([0.45 - 0.4 * side, np.full(side.shape, 0.1), 0.45 + 0.4 * side], axis=-1)
    probs[:, np.isnan(side)] = np.nan
    return probs


def predict(bars, side, label="L3", with_probs=True):
    labels, rule = score_labels(bars, label)
    made = Predictions.from_probs(bars, probabilities(side), np.full(bars.n, -1, np.int16), labels, rule, imported=True)
    return made if with_probs else replace(made, probs=None)


def planted(bars, kind, with_probs=True, seed=0):
    """Predictions that know the future: the label, the label in 60 cells of 100, or 0.3 of the next four bars' return in noise."""
    rng, (labels, rule) = np.random.default_rng(seed), score_labels(bars, "L3")
    if kind == "a share of the future":
        ahead = forward_return(bars.close, 4)
        known = 0.3 * (ahead - np.nanmean(ahead)) / np.nanstd(ahead) + 0.7 * rng.standard_normal(ahead.shape)
        return predict(bars, np.clip(known / 2.0, -1.0, 1.0), with_probs=with_probs)
    said = labels.astype(int)
    if kind == "right in 60 of 100":
        said = np.where((labels >= 0) & (rng.random(labels.shape) > 0.6), (labels + rng.integers(1, 3, labels.shape)) % 3, labels)
    probs = np.full((5, *labels.shape, 3), np.nan)
    probs[0] = probs[1] = np.where(said[..., None] == np.arange(3), 0.8, 0.1)
    probs[:, labels < 0] = np.nan
    made = Predictions.from_probs(bars, probs, np.full(bars.n, -1, np.int16), labels, rule, imported=True)
    return made if with_probs else replace(made, probs=None)


def judged(bars, predictions, **options):
    return research.backtest(bars, predictions, PUBLISHED, **options).summary["evidence"]["plausibility"]


# what must be found


@pytest.mark.parametrize("with_probs", [True, False], ids=["probabilities", "actions"])
@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("kind", PLANTED)
def test_predictions_that_hold_the_label_are_above_a_ceiling(kind, interval, with_probs):
    bars = candles(interval, 6000 if interval == "5m" else 1500)  # in 20 minutes few prices move by the 0.5 % of the label
    found = judged(bars, planted(bars, kind, with_probs))
    assert {"xgb", "lgbm", "ensemble"} <= {f["where"] for f in found["findings"]}
    assert all(f["low"] > f["ceiling"] for f in found["findings"])
    assert found["exempt"] is None
    assert found["off"] is False
    assert "bars t+1 to t+4, all that the label reads" in found["lags"]["xgb"]["sits"]
    assert found["lags"]["xgb"]["sits"] in found["findings"][0]["text"]


def test_the_label_is_found_on_few_bars():
    bars = candles(n_bars=300)
    assert {f["name"] for f in judged(bars, planted(bars, "the label"))["findings"]} >= {"direction_accuracy", "sharpe"}


@pytest.mark.parametrize(("interval", "n_bars"), [("1h", 400), ("1d", 500)])
@pytest.mark.parametrize("kind", PLANTED[1:])
def test_a_part_of_the_label_is_found_on_few_bars(kind, interval, n_bars):
    for seed in range(3):
        bars = candles(interval, n_bars, seed)
        assert {"xgb", "lgbm"} <= {f["where"] for f in judged(bars, planted(bars, kind, seed=seed))["findings"]}


def test_a_leak_in_one_symbol_is_found_there():
    bars = candles(n_bars=1500, n_symbols=12)
    labels, _ = score_labels(bars, "L3")
    side = np.random.default_rng(0).uniform(-1.0, 1.0, labels.shape)
    assert judged(bars, predict(bars, side))["findings"] == []
    side[:, 4] = np.where(labels[:, 4] >= 0, labels[:, 4] - 1.0, np.nan)
    found = judged(bars, predict(bars, side))["findings"]
    assert [f["where"] for f in found] == ["xgb on SIM05", "lgbm on SIM05", "ensemble on SIM05"]
    assert "xgb on SIM05: rank correlation with the return of the next 4 bars is " in found[0]["text"]


def test_a_leak_in_a_few_weeks_is_found_there():
    bars = candles(n_bars=6000)
    labels, _ = score_labels(bars, "L3")
    side = np.random.default_rng(0).uniform(-1.0, 1.0, labels.shape)
    side[2000:2600] = labels[2000:2600] - 1.0
    found = judged(bars, predict(bars, side))["findings"]
    assert [f["where"] for f in found] == [f"{name} from 2000-03-24 08:00 to 2000-04-14 04:00" for name in ("xgb", "lgbm", "ensemble")]


def test_a_leak_in_wild_bars_alone_is_found_there():
    """Seven calls of ten right in the most volatile fifth, noise elsewhere: a sixth of the ceiling in the whole."""
    bars = candles(n_bars=6000)
    rng, ahead = np.random.default_rng(0), forward_return(bars.close, 4)
    right = np.where(rng.random(ahead.shape) < 0.7, np.sign(ahead), -np.sign(ahead))
    side = np.where(fifths(bars.close)[4], right, rng.choice([-1.0, 1.0], ahead.shape))
    found = judged(bars, predict(bars, side))["findings"]
    assert [f["where"] for f in found] == [f"{name} in the most volatile fifth of the bars" for name in ("xgb", "lgbm", "ensemble")]


@pytest.mark.parametrize(("n", "told"), [(24, "24"), (168, "120")])
def test_who_knows_the_returns_beyond_the_label_is_found(n, told):
    bars = candles(n_bars=6000)
    found = judged(bars, predict(bars, np.sign(forward_return(bars.close, n))))["findings"]
    assert {"xgb", "lgbm", "ensemble"} <= {f["where"] for f in found}
    assert any(f"xgb: rank correlation with the return of the next {told} bars is " in f["text"] for f in found) or n == 24
    assert not any(f"next {told} bars" in f["text"] and "that the label reads" in f["text"] for f in found)


def test_fifths_part_the_cells_by_past_moves_alone():
    bars = candles(n_bars=1000, n_symbols=1)
    parts = [part[24:] for part in fifths(bars.close)]
    assert (sum(part.astype(int) for part in parts) == 1).all()
    assert [int(part.sum()) for part in parts] == pytest.approx([195] * 5, abs=20)
    moves = np.abs(np.diff(bars.close, axis=0) / bars.close[:-1])
    means = np.array([moves[t - 24 : t].mean(axis=0) for t in range(24, 1000)])
    assert all(means[calmer].max() <= means[wilder].min() for calmer, wilder in pairwise(parts))


@pytest.mark.parametrize(
    ("ahead", "where"),
    [
        ((1,), "bar t+1 alone: these predictions look as if stamped one bar early"),
        ((3,), "bar t+3 of the 4"),
        ((2, 4), "bars t+2, t+4 of the 4"),
    ],
)
def test_the_lag_profile_says_where_the_knowledge_sits(ahead, where):
    bars = candles()
    step = np.vstack([np.full((1, 2), np.nan), np.diff(np.log(bars.close), axis=0)])
    known = sum(np.vstack([step[k:], np.full((k, 2), np.nan)]) for k in ahead)
    found = judged(bars, predict(bars, np.clip(known / (4.0 * np.nanstd(known)), -1.0, 1.0)))
    assert where in found["lags"]["xgb"]["sits"]
    profile = dict(zip(found["lags"]["xgb"]["lag"], found["lags"]["xgb"]["correlation"]))
    assert list(profile) == list(range(-4, 5))
    assert min(profile[k] for k in ahead) > 0.5 > max(value for k, value in profile.items() if k not in ahead)


# what must not


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("n_bars", [300, 1200])
def test_noise_stays_below_every_ceiling(n_bars, interval):
    for seed in range(3):
        bars = candles(interval, n_bars, seed)
        assert judged(bars, Predictions.random(bars, seed=seed))["findings"] == []


@pytest.mark.parametrize("span", [20, 100])
def test_stubborn_noise_stays_below_every_ceiling(span):
    """A side that is kept for many bars has few independent tries."""
    for seed in range(5):
        bars = candles("1d", 400, seed)
        side = np.repeat(np.random.default_rng(seed).choice([-1.0, 1.0], (400 // span + 1, 2)), span, axis=0)[:400]
        assert judged(bars, predict(bars, side))["findings"] == []


def test_a_rising_market_is_no_knowledge():
    bars = replace(load_bars("simulated:trend?n_bars=800&n_symbols=2&drift=0.004&volatility=0.006&interval=1d"), origin="")
    noise = np.random.default_rng(0).random((800, 2))
    found = judged(bars, predict(bars, 0.2 + 0.8 * noise))
    assert [f["name"] for f in found["findings"] if f["name"] != "sharpe"] == []
    assert research.backtest(bars, predict(bars, noise), PUBLISHED).summary["models"]["xgb"]["direction_accuracy"] > 0.8


def test_features_of_the_past_are_no_knowledge():
    bars = candles()
    step = np.vstack([np.full((1, 2), np.nan), np.diff(np.log(bars.close), axis=0)])
    found = judged(bars, predict(bars, np.clip(100.0 * step, -1.0, 1.0)))
    profile = dict(zip(found["lags"]["xgb"]["lag"], found["lags"]["xgb"]["correlation"]))
    assert profile[0] > 0.9
    assert found["findings"] == []


@pytest.mark.parametrize("past", [5, 50, 500])
def test_slow_features_of_the_past_are_no_knowledge_of_the_bars_to_come(past):
    for seed, sign in ((0, 1.0), (1, -1.0), (2, 1.0), (3, -1.0)):
        bars = candles(n_bars=4000, seed=seed)
        price = np.log(bars.close)
        side = np.full(price.shape, np.nan)
        side[past:] = sign * np.tanh((price[past:] - price[:-past]) / np.std(price[past:] - price[:-past]))
        assert judged(bars, predict(bars, side))["findings"] == []


# who is exempt


def test_simulated_candles_are_exempt_in_memory_saved_and_cut(tmp_path):
    bars = load_bars("simulated:random_walk?n_bars=700&n_symbols=3&seed=4")
    path = save_bars(bars, tmp_path / "mine.parquet")
    for own in (bars, load(path).bars, load(path, symbols=["SIM03", "SIM01"], start="2000-01-03").bars):
        found = judged(own, planted(own, "the label"))
        assert found["findings"]
        assert found["exempt"].startswith("these candles are simulated, and simulated:random_walk?seed=4&n_bars=700")


def test_a_name_is_no_exemption(tmp_path, monkeypatch):
    bars = load_bars("simulated:random_walk?n_bars=700&n_symbols=3&seed=4")
    moved = replace(bars, close=np.where(np.arange(bars.close.size).reshape(bars.close.shape) == 1000, bars.close * 1.0001, bars.close))
    copied = load(save_bars(moved, tmp_path / "copied.parquet")).bars
    assert copied.origin == bars.origin
    monkeypatch.chdir(tmp_path)
    save_bars(candles(), tmp_path / "simulated:random_walk.parquet")
    named = load(tmp_path / "simulated:random_walk.parquet").bars
    for own in (copied, named, replace(bars, symbols=("BTCUSDT", "ETHUSDT", "XRPUSDT"))):
        assert judged(own, planted(own, "the label"))["exempt"] is None


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "simulated:",
        "file",
        "simulated:random_walk",
        "simulated:other?n_bars=700&n_symbols=3",
        "simulated:random_walk?n_bars=700&n_symbols=3&seed=5",
        "simulated:random_walk?n_bars=700&n_symbols=1e400&seed=4",
        "simulated:random_walk?n_bars=700&n_symbols=900000000&seed=4",
        "simulated:random_walk?n_bars=x&n_symbols=3&seed=4",
        "simulated:random_walk?n_bars=699&n_symbols=3&seed=4",
        "simulated:random_walk?n_bars=700&n_symbols=3&seed=4&interval=4h",
        "simulated:random_walk?n_bars=700&n_symbols=3&seed=4&horizon=3",
    ],
)
def test_a_claim_that_does_not_give_the_candles_is_none(origin):
    bars = load_bars("simulated:random_walk?n_bars=700&n_symbols=3&seed=4")
    assert made_again(bars)
    assert not made_again(replace(bars, origin=origin))


def test_every_world_is_made_again(tmp_path):
    for name in research.data.WORLDS:
        bars = load_bars(f"simulated:{name}?n_bars=1500&n_symbols=2&seed=3&interval=15m")
        assert made_again(bars)
        assert made_again(bars[1100:1300])
        assert made_again(load(save_bars(bars, tmp_path / "w.parquet")).bars)


# who knows better


def test_ceilings_that_are_off_are_remembered(tmp_path):
    bars = candles(n_bars=500)
    run = research.backtest(bars, planted(bars, "the label"), PUBLISHED, ceilings=False)
    found = run.summary["evidence"]["plausibility"]
    assert found["off"] is True
    assert found["findings"]
    folder = run.save(tmp_path / "run", record=False)
    assert research.load_run(folder).ceilings is False
    assert run.manifest["ceilings"] is False
    assert run.manifest["origin"] == ""


def test_origin_comes_back_from_a_folder(tmp_path):
    bars = load_bars("simulated:random_walk?n_bars=500&n_symbols=2&seed=4")
    folder = research.backtest(bars, planted(bars, "the label"), PUBLISHED).save(tmp_path / "run", record=False)
    assert research.load_run(folder).summary["evidence"]["plausibility"]["exempt"]


# bars that are too few to show a leak


def test_few_bars_say_that_a_leak_could_hide():
    bars = candles(n_bars=150)
    found = judged(bars, Predictions.random(bars))
    assert found["unnoticed"].startswith("on these 150 bars ")
    assert " could stay below every ceiling, so an edge cannot be told from a leak; about " in found["unnoticed"]
    assert told(found) == [("note", f"O{found['unnoticed'][1:]}.")]
    many = candles(n_bars=1500)
    assert judged(many, Predictions.random(many))["unnoticed"] is None


def test_moves_that_hardly_occur_say_that_a_leak_could_hide():
    bars = candles("5m", 3000)
    labels, _ = score_labels(bars, "L1")
    assert 0 < np.count_nonzero(labels != 1) - np.count_nonzero(labels < 0) < 20
    made = Predictions.random(bars, label="L1")
    assert "a label that is right in 60 of 100 cells" in judged(bars, made)["unnoticed"]


def test_what_could_be_a_leak_reads_no_edge():
    """The figures of 200 bars that know the next return read edge, and a leak could hide on them; whoever knows better may say so."""
    bars = candles(n_bars=200, n_symbols=5)
    made = planted(bars, "the label")
    doubted = research.backtest(bars, made, PUBLISHED).summary["evidence"]
    assert (doubted["finding"], doubted["reason"]) == ("not enough data", f"{doubted['plausibility']['unnoticed']}.")
    assert research.backtest(bars, made, PUBLISHED, ceilings=False).summary["evidence"]["finding"] == "edge"
    simulated = load_bars("simulated:random_walk?n_bars=200&n_symbols=5&seed=0&interval=1h")
    assert research.backtest(simulated, made, PUBLISHED).summary["evidence"]["finding"] == "edge"


@pytest.mark.parametrize(("interval", "n_bars", "label"), [("1h", 300, "L3"), ("1h", 700, "L3"), ("1d", 400, "L1"), ("1h", 700, "L5")])
def test_where_a_leak_would_be_noticed_one_is(interval, n_bars, label):
    """Leaks drawn anew on bars that say they would show one: 9 in 10 are above a ceiling."""

    def figures(bars, labels, horizon, seed):
        made = plants(np.ones(labels.shape, bool), labels, bars.close, horizon, seed)
        found = overall(made, labels, bars.close, horizon, Bootstrap(bars.n, horizon))
        return {name: [f for f in found if f.where == name] for name in made}

    missed, seen = 0, 0
    for seed in range(20):
        bars = candles(interval, n_bars, seed)
        labels, rule = score_labels(bars, label)
        ceilings = ceilings_of(bars.interval)
        if unnoticed(figures(bars, labels, rule.horizon, 0), ceilings, bars.n) is None:
            for anew in figures(bars, labels, rule.horizon, 1).values():
                seen, missed = seen + 1, missed + (not any(f.low > getattr(ceilings, f.name) for f in anew))
    assert missed <= 0.1 * seen


def test_the_bars_that_are_needed_follow_the_root_of_the_bars():
    ceilings = ceilings_of(NS_PER_HOUR)
    figure = Figure("rank_correlation", "", ceilings.rank_correlation + 0.1, ceilings.rank_correlation + 0.1 - 0.2 * Z)
    times = enlargement([figure, Figure("direction_accuracy", "", 0.55, 0.54), Figure("lag_correlation", "", np.nan, np.nan)], ceilings)
    assert times == pytest.approx((0.2 * (Z + 1.645) / 0.1) ** 2)
    assert unnoticed({"it": [figure]}, ceilings, 100).endswith("; about 7,100 bars like these are needed")
    assert unnoticed({"it": [replace(figure, low=figure.value - 0.01)]}, ceilings, 100) is None
    assert unnoticed({"it": [replace(figure, value=0.0)]}, ceilings, 100).endswith("; with this label more bars would not change that")


# the parts


def test_the_ceilings_of_a_bar_length():
    assert [ceilings_of(ns) for ns in (NS_PER_MINUTE, NS_PER_HOUR, 4 * NS_PER_HOUR, NS_PER_DAY, 7 * NS_PER_DAY)] == list(CEILINGS)


def test_wilson_is_that_of_statsmodels():
    for hits, n in ((20, 20), (150, 200), (37, 50), (1, 3)):
        low, _ = proportion_confint(hits, n, alpha=2.0 * norm.sf(Z), method="wilson")
        assert wilson(hits / n, n) == pytest.approx(low, abs=1e-12)


@pytest.mark.parametrize("n_tested", [1, 2, 3, 6])
@pytest.mark.parametrize("label", ["L1", "L3@12"])
def test_a_few_tested_bars_are_not_enough_data(n_tested, label):
    bars = research.load_bars("simulated:random_walk?n_bars=400&n_symbols=2&seed=3")
    made = research.Predictions.random(bars, seed=1, label=label)
    planes = {"action": (made.action, -1), "confidence": (made.confidence, np.nan), "probs": (made.probs, np.nan)}
    late = {
        name: np.concatenate([np.full_like(plane[:, :-n_tested], absent), plane[:, -n_tested:]], 1)
        for name, (plane, absent) in planes.items()
    }
    with np.errstate(all="raise"):
        assert research.backtest(bars, replace(made, **late)).summary["evidence"]["finding"] == "not enough data"


def test_rank_correlation_is_that_of_scipy():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 1))
    y = x + rng.standard_normal((400, 1))
    x[:30] = np.round(x[:30])
    ((value, low),) = correlations([(standard_ranks(x), standard_ranks(y), 0)], 1, Bootstrap(400, 1.0))
    assert value == pytest.approx(spearmanr(x[:, 0], y[:, 0])[0], abs=1e-12)
    assert value - low == pytest.approx(Z * (1.0 - value**2) / 20.0, rel=0.25)
    ((ahead, _),) = correlations([(standard_ranks(x), standard_ranks(np.vstack([y[:1], y[:-1]])), 1)], 1, Bootstrap(400, 1.0))
    assert ahead == pytest.approx(value, abs=0.02)


def test_pairs_are_independent_as_far_as_neither_side_stays_what_it_was():
    """Bartlett's formula against the spread of correlations of many draws; windows of the price overlap by all but one bar."""
    rng, horizon, n = np.random.default_rng(0), 5, 600
    for stay in (0.0, 0.7, 0.98):
        drawn, told_n = [], []
        for _ in range(400):
            ahead = np.convolve(rng.standard_normal(n + horizon - 1), np.ones(horizon), "valid")
            shocks, side = rng.standard_normal(n), np.zeros(n)
            for t in range(n):
                side[t] = stay * side[t - 1] + (1.0 - stay**2) ** 0.5 * shocks[t]
            drawn.append(spearmanr(side, ahead)[0])
            told_n.append(independent(standard_ranks(side[:, None]), np.ones((n, 1), bool), horizon))
        assert np.mean(told_n) == pytest.approx(1.0 / np.var(drawn), rel=0.2)


def test_many_looks_have_wider_intervals():
    rng = np.random.default_rng(0)
    said, came = rng.standard_normal((2, 1000, 10))
    parts = [(slice(None), slice(s, s + 1)) for s in range(10)]
    one = within(ranks_in(said, parts[:1]), ranks_in(came, parts[:1]), 1)[0]
    ten = within(ranks_in(said, parts), ranks_in(came, parts), 1)
    assert ten[0][0] == one[0] == pytest.approx(spearmanr(said[:, 0], came[:, 0])[0])
    assert one[1] == pytest.approx(fisher(one[0], 1000, Z))
    assert ten[0][1] == pytest.approx(fisher(one[0], 1000, norm.isf(norm.sf(Z) / 10)))
    assert np.isnan(within([standard_ranks(np.full((40, 1), 2.0))], ranks_in(came[:40], parts[:1]), 1)[0]).all()


def test_a_lean_is_the_difference_of_probabilities_or_the_signed_confidence():
    action, confidence = np.array([[0, 1, 2, -1]], np.int8), np.array([[0.7, 0.6, 0.9, np.nan]])
    assert lean(Opinion(action, confidence))[0, :3].tolist() == [-0.7, 0.0, 0.9]
    probs = np.array([[[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.0, 0.1, 0.9], [np.nan] * 3]])
    got = lean(Opinion(action, confidence, probs))[0]
    assert got[:3] == pytest.approx([-0.6, -0.2, 0.9])
    assert np.isnan(got[3])


def test_luck_in_one_week_is_no_knowledge():
    """Thirty right calls within one window of the label are one event."""
    cells = np.zeros((1000, 2), int)
    cells[100:104, 0], cells[200:204, 1] = 30, 30
    drawn = Bootstrap(1000, 5.0).sums(cells)
    value, low = mean_recall((cells, cells), (drawn, drawn), 5)
    assert value == 1.0
    assert low < 0.3


def test_the_sharpe_ratio_has_a_lower_end():
    net = 0.001 + 0.01 * np.random.default_rng(0).standard_normal(5000)
    figure = sharpe_figure(net, 8760.0, Bootstrap(5000, 5.0))
    assert figure.value == pytest.approx(net.mean() / net.std(ddof=1) * 8760.0**0.5)
    assert figure.value - figure.low == pytest.approx(Z * (8760.0 / 5000) ** 0.5, rel=0.1)
    assert np.isnan(sharpe_figure(np.zeros(100), 8760.0, Bootstrap(100, 5.0)).low)


def test_every_kind_of_figure_has_a_row():
    bars = candles(n_bars=400)
    rows = judged(bars, Predictions.random(bars))["ceilings"]
    assert [row["name"] for row in rows] == list(NAMES)
    assert all(row["ceiling"] > (row["low"] or 0.0) for row in rows)


# what people see


def test_page_and_terminal_say_what_the_ceilings_found(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from research.cli.app import app

    bars = candles(n_bars=500)
    data, said = save_bars(bars, tmp_path / "mine.parquet"), tmp_path / "said.parquet"
    frame = planted(bars, "the label", with_probs=False).to_pandas().reset_index()
    frame = frame[frame["xgb_action"] >= 0]
    frame[["close_time", "symbol", "xgb_action", "xgb_confidence"]].assign(
        xgb_action=frame["xgb_action"].map({0: "SELL", 1: "HOLD", 2: "BUY"})
    ).to_parquet(said)
    words = ["backtest", FLAG, str(data), "--predictions", str(said), "--set", "run.label=L3", "--set", "features.warmup=100"]

    def called(*more, name):
        done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / name), *more])
        return done.exit_code, done.output, (tmp_path / name / "report.html").read_text(encoding="utf-8")

    code, text, page = called(name="on")
    assert code == 1
    assert text.startswith("verdict: Implausible: xgb: rank correlation with the return of the next 4 bars is ")
    for shown in (text, page):
        assert "figures are above what an honest run reaches; look for the label in the predictions" in " ".join(shown.split())
    assert "Too good to be true?" in page
    assert "Lag profiles: rank correlation" in page

    code, text, page = called("--set", "run.ceilings=off", name="off")
    assert code == 0
    for shown in (text, page):
        assert "The ceilings of plausible figures were turned off (run.ceilings = off); " in " ".join(shown.split())
        assert "Implausible" not in shown
    assert research.load_run(tmp_path / "off").ceilings is False

    words[2] = "simulated:random_walk?n_bars=500&n_symbols=2&seed=0&interval=1h"
    code, text, page = called(name="simulated")
    assert code == 0
    for shown in (text, page):
        assert "The ceilings of plausible figures do not hold here: these candles are simulated" in " ".join(shown.split())


def test_nothing_is_told_where_nothing_is_above():
    bars = candles(n_bars=1500)
    assert told(judged(bars, Predictions.random(bars))) == told({}) == []


def drifting(is_ours: bool, knows: bool):
    """A year of hours that rise by 0.04 % each: who sees a part of the future, and who always buys. Both have a Sharpe ratio above 8."""
    bars = load_bars(f"simulated:trend?n_bars=9000&n_symbols=3&seed=5&drift={0.0002 if knows else 0.0006}&volatility=0.006")
    ahead, noise = forward_return(bars.close, 4), np.random.default_rng(1).standard_normal(bars.close.shape)
    side = np.clip(0.065 * (ahead - np.nanmean(ahead)) / np.nanstd(ahead) + 0.435 * noise, -1.0, 1.0) if knows else np.ones(ahead.shape)
    own = bars if is_ours else replace(bars, origin="")
    open_ = {"governor.max_drawdown": 1.0, "governor.max_daily_trades": 200, "broker.fee_rate": 0.0002, "broker.slippage_rate": 0.0}
    evidence = research.backtest(own, predict(own, side), PUBLISHED.with_values(open_)).summary["evidence"]
    assert evidence["sharpe"]["per_year"] > 10.0
    return judge(evidence, {"passed": True, "checks": [{"name": "replay", "group": "parity", "passed": True, "detail": ""}]}).verdict


@pytest.mark.parametrize("knows", [True, False])
def test_a_sharpe_ratio_of_eleven_in_a_rising_market_is_implausible(knows):
    assert drifting(False, knows) == "implausible"


def test_on_our_own_candles_it_is_an_edge_where_it_is_not_the_market():
    assert drifting(True, True) == "edge"
    assert drifting(True, False) == "no edge"
