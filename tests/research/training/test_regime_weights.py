"""Do weights follow the regime as the user's table says, or as earlier folds taught, and never later ones (`spec` D-36)?"""

from dataclasses import replace

import numpy as np
import pytest

import research
from qtcore import MODELS
from research.data import simulate
from research.errors import UserError
from research.runs.config import load_config
from research.training.labels import Label
from research.training.predictions import Predictions
from research.training.regime_weights import FACTORS, fit_factors, fit_regime_weights, regime_factors
from research.training.regimes import CELLS
from research.workflow.backtest_job import Job, inputs_of
from tests.conftest import assert_same_bits
from tests.support import PUBLISHED

HIGH_UP, LOW_SIDEWAYS = CELLS.index("volatility_high.trend_uptrend"), CELLS.index("volatility_low.trend_sideways")


def test_regime_weights_are_read_from_the_users_table() -> None:
    table = {"volatility_high": {"xgb": 1.5, "trend_uptrend": {"xgb": 2.0}}, "trend_sideways": {"nhits": 0.0}}
    factors = np.reshape(regime_factors(table), (9, 5))
    xgb, nhits = MODELS.index("xgb"), MODELS.index("nhits")
    assert factors[:, xgb].tolist() == [1.0] * 6 + [1.5, 1.5, 3.0]
    assert factors[:, nhits].tolist() == [1.0, 0.0, 1.0] * 3
    assert (np.delete(factors, [xgb, nhits], axis=1) == 1.0).all()
    assert regime_factors({"volatility_high.trend_uptrend": {"lgbm": 2}})[5 * HIGH_UP + 1] == 2.0


def test_the_users_table_reaches_the_vote(tmp_path) -> None:
    """In a quiet market only nhits is heard, so the chain says what nhits says; elsewhere nothing changes."""
    file = tmp_path / "qt.toml"
    silent = ", ".join(f"{m} = 0" for m in MODELS if m != "nhits")
    file.write_text(f"[ensemble.regime_weights]\nvolatility_low = {{{silent}}}\n\n[meta]\nenabled = false\n")
    bars = simulate("random_walk", n_bars=1_500, n_symbols=2, seed=1)
    predictions = Predictions.random(bars, seed=1)
    given = load_config("published", path=file).params
    heard = research.backtest(bars, predictions, given).result
    plain = research.backtest(bars, predictions, PUBLISHED.with_values({"meta.enabled": False})).result
    is_low = heard.planes.regime[0] < 0.4
    assert is_low.mean() > 0.2
    assert (heard.decisions.ensemble_action == predictions.action[MODELS.index("nhits")])[is_low].all()
    assert_same_bits(heard.decisions.ensemble_action[~is_low], plain.decisions.ensemble_action[~is_low])
    assert (heard.decisions.ensemble_action != plain.decisions.ensemble_action).any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("volatility_wild = {xgb = 2}", "must name some of volatility_low, .*, was 'volatility_wild'"),
        ("xgb = 2", "must name some of volatility_low, .*, was 'xgb'"),
        ("volatility_low = 2", "must be a table such as {xgb = 1.2}, was 2"),
        ("volatility_low = {xgb = -1}", r"volatility_low.xgb must be a number in \[0, 100\], was -1"),
        ("volatility_low = {xgb = true}", "was True"),
    ],
)
def test_a_bad_table_is_named(tmp_path, text, message) -> None:
    file = tmp_path / "qt.toml"
    file.write_text(f"[ensemble.regime_weights]\n{text}\n")
    with pytest.raises(UserError, match=message):
        load_config("published", path=file)


def test_a_table_that_names_nobody_of_the_run_is_refused(tmp_path) -> None:
    file = tmp_path / "qt.toml"
    file.write_text("[ensemble.regime_weights]\nvolatility_low = {catboost = 2}\n")
    bars = simulate("random_walk", n_bars=200, n_symbols=1, seed=1)
    with pytest.raises(UserError, match=r"regime_weights.volatility_low must name some of .*xgb, .*, was 'catboost'"):
        research.backtest(bars, Predictions.random(bars), load_config("published", path=file).params)


# ------------------------------------------------------------------ fitted


def skilled(n: int = 3_000, n_folds: int = 3, seed: int = 0) -> tuple[np.ndarray, Predictions]:
    """Cells by turns, labels by chance, xgb right 80 % of the time in one cell and 40 % elsewhere, lgbm always 40 %."""
    rng = np.random.default_rng(seed)
    bars = simulate("random_walk", n_bars=n, n_symbols=2, seed=seed)
    cells = rng.integers(0, 9, (n, 2)).astype(np.int8)
    labels = rng.integers(0, 3, (n, 2)).astype(np.int8)
    action = np.full((5, n, 2), -1, np.int8)
    for m, skill in ((0, np.where(cells == HIGH_UP, 0.8, 0.4)), (1, np.full((n, 2), 0.4))):
        wrong = (labels + rng.integers(1, 3, labels.shape)) % 3
        action[m] = np.where(rng.random(labels.shape) < skill, labels, wrong)
    fold = np.repeat(np.arange(-1, n_folds), -(-n // (n_folds + 1)))[:n].astype(np.int16)
    action[:, fold < 0] = -1
    confidence = np.where(action >= 0, 0.6, np.nan)
    label = Label("L1", 1, -0.001, 0.001)
    made = Predictions(bars.open_time, bars.close_time, bars.symbols, None, action, confidence, fold, labels, label)
    return cells, made


def test_the_better_model_of_a_slice_is_heard_there() -> None:
    cells, predictions = skilled()
    factors = fit_factors(cells, predictions, start=2_800)
    assert factors[HIGH_UP, 0] == pytest.approx(0.8 / 0.6, abs=0.12)
    assert factors[HIGH_UP, 1] == pytest.approx(0.4 / 0.6, abs=0.12)
    others = np.delete(factors, HIGH_UP, axis=0)
    assert np.abs(others[:, :2] - 1.0).max() < 0.25
    assert (factors[:, 2:] == 1.0).all()
    np.testing.assert_allclose(factors[:, :2].sum(axis=1), 2.0)


def test_a_slice_with_few_events_is_left_alone() -> None:
    cells, predictions = skilled()
    cells[:] = 0
    cells[2_000:2_014, :] = LOW_SIDEWAYS  # 28 events
    factors = fit_factors(cells, predictions, start=2_800)
    assert (factors[LOW_SIDEWAYS] == 1.0).all()
    assert not (factors[0] == 1.0).all()
    longer = replace(predictions, label=replace(predictions.label, horizon=200))
    assert (fit_factors(cells, longer, start=2_800)[0] == 1.0).all()


def test_nothing_that_ends_later_is_seen() -> None:
    """Rewriting what a fold's first bar cannot know changes no factor; rewriting the last row that it can know does."""
    cells, predictions = skilled()
    horizon, start = 5, 2_000
    predictions = replace(predictions, label=replace(predictions.label, horizon=horizon))
    fitted = fit_factors(cells, predictions, start)

    def moves(first: int, label: int) -> bool:
        labels = np.where((np.arange(predictions.n) >= first)[:, None], label, predictions.labels).astype(np.int8)
        return not np.array_equal(fit_factors(cells, replace(predictions, labels=labels), start), fitted)

    assert not any(moves(start - horizon, label) for label in range(3))
    assert any(moves(start - horizon - 1, label) for label in range(3))


def test_every_fold_but_the_first_gets_its_stage() -> None:
    bars = simulate("random_walk", n_bars=3_000, n_symbols=2, seed=0)
    predictions = skilled()[1]
    rollout = (str(np.datetime64(int(bars.close_time[1_600]), "ns")), True, False)
    given = PUBLISHED.with_values({FACTORS: regime_factors({"volatility_low": {"xgb": 2.0}}), "stages": [rollout]})
    fitted = fit_regime_weights(bars, predictions, given)
    starts = [int(np.flatnonzero(predictions.fold == k)[0]) for k in (1, 2)]
    assert [s.start for s in fitted.stages] == sorted([int(bars.close_time[1_600]), *(int(bars.close_time[t]) for t in starts)])
    assert fitted.ensemble == given.ensemble  # until the second fold begins
    first = np.reshape(dict(fitted.stages[0].values)[FACTORS], (9, 5))
    assert (first[:3, 2] == 1.0).all()
    assert (first[:3, 0] / np.where(first[3:6, 0] == 0, 1, first[3:6, 0]) > 1.4).all()  # the table stays underneath
    run = research.backtest(bars, predictions, fitted)
    assert run.params.stages == fitted.stages
    assert any(text.startswith("the weights by regime") for text in run.verify()["not_covered"])
    later = replace(predictions, labels=np.where((np.arange(3_000) >= starts[1])[:, None], 0, predictions.labels).astype(np.int8))
    assert fit_regime_weights(bars, later, given) == fitted


def test_it_is_off_unless_asked_for_and_refused_without_folds() -> None:
    assert load_config("published").run.regime_fit is False
    assert load_config("published", sets=["run.regime_fit=on"]).run.regime_fit is True
    with pytest.raises(ValueError, match=r"run\.regime_fit must be on or off, was 'maybe'"):
        load_config("published", sets=["run.regime_fit=maybe"])
    job = Job("simulated:random_walk?n_bars=300&n_symbols=2", load_config(sets=["run.regime_fit=on"]))
    with pytest.raises(UserError, match=r"run\.regime_fit must be off where ensemble\.rule is mean, was on"):
        inputs_of(job, simulate("random_walk", n_bars=300, n_symbols=2))
    bars = simulate("random_walk", n_bars=300, n_symbols=2, seed=0)
    with pytest.raises(UserError, match=r"run.regime_fit must have walk-forward predictions of two folds or more, was <imported"):
        fit_regime_weights(bars, Predictions.random(bars), PUBLISHED)
