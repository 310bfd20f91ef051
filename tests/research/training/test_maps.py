"""Are opinions priced by what was known before? Maps against a naive fit, causality, files, and a chain that trades on them."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import research
from qtcore import Params
from qtcore.chain.price import no_map
from qtcore.types import N_KNOTS, NS_PER_HOUR
from research.errors import ModelError
from research.training.edge import EdgeMap, fit_win, leaning
from research.training.map_fit import Held, Trades, fit_maps, voter_factors
from research.training.maps import MapSchedule
from research.training.models.calibration import calibrated
from research.training.models.schedule import ModelSet
from research.training.plan import TrainingPlan
from research.training.predictions import Predictions
from research.training.walk_forward import held_out, prepare
from tests.conftest import assert_same_bits
from tests.support.priced import PRICED

N, S, STARTS = 2_400, 5, [400, 800, 1_200, 1_600, 2_000]
PARAMS = Params.profile("published").with_values(PRICED | {"ensemble.weights": [0.25] * 4 + [0.0]})


def told(bars, strength, seed=0):
    """Predictions of two models that know the next five bars in part; absent before the first period."""
    rng = np.random.default_rng(seed)
    close = np.log(bars.close)
    ahead = np.concatenate([close[5:], np.full((5, S), np.nan)]) - close
    score = strength * np.nan_to_num(ahead / np.nanstd(ahead)) + rng.normal(size=(2, *close.shape))
    buy = 1.0 / (1.0 + np.exp(-score))
    probs = np.full((5, N, S, 3), np.nan)
    probs[:2] = np.stack([0.6 * (1.0 - buy), np.full_like(buy, 0.4), 0.6 * buy], axis=-1)
    probs[:, : STARTS[0]] = np.nan
    fold = np.full(N, -1, np.int16)
    for k, start in enumerate(STARTS):
        fold[start:] = k
    labels, label = research.training.labels.score_labels(bars, "L1")
    return Predictions.from_probs(bars, probs, fold, labels, label)


def all_rows(bars):
    """Probabilities of two models for every row, those of `told` before its first period too."""
    close = np.log(bars.close)
    ahead = np.nan_to_num(np.concatenate([close[5:], np.full((5, S), np.nan)]) - close)
    buy = 1.0 / (1.0 + np.exp(-ahead / ahead.std() - np.random.default_rng(5).normal(size=(2, *close.shape))))
    probs = np.full((5, N, S, 3), np.nan)
    probs[:2] = np.stack([0.6 * (1.0 - buy), np.full_like(buy, 0.4), 0.6 * buy], axis=-1)
    return probs


@pytest.fixture(scope="module")
def bars():
    return research.load_bars(f"simulated:random_walk?n_bars={N}&n_symbols={S}&seed=3")


def fitted(bars, made, params=PARAMS):
    return fit_maps(bars, made.votes(), made.labels, made.label.horizon, STARTS, params)


def test_opinions_that_know_something_get_a_slope_and_noise_gets_none(bars):
    known, noise = fitted(bars, told(bars, 1.0)), fitted(bars, told(bars, 0.0))
    assert known.maps["slope"][0] == 0.0, "nothing was known before the first period"
    assert np.all(known.maps["slope"][-2:] > 0.0)
    assert np.all(noise.maps["slope"] == 0.0)
    assert known.evidence[-1]["ensemble"]["n_effective"] > 8.0


def test_a_map_knows_nothing_of_its_own_period(bars):
    made = told(bars, 1.0)
    whole, cut = fitted(bars, made), STARTS[3]
    rng = np.random.default_rng(1)
    planes = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close")}
    factor = np.exp(np.cumsum(rng.normal(0.0, 0.02, (N - cut, S)), axis=0))
    for plane in planes.values():
        plane[cut:] *= factor
    labels, probs = made.labels.copy(), made.probs.copy()
    labels[cut - made.label.horizon :] = rng.integers(0, 3, labels[cut - made.label.horizon :].shape)
    probs[:2, cut:] = rng.dirichlet([1, 1, 1], probs[:2, cut:].shape[:-1])
    other = fitted(replace(bars, **planes), Predictions.from_probs(bars, probs, made.fold, labels, made.label))
    assert_same_bits(whole.maps[:4], other.maps[:4])
    assert whole.maps[4:].tobytes() != other.maps[4:].tobytes()


def test_the_chain_trades_on_its_maps_and_on_nothing_else(bars):
    made = told(bars, 1.0)
    run = research.backtest(bars, replace(made, maps=fitted(bars, made)), params=PARAMS)
    fills = run.result.fills
    assert len(fills) > 50
    first = np.flatnonzero(run.result.votes.maps["slope"] > 0.0)[0]
    assert fills["time"].min() > bars.close_time[STARTS[first]] - NS_PER_HOUR
    assert run.result.equity[-1] > run.result.equity[0]
    with pytest.raises(ModelError, match="worth"):
        research.backtest(bars, made, params=PARAMS)


def test_maps_are_stored_to_the_bit(bars, tmp_path):
    made = told(bars, 1.0)
    made = replace(made, maps=fitted(bars, made))
    made.save(tmp_path / "predictions.parquet")
    again = Predictions.load(tmp_path / "predictions.parquet")
    assert_same_bits(made.maps.maps, again.maps.maps)
    assert again.maps.hash == made.maps.hash
    assert again.maps.evidence == made.maps.evidence


@pytest.mark.parametrize(
    "broken",
    [
        {"maps": []},
        {"maps": [], "evidence": [], "params": {}},
        {"maps": [{"start": 1}], "evidence": [{}], "params": {}, "data": ""},
        [1],
        {"maps": 3},
        {"maps": [], "evidence": [], "params": {"ensemble.rule": "mean"}, "data": ""},
    ],
)
def test_damaged_maps_are_refused_in_a_sentence(broken):
    with pytest.raises(ModelError, match="maps of a training must"):
        MapSchedule.from_dict(broken)


def test_maps_without_parameters_evidence_or_order_are_refused(bars):
    made = told(bars, 1.0)
    made = replace(made, maps=fitted(bars, made))
    whole = made.maps.to_dict()
    assert MapSchedule.from_dict(whole).hash == made.maps.hash
    for wrong in ({"params": {}}, {"evidence": whole["evidence"][1:]}, {"maps": whole["maps"][::-1]}):
        with pytest.raises(ModelError, match="maps of a training must have periods in their order, the evidence for each, and parameters"):
            MapSchedule.from_dict(whole | wrong)


def test_a_training_that_says_no_fold_of_its_votes_is_refused(bars, tmp_path):
    made = told(bars, 1.0)
    made = replace(made, maps=fitted(bars, made), fold=np.full_like(made.fold, -1))
    with pytest.raises(ModelError, match="must have a fold for every vote of a training with maps, was without"):
        Predictions.load(made.save(tmp_path / "p.parquet"))


def test_a_training_stores_maps_with_models_and_predictions(bars, tmp_path):
    plan = {"preset": "tiny", "n_folds": 3, "calibration": "prior", "processes": 1}
    made = research.train(bars, ["xgb"], "L1", PARAMS.with_values({"broker.max_holding_bars": 0}), maps=True, out=tmp_path, **plan)
    assert len(made.maps.maps) == 3
    served = Predictions.from_models(ModelSet.load(tmp_path), bars)
    assert_same_bits(served.maps.maps, made.maps.maps)
    assert research.train(bars, ["xgb"], "L1", maps=False, **plan).maps is None


def mean_lean(probs, factors):
    """The lean of the two models of `told`, by hand; 0 where they are silent."""
    weights = 0.25 * factors[:2]
    lean = (weights[0] * (probs[0, ..., 2] - probs[0, ..., 0]) + weights[1] * (probs[1, ..., 2] - probs[1, ..., 0])) / weights.sum()
    return np.nan_to_num(lean)


def test_what_a_fold_holds_out_counts_beside_the_folds_before_it(bars):
    made = told(bars, 1.0)
    votes, params = made.votes(), PARAMS
    rows = [np.arange(start - 120, start) for start in STARTS]
    other = Predictions.from_probs(bars, all_rows(bars), made.fold, made.labels, made.label).votes()
    held = [Held(part, other[part[0] : part[-1] + 1]) for part in rows]
    found = fit_maps(bars, votes, made.labels, made.label.horizon, STARTS, params, held)
    trades = Trades.of(bars, params)
    for k, start in enumerate(STARTS):
        factors = found.maps["factors"][k]
        spans = list(enumerate(pairwise([*STARTS, N])))[:k]
        leans = [mean_lean(votes.probs[:, a:b], found.maps["factors"][j]) for j, (a, b) in spans]
        lean = np.concatenate([np.zeros((STARTS[0], S)), *leans, mean_lean(held[k].votes.probs, factors)])
        at = np.concatenate([np.arange(start), rows[k]])
        result = leaning(lean, np.where(trades.ends[:, at] < start, trades.results[:, at], np.nan))
        block = np.repeat(trades.block[at, None], S, axis=1)
        assert EdgeMap.fit(lean, trades.volatility[at], result, block).counts == found.maps["slope"][k]
    assert np.count_nonzero(found.maps["slope"]) >= np.count_nonzero(fitted(bars, made).maps["slope"])


def test_what_the_only_fold_holds_out_makes_its_map(bars):
    other = Predictions.from_probs(bars, all_rows(bars), np.zeros(N, np.int16), np.zeros((N, S), np.int8), told(bars, 1.0).label).votes()
    rows, votes = np.arange(1_000, 2_000), told(bars, 1.0).votes()
    votes = replace(votes, action=np.where(np.arange(N)[:, None] < 2_000, -1, votes.action), probs=votes.probs.copy())
    votes.probs[:, :2_000] = np.nan
    labels = np.zeros((N, S), np.int8)
    found = fit_maps(bars, votes, labels, 5, [2_000], PARAMS, [Held(rows, other[1_000:2_000])])
    assert found.evidence[0]["ensemble"]["n_cells"] > 4_000
    assert found.maps["slope"][0] > 0.0
    assert fit_maps(bars, votes, labels, 5, [2_000], PARAMS).maps["slope"][0] == 0.0


def test_models_are_asked_about_what_they_hold_out_and_never_saw_it(bars):
    plan = {"preset": "tiny", "n_folds": 2, "calibration": "prior", "processes": 1, "use_store": False}
    made = research.train(bars, ["lgbm"], "L1", PARAMS.with_values({"broker.max_holding_bars": 0}), maps=True, **plan)
    prepared = prepare(bars, TrainingPlan.stored(made.models.config["plan"]))
    for fold, part in zip(prepared.folds, held_out(prepared, made.models), strict=True):
        assert len(part.rows) == round(round(fold.boundary * 0.15) * 0.5)
        rest = made.models.artefacts[fold.number].meta["split"]["close_time"]
        assert max(span[1] for name, span in rest.items() if name != "test") < bars.close_time[part.rows[0] - made.label.horizon]
        again = made.models.fitted(made.models.artefacts[fold.number])
        cells = prepared.inputs.matrix[part.rows].reshape(-1, prepared.inputs.matrix.shape[2])
        assert_same_bits(part.votes.probs[made.names.index("lgbm")].reshape(-1, 3), calibrated(again, again.predict_proba(cells)))


def test_parameters_bring_the_training_of_their_profile(bars):
    plan = {"models": ["lgbm"], "preset": "tiny", "n_folds": 1, "processes": 1}
    published = Params.profile("published").with_values({"broker.fee_rate": 0.001})
    made = {name: research.train(bars, params=params, **plan) for name, params in (("published", published), ("default", None))}
    told = {name: each.models.config["plan"] for name, each in made.items()}
    assert (told["published"]["maps"], told["published"]["calibration"]) == (False, "none")
    assert (told["default"]["maps"], told["default"]["calibration"]) == (True, "prior")
    assert research.backtest(bars, made["published"], published).profile == "published"


def test_maps_are_those_of_fills_at_the_next_open_whatever_the_run_assumes(bars):
    plan = {"models": ["lgbm"], "preset": "tiny", "n_folds": 1, "processes": 1}
    usual, late = (research.train(bars, params=Params().with_values({"broker.fill": fill}), **plan) for fill in ("next_open", "worst"))
    assert_same_bits(usual.maps.maps, late.maps.maps)


def test_voters_that_tell_more_weigh_more(bars):
    rng, labels = np.random.default_rng(0), np.random.default_rng(1).integers(0, 3, (N, S)).astype(np.int8)
    probs = np.full((5, N, S, 3), np.nan)
    probs[0] = np.where(np.arange(3) == labels[..., None], 0.6, 0.2)
    probs[1] = rng.dirichlet([20, 20, 20], (N, S))
    votes = Predictions.from_probs(bars, probs, np.zeros(N, np.int16), labels, told(bars, 0.0).label).votes()
    block = np.arange(N) // 72
    factors = voter_factors(votes, labels, block, N)
    assert factors[0] > 1.2 > 0.8 > factors[1]
    assert factors[:2].sum() == pytest.approx(2.0)
    assert np.all(factors[2:] == 1.0)
    assert np.all(voter_factors(votes, labels, block, 0) == 1.0)
    assert abs(voter_factors(votes, labels, block, 72)[0] - 1.0) < abs(factors[0] - 1.0), "little is known after one block"


def test_the_curve_of_wins_is_the_logistic_regression_of_a_library():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    lean = rng.uniform(-1.0, 1.0, 6_000)
    result = np.where(rng.random(6_000) < 1.0 / (1.0 + np.exp(-(2.0 * np.abs(lean) - 1.0))), 0.01, -0.01)
    got = fit_win(lean, result, 0.001)
    library = LogisticRegression(C=1e6, tol=1e-10).fit(np.abs(lean)[:, None], result > 0.001)
    want = library.predict_proba(np.linspace(0.0, 1.0, N_KNOTS)[:, None])[:, 1]
    np.testing.assert_allclose(got, want, atol=4e-3)
    assert np.isnan(fit_win(lean[:900], result[:900], 0.001)).all()


def test_the_variance_is_that_of_what_the_map_leaves():
    rng = np.random.default_rng(0)
    lean, volatility = rng.uniform(-1, 1, 5_000), rng.uniform(0.005, 0.02, 5_000)
    result = volatility * (0.5 * np.abs(lean) + rng.normal(0.0, 2.0, 5_000))
    fitted_map = EdgeMap.fit(lean, volatility, result, np.arange(5_000) // 100)
    assert fitted_map.variance == pytest.approx(4.0, rel=0.05)
    assert no_map()["variance"][0] == 0.0
