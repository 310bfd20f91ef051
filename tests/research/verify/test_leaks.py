"""Is every planted leak found, by the detector that bears its name, and is a clean pipeline left in peace?"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from imblearn.over_sampling import SMOTE

from qtcore.types import Bars
from research.training.labels import LABELS, fit_thresholds
from research.training.meta.estimators import Rows, _oversampled
from research.training.models.calibration import fit_calibration
from research.training.splits import walk_forward
from research.training.targets import forward_return
from research.verify import leaks
from tests.conftest import awkward_bars
from tests.support import PUBLISHED

BARS = awkward_bars(400, seed=3, n_symbols=4)


def frame(bars: Bars, name: str = "close") -> pd.DataFrame:
    return pd.DataFrame(getattr(bars, name))


def walk(n: int = 400, n_symbols: int = 3, seed: int = 0) -> Bars:
    """Driftless random walk with clustered volatility, no hole."""
    rng = np.random.default_rng(seed)
    vol = 0.01 * np.exp(0.5 * np.sin(np.arange(n) / 40.0))[:, None]
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 1.0, (n, n_symbols)) * vol, axis=0))
    open_ = np.vstack([close[:1], close[:-1]])
    time = np.arange(n, dtype=np.int64) * 3_600_000_000_000
    high, low = np.maximum(open_, close) * 1.002, np.minimum(open_, close) * 0.998
    volume = rng.lognormal(3.0, 1.0, (n, n_symbols))
    return Bars(
        time, time + 3_600_000_000_000, open_, high, low, close, volume, tuple(f"S{i}" for i in range(n_symbols)), 3_600_000_000_000
    )


def four_hour_close(bars: Bars, closed: bool) -> pd.DataFrame:
    """Close of the 4-hour bar: of the running one (its close is not known yet), or of the last closed one."""
    close = frame(bars)
    group = np.arange(bars.n) // 4
    last = close.groupby(group).last()
    return last.shift(1).reindex(group).reset_index(drop=True) if closed else last.reindex(group).reset_index(drop=True)


LEAKS = {
    "shifted": lambda b: frame(b).shift(-1),
    "centred_window": lambda b: frame(b).rolling(11, center=True, min_periods=1).mean(),
    "back_fill": lambda b: frame(b).bfill(),
    "full_sample_scaler": lambda b: (frame(b) - frame(b).mean()) / frame(b).std(),
    "full_sample_percentile": lambda b: frame(b).rank(pct=True),
    "higher_timeframe": lambda b: four_hour_close(b, closed=False),
}
CLEAN = {
    "return": lambda b: frame(b).pct_change(fill_method=None),
    "trailing window": lambda b: frame(b).rolling(11, min_periods=1).mean(),
    "carried forward": lambda b: frame(b).ffill(),
    "expanding scale": lambda b: (frame(b) - frame(b).expanding().mean()) / frame(b).expanding().std(),
    "expanding rank": lambda b: frame(b).expanding().rank(pct=True),
    "closed higher timeframe": lambda b: four_hour_close(b, closed=True),
    "exponential mean": lambda b: frame(b).ewm(span=20).mean(),
    "volume share": lambda b: frame(b, "volume") / frame(b, "volume").rolling(20, min_periods=16).mean(),
}


@pytest.mark.parametrize("name", LEAKS)
def test_a_planted_feature_leak_is_named(name):
    (found,) = leaks.audit_features(lambda b: LEAKS[name](b).to_numpy(), BARS)
    assert found.detector == name, found
    assert found.symbol in BARS.symbols
    assert 0 <= found.bar < BARS.n
    assert f"at bar {found.bar} " in found.message


@pytest.mark.parametrize("name", CLEAN)
@pytest.mark.parametrize("bars", [BARS, walk()], ids=["awkward", "walk"])
def test_a_clean_feature_raises_no_alarm(name, bars):
    assert leaks.audit_features(lambda b: CLEAN[name](b).to_numpy(), bars) == []


@pytest.mark.parametrize("name", [n for n in LEAKS if n != "back_fill"])
def test_the_leak_is_found_without_holes_too(name):
    (found,) = leaks.audit_features(lambda b: LEAKS[name](b).to_numpy(), walk(seed=5))
    assert found.detector == name, found


@pytest.mark.parametrize("reach", [1, 3, 5])
def test_the_rows_looked_ahead_are_counted(reach):
    (found,) = leaks.audit_features(lambda b: frame(b).shift(-reach).to_numpy(), walk(seed=1))
    assert (found.detector, found.reach) == ("shifted", reach)


def test_variants_of_the_global_leaks_are_named_too():
    def low_high(b):
        x = frame(b)
        return ((x - x.min()) / (x.max() - x.min())).to_numpy()

    def quintile(b):
        x = frame(b).pct_change(fill_method=None)
        return sum((x > x.quantile(q)).astype(float) for q in (0.2, 0.4, 0.6, 0.8)).where(x.notna()).to_numpy()

    assert [f.detector for f in leaks.audit_features(low_high, walk(seed=2))] == ["full_sample_scaler"]
    (found,) = leaks.audit_features(quintile, walk(seed=2))
    assert found.detector == "full_sample_percentile"


def test_only_the_guilty_column_is_named():
    found = leaks.audit_features(lambda b: {"good": frame(b).diff().to_numpy(), "bad": frame(b).shift(-1).to_numpy()}, BARS)
    assert [(f.column, f.detector) for f in found] == [("bad", "shifted")]


def test_our_features_raise_no_alarm():
    from qtcore.features import FeatureBank

    def compute(bars):
        planes = FeatureBank(PUBLISHED, bars.symbols, bars.interval).compute(bars)
        return {name: planes[name] for name in planes.names}

    assert leaks.audit_features(compute, BARS, n_cuts=3) == []


# ------------------------------------------------------------------ labels and splits

H = 5


def labels_of(bars: Bars, horizon: int = H) -> np.ndarray:
    ahead = frame(bars).shift(-horizon) / frame(bars) - 1.0
    out = np.where(ahead > 0.005, 2, np.where(ahead < -0.005, 0, 1))
    return np.where(ahead.isna(), -1, out).astype(np.int8)


def matrix_of(bars: Bars) -> np.ndarray:
    """Clean columns: returns of three lengths, a volatility, a volume share."""
    x, v = frame(bars), frame(bars, "volume")
    columns = [x.pct_change(k, fill_method=None) for k in (1, 5, 20)] + [
        x.pct_change(fill_method=None).rolling(20).std(),
        v / v.rolling(20).mean(),
    ]
    return np.stack([c.to_numpy() for c in columns], axis=-1)


def test_the_label_as_feature_is_found():
    bars = walk(1_000, seed=7)
    matrix, labels = matrix_of(bars), labels_of(bars)
    planted = np.concatenate([matrix, labels[..., None].astype(float)], axis=-1)
    found = leaks.label_as_feature(planted, labels, [*"abcde", "secret"])
    assert [(f.detector, f.column) for f in found] == [("label_as_feature", "secret")]
    ahead = (frame(bars).shift(-H) / frame(bars) - 1.0).to_numpy()[..., None]
    assert [f.column for f in leaks.label_as_feature(np.concatenate([ahead, matrix], axis=-1), labels)] == ["column 0"]


ROWS = np.arange(1_000)
END = ROWS + H
TEST = np.arange(700, 800)
CLEAN_FIT = np.arange(0, 590)
CLEAN_STOP = np.arange(600, 695)


def test_no_purge_is_found():
    (found,) = leaks.no_purge(np.arange(0, 700), TEST, END)
    assert (found.detector, found.bar) == ("no_purge", 695)
    assert found.message.startswith("5 training rows")
    assert leaks.no_purge(np.arange(0, 695), TEST, END) == []
    after = np.arange(803, 900)  # training after the test, as combinatorial splits do: labels of the last scored rows reach 804
    assert [f.bar for f in leaks.no_purge(after, TEST, END)] == [803]
    assert leaks.no_purge(np.arange(805, 900), TEST, END) == []


def test_a_shuffled_split_is_found():
    order = np.random.default_rng(0).permutation(1_000)
    (found,) = leaks.shuffled_split(order[:800], order[800:])
    assert found.detector == "shuffled_split"
    assert leaks.no_purge(order[:800], order[800:], END)[0].detector == "no_purge"
    assert leaks.shuffled_split(CLEAN_FIT, TEST) == []


def test_early_stopping_on_the_test_fold_is_found():
    (found,) = leaks.early_stopping_on_test(TEST, TEST, END)
    assert found.detector == "early_stopping_on_test"
    assert leaks.early_stopping_on_test(np.arange(690, 700), TEST, END)[0].bar == 695
    assert leaks.early_stopping_on_test(CLEAN_STOP, TEST, END) == []


def test_the_folds_of_this_project_raise_no_alarm():
    for fold in walk_forward(END, n_folds=4, embargo=H):
        assert leaks.no_purge(fold.fit, fold.test, END) == leaks.no_purge(fold.valid, fold.test, END) == []
        assert leaks.shuffled_split(fold.train, fold.test) == []
        assert leaks.early_stopping_on_test(fold.valid, fold.test, END) == []


def ridge(bars: Bars, fit: np.ndarray, stop: np.ndarray, scale_on: np.ndarray) -> str:
    """A model small enough to read: standardise, ridge with the strength that is best on the stopping rows."""
    x, y = matrix_of(bars)[:, 0], labels_of(bars)[:, 0].astype(float)
    good = np.isfinite(x).all(axis=1) & (y >= 0)
    mean, std = x[scale_on[good[scale_on]]].mean(axis=0), x[scale_on[good[scale_on]]].std(axis=0)
    z = (x - mean) / std
    a, b = (rows[good[rows]] for rows in (fit, stop))
    fits = [np.linalg.solve(z[a].T @ z[a] + k * np.eye(z.shape[1]), z[a].T @ y[a]) for k in (0.1, 10.0, 1_000.0)]
    best = min(fits, key=lambda w: float(np.mean((z[b] @ w - y[b]) ** 2)))
    return best.tobytes().hex()


PIPELINES = {
    "clean": (lambda b: ridge(b, CLEAN_FIT, CLEAN_STOP, CLEAN_FIT), False),
    "scaled on everything": (lambda b: ridge(b, CLEAN_FIT, CLEAN_STOP, np.arange(b.n)), True),
    "stopped on the test fold": (lambda b: ridge(b, CLEAN_FIT, TEST, CLEAN_FIT), True),
    "not purged": (lambda b: ridge(b, np.arange(0, 700), CLEAN_STOP, CLEAN_FIT), True),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_later_bars_that_change_a_model_are_found(name):
    train, is_leaky = PIPELINES[name]
    worlds = [leaks.trained_on_later(train, walk(1_000, seed=11), boundary=700, seed=s) for s in range(3)]
    assert any(worlds) == is_leaky
    assert {f.detector for found in worlds for f in found} <= {"trained_on_later"}


def test_random_training_is_said():
    rng = np.random.default_rng(0)
    (found,) = leaks.trained_on_later(lambda b: str(rng.random()), walk(), 300)
    assert "fix its seed" in found.message


# ------------------------------------------------------------------ training


def test_percentiles_of_the_full_sample_are_found():
    bars = walk(600, seed=29)
    returns = forward_return(bars.close, 4)
    (fold, *_) = walk_forward(np.arange(600) + 4, n_folds=3, embargo=4)
    known = LABELS["L4"]
    (found,) = leaks.full_sample_thresholds(lambda r: fit_thresholds(r, known, slice(None)), returns, fold.boundary)
    assert (found.detector, found.bar) == ("full_sample_thresholds", fold.boundary)
    assert leaks.full_sample_thresholds(lambda r: fit_thresholds(r, known, fold.train), returns, fold.boundary) == []


def test_a_calibration_on_the_test_fold_is_found():
    rng = np.random.default_rng(5)
    probs = rng.dirichlet((2.0, 3.0, 2.0), 1_000)
    labels = np.array([rng.choice(3, p=p) for p in probs]).astype(np.int8)

    def fit(rows: np.ndarray, kind: str = "vector"):
        def on(labels: np.ndarray):
            made = fit_calibration(kind, probs[rows], labels[rows], np.ones(3))
            return (made.scale, *made.factors)

        return on

    for kind in ("temperature", "vector"):
        (found,) = leaks.calibration_on_test(fit(TEST, kind), labels, TEST)
        assert (found.detector, found.bar) == ("calibration_on_test", 700)
        assert leaks.calibration_on_test(fit(np.arange(600, 701), kind), labels, TEST) != []  # one row is enough
        assert leaks.calibration_on_test(fit(CLEAN_STOP, kind), labels, TEST) == []


@pytest.mark.parametrize("seed", range(4))
def test_resampling_that_touches_held_out_rows_is_found(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(240, 6)), (np.arange(240) % 5 == 0).astype(int)
    train, held = slice(0, 200), slice(200, 240)

    def smote(rows: slice) -> np.ndarray:
        return SMOTE(random_state=seed).fit_resample(x[rows], y[rows])[0]

    assert leaks.resampling_on_test(smote(train), x[train], x[held]) == []
    (found,) = leaks.resampling_on_test(smote(slice(0, 240)), x[train], x[held])
    assert found.detector == "resampling_on_test"
    copied = np.vstack([x[train], x[held][y[held] == 1]])  # plain oversampling leaks copies
    assert leaks.resampling_on_test(copied, x[train], x[held])[0].message.startswith("8 of 8 resampled rows")
    assert leaks.resampling_on_test(np.vstack([x[train], x[train][y[train] == 1]]), x[train], x[held]) == []
    made = _oversampled(Rows(x[train], y[train].astype(np.int8)), seed)  # what our meta models are given
    assert leaks.resampling_on_test(made.x, x[train], x[held]) == []


def test_a_meta_model_on_in_sample_votes_is_found():
    folds = walk_forward(END, n_folds=4, embargo=H)
    voted = np.full(1_000, -1)
    for fold in folds:
        voted[fold.test] = fold.number
    trained = [fold.train for fold in folds]
    for fold in folds[1:]:
        earlier = np.flatnonzero((voted >= 0) & (voted < fold.number))
        assert leaks.meta_in_sample(earlier, voted, trained, END) == []
    last = np.full(1_000, 3)  # the newest base model, asked about all of history
    (found,) = leaks.meta_in_sample(np.arange(400, 800), last, trained, END)
    assert (found.detector, found.bar) == ("meta_in_sample", 400)
    unpurged = [np.arange(0, fold.boundary) for fold in folds]
    assert leaks.meta_in_sample(np.arange(400, 850), voted, unpurged, END) != []


# ------------------------------------------------------------------ predictions and universe


def mean_reversion(bars: Bars) -> np.ndarray:
    """An honest score: against the last three bars, weaker each bar back."""
    r = frame(bars).pct_change(fill_method=None)
    return -(r + 0.6 * r.shift(1) + 0.3 * r.shift(2)).to_numpy()


def early(score: np.ndarray) -> np.ndarray:
    return np.vstack([score[1:], np.full((1, score.shape[1]), np.nan)])


def test_predictions_one_bar_early_are_found():
    bars = walk(1_000, seed=13)
    score = mean_reversion(bars)
    assert leaks.predictions_early(score, bars) == []
    (found,) = leaks.predictions_early(early(score), bars)
    assert (found.detector, found.reach) == ("predictions_early", 1)


def test_a_real_edge_is_no_leak():
    """Signs right in 60 of 100 cases for the next five bars, as the planted world has them."""
    bars = walk(4_000, seed=17)
    ahead = np.sign((frame(bars).shift(-5) / frame(bars) - 1.0).to_numpy())
    rng = np.random.default_rng(0)
    score = np.where(rng.random(ahead.shape) < 0.6, ahead, -ahead)
    assert leaks.predictions_early(score, bars) == []
    one = np.sign((frame(bars).shift(-1) / frame(bars) - 1.0).to_numpy())
    assert leaks.predictions_early(np.where(rng.random(one.shape) < 0.6, one, -one), bars) == []


def test_serving_says_whether_a_row_is_early():
    bars = walk(200, seed=19)

    def serve(b: Bars) -> np.ndarray:
        return mean_reversion(b)[-1]

    stored = mean_reversion(bars)
    assert leaks.served_early(serve, stored, bars) == []
    (found,) = leaks.served_early(serve, early(stored), bars)
    assert (found.detector, found.reach) == ("served_early", 1)
    (other,) = leaks.served_early(serve, stored + 1e-9, bars)
    assert "are not what bars up to their close give" in other.message


def by_volume(bars: Bars, stop: int | None) -> list[str]:
    total = np.nansum((bars.close * bars.volume)[:stop], axis=0)
    return [bars.symbols[i] for i in np.argsort(-total)[:2]]


def test_a_universe_chosen_by_future_volume_is_found():
    bars = walk(400, n_symbols=6, seed=23)
    volume = bars.volume.copy()
    volume[:200, 5] *= 0.01
    volume[200:, 5] *= 50.0  # unknown before row 200
    bars = replace(bars, volume=volume)
    (found,) = leaks.future_universe(lambda b: by_volume(b, None), bars, start=200)
    assert found.detector == "future_universe"
    assert "S5" in found.message
    assert leaks.future_universe(lambda b: by_volume(b, 200), bars, start=200) == []


# ------------------------------------------------------------------ false alarms

N_WALKS = 40


def test_false_alarms_on_random_walks():
    """Measured: none in 320 statistical tests (40 walks x (5 columns + 3 scores)), below 0.9 % at 95 % confidence; none in 40 audits."""
    alarms = []
    for seed in range(N_WALKS):
        bars = walk(300, seed=100 + seed)
        rng = np.random.default_rng(seed)
        alarms += leaks.label_as_feature(matrix_of(bars), labels_of(bars))
        for score in (mean_reversion(bars), -mean_reversion(bars), rng.integers(-1, 2, bars.close.shape).astype(float)):
            alarms += leaks.predictions_early(score, bars)
        if seed % 8 == 0:  # bits are compared, so chance has no part in these; five walks show it
            alarms += leaks.audit_features(lambda b: {name: f(b).to_numpy() for name, f in CLEAN.items()}, bars, seed=seed, n_cuts=2)
    assert alarms == []
