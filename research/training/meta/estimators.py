"""Meta estimators: how each kind of meta model is fitted.

| kind     | model                                              | calibration               | file  |
| -------- | -------------------------------------------------- | ------------------------- | ----- |
| logistic | multinomial regression, C 0.1, balanced (12.4)     | platt, temperature, none  | npz   |
| mlp      | F-32-32-3, ReLU, dropout 0.2 (5)                   | none, temperature         | npz   |
| forest   | 100 trees, at least 50 rows a leaf, balanced       | none                      | skops |
| xgboost  | trees of depth 3, early stopping, balanced         | none                      | ubj   |
| lightgbm | trees of 8 leaves, early stopping, balanced        | none                      | txt   |

In mode `bet` there are two classes, a bet that loses and one that pays, and two kinds: logistic regression and LightGBM, each bet weighted
by how few others share its bars. Nothing is balanced, so that probabilities are those of paying.

Everything is fitted on the scaled rows of the training part; its purged last 20 % calibrates, or stops the training (`spec` D-89). `fitted`
says how each answers and is stored.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.meta import MetaModel
from qtcore.types import F8
from research.errors import ModelError, need
from research.training.meta.fitted import BoostedFit, ForestFit, KernelFit, LeafWiseFit, MetaFit, check_varies
from research.training.models.base import CLASSES, ModelAbsentError, Scaler, class_weights

Labels = NDArray[np.int8]
CALIBRATIONS: dict[str, tuple[str, ...]] = {
    "logistic": ("platt", "temperature", "none"),
    "mlp": ("none", "temperature"),
    **dict.fromkeys(("forest", "xgboost", "lightgbm"), ("none",)),
}
KINDS = tuple(CALIBRATIONS)
BET_KINDS = ("logistic", "lightgbm")  # those of mode `bet`
HIDDEN, DROPOUT, EPOCHS, PATIENCE, BATCH = 32, 0.2, 50, 5, 512  # of the network
ROUNDS, STOP_AFTER = 300, 20  # of the boosted trees
NO_CLASS = -1e3  # score of a class that a bet does not have: its probability is 0.0
PROBED, MIN_PROBED, ABLE, MAX_KNOWN = 10_000, 20, 0.75, 0.85  # of `check_labels`: newest rows, held rows of a class, mean shares known


@dataclass(frozen=True)
class Rows:
    """Feature rows [k, F] without NaN, their classes [k], and what each counts [k], None for all alike."""

    x: F8
    y: Labels
    weights: F8 | None = None

    @property
    def counts(self) -> NDArray[np.int64]:
        """Rows of each class [3]."""
        return np.bincount(self.y, minlength=3)


def resolve_calibration(kind: str, calibration: str) -> str:
    """Return the calibration that `auto` means for a kind.

    Raises UserError on a kind that is unknown or needs an extra, and on a calibration it does not have.
    """
    if kind not in CALIBRATIONS:
        raise ModelError(f"run.meta must be one of {', '.join(KINDS)}, was {kind!r}")
    if kind == "mlp":
        need("torch", "the meta model mlp")
    own = CALIBRATIONS[kind]
    if calibration not in ("auto", *own):
        raise ModelError(f"run.meta_calibration must be auto or one of {', '.join(own)} for kind {kind}, was {calibration!r}")
    return own[0] if calibration == "auto" else calibration


def fit_meta(
    kind: str, names: tuple[str, ...], train: Rows, held: Rows, *, calibration: str = "auto", smote: bool = False, seed: int = 42
) -> MetaFit:
    """Fit a meta model on `train`; `held`, later and purged, calibrates it or stops its training.

    smote: fill up the rarer classes with synthetic training rows (D-53). Raises ModelAbsentError where a class is missing, or where the
    fitted model always says the same (D-42); UserError on an unknown kind or calibration.
    """
    calibration = resolve_calibration(kind, calibration)
    for part, rows in (("training", train), ("calibration", held)):
        if rows.counts.min() == 0:
            lacking = ", ".join(name for name, count in zip(CLASSES, rows.counts) if count == 0)
            raise ModelAbsentError(f"{part} rows of the meta model must hold every class, was without {lacking}; load a longer period")
    scaler = Scaler.fit(train.x)  # type: ignore[arg-type]
    scaled, later = (Rows((rows.x - scaler.mean) / scaler.scale, rows.y) for rows in (train, held))
    if smote:
        scaled = _oversampled(scaled, seed)
    made: MetaFit
    if kind == "logistic":
        made = KernelFit(_logistic(names, scaler, scaled, later, calibration, seed))
    elif kind == "mlp":
        made = KernelFit(_network(names, scaler, scaled, later, calibration, seed))
    elif kind == "forest":
        made = ForestFit(_forest(scaled, seed), names, scaler)
    elif kind == "lightgbm":
        weights = class_weights(train.counts, "balanced")
        first, watch = (replace(rows, weights=weights[rows.y]) for rows in (scaled, later))
        made = LeafWiseFit(_leaf_wise(first, watch, seed), names, scaler)
    else:
        made = BoostedFit(_boosted(scaled, later, seed), names, scaler)
    check_varies(made)
    return made


def fit_bets(kind: str, names: tuple[str, ...], train: Rows, held: Rows, seed: int = 42) -> MetaFit:
    """Fit how likely a bet pays, on rows of class SELL (it loses) and BUY (it pays); what it answers is [loses, 0, pays].

    kind: one of `BET_KINDS`; `held`, later and purged, stops the training of trees. Raises ModelAbsentError where a class is missing, or
    the fitted model always says the same.
    """
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(train.y)) < 2:
        raise ModelAbsentError("training rows of the meta model must hold bets that pay and bets that lose, was with one kind only")
    scaler = Scaler.fit(train.x)  # type: ignore[arg-type]
    x = (train.x - scaler.mean) / scaler.scale
    if kind == "lightgbm":
        later = replace(held, x=(held.x - scaler.mean) / scaler.scale)
        trees = LeafWiseFit(_leaf_wise(replace(train, x=x), later, seed), names, scaler)
        check_varies(trees)
        return trees
    fitted = LogisticRegression(C=0.1, max_iter=1000, random_state=seed).fit(x, train.y == 2, train.weights)
    half, offset = 0.5 * fitted.coef_[0], 0.5 * float(fitted.intercept_[0])
    arrays = {"mean": scaler.mean, "scale": scaler.scale, "coef": np.stack([-half, np.zeros_like(half), half])}
    arrays["intercept"] = np.array([-offset, NO_CLASS, offset])
    made = KernelFit(MetaModel("logistic_softmax", names, arrays))
    check_varies(made)
    return made


def check_classes(fit: MetaFit, held: Rows) -> None:
    """Raise ModelAbsentError where the model says one class of all its calibration rows (D-42): it would replace every decision by that."""
    if len(np.unique(np.argmax(fit.answer(held.x), axis=1))) < 2:
        raise ModelAbsentError("meta model must predict more than one class on its calibration rows, was one only; train on more rows")


def check_labels(train: Rows, held: Rows, seed: int) -> None:
    """Raise ModelAbsentError where the labels are a function of the rows: nothing that the market decides can be told from them so well.

    A tree and a regression learn the newest training rows and say the class of the held ones, later and purged; where one of them looks too
    able, a forest does as well. The limit is 85 % known, the mean over classes with at least 20 held rows. Real labels stay far below it
    (who only repeats a trade's side knows 67 % of L6); the recorded ensemble action or the sign of a feature come out at 90 to 100 %.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.tree import DecisionTreeClassifier

    x, y = train.x[-PROBED:], train.y[-PROBED:]
    classes = np.flatnonzero(np.bincount(held.y, minlength=3) >= MIN_PROBED)
    if len(classes) < 2 or len(np.unique(y)) < 2:
        return
    scaler = Scaler.fit(x)  # type: ignore[arg-type]
    scaled, later = ((rows - scaler.mean) / scaler.scale for rows in (x, held.x))

    def known(probe: Any) -> float:
        said = probe.fit(scaled, y).predict(later)
        return float(np.mean([np.mean(said[held.y == k] == k) for k in classes]))

    tree = DecisionTreeClassifier(class_weight="balanced", min_samples_leaf=3, random_state=seed)
    best = max(known(tree), known(LogisticRegression(max_iter=1000, class_weight="balanced")))
    if ABLE < best <= MAX_KNOWN:
        best = max(best, known(RandomForestClassifier(50, max_features=0.5, class_weight="balanced", random_state=seed, n_jobs=1)))
    if best > MAX_KNOWN:
        raise ModelAbsentError(
            f"labels must be decided by the market, were a function of the model's inputs: {best:.1%} of later rows are known from "
            f"them, at most {MAX_KNOWN:.0%} may be; train on outcomes"
        )


def _oversampled(rows: Rows, seed: int) -> Rows:
    """Fill every class up to the largest between neighbours of its own; calibration and test rows never come here."""
    from imblearn.over_sampling import SMOTE

    try:
        x, y = SMOTE(random_state=seed).fit_resample(rows.x, rows.y)
    except ValueError as error:
        raise ModelAbsentError(f"training rows must be enough for SMOTE, was not: {error}") from error
    return Rows(np.ascontiguousarray(x), np.asarray(y, np.int8))


def _logistic(names: tuple[str, ...], scaler: Scaler, train: Rows, held: Rows, calibration: str, seed: int) -> MetaModel:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=0.1, max_iter=1000, class_weight="balanced", random_state=seed).fit(train.x, train.y)
    arrays = {"mean": scaler.mean, "scale": scaler.scale, "coef": fitted.coef_, "intercept": fitted.intercept_}
    if calibration == "none":
        return MetaModel("logistic_softmax", names, arrays)
    method = "sigmoid" if calibration == "platt" else "temperature"
    calibrated = CalibratedClassifierCV(FrozenEstimator(fitted), method=method).fit(held.x, held.y)
    found = calibrated.calibrated_classifiers_[0].calibrators
    if calibration == "temperature":
        beta = float(found[0].beta_)
        return MetaModel("logistic_softmax", names, arrays | {"coef": fitted.coef_ * beta, "intercept": fitted.intercept_ * beta})
    sigmoids = {"slope": np.array([s.a_ for s in found]), "offset": np.array([s.b_ for s in found])}
    return MetaModel("logistic_platt", names, arrays | sigmoids)


def _network(names: tuple[str, ...], scaler: Scaler, train: Rows, held: Rows, calibration: str, seed: int) -> MetaModel:
    """Adam, weight decay 1e-4, balanced cross-entropy; the weights of the best epoch on the held rows are kept. One thread: same bits."""
    import torch
    from torch import nn

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            first, second = ((nn.Linear(width, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT)) for width in (len(names), HIDDEN))
            net = nn.Sequential(*first, *second, nn.Linear(HIDDEN, 3)).double()
            x, y, late_x, late_y = (
                torch.from_numpy(np.ascontiguousarray(a)) for a in (train.x, train.y.astype(np.int64), held.x, held.y.astype(np.int64))
            )
            loss = nn.CrossEntropyLoss(torch.from_numpy(class_weights(train.counts, "balanced")))
            optimiser = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-4)
            best, kept, waited = np.inf, {k: v.clone() for k, v in net.state_dict().items()}, 0
            for _ in range(EPOCHS):
                net.train()
                for batch in torch.randperm(len(x)).split(BATCH):
                    optimiser.zero_grad()
                    loss(net(x[batch]), y[batch]).backward()
                    optimiser.step()
                net.eval()
                with torch.no_grad():
                    now = float(loss(net(late_x), late_y))
                waited = 0 if now < best else waited + 1
                if now < best:
                    best, kept = now, {k: v.clone() for k, v in net.state_dict().items()}
                if waited >= PATIENCE:
                    break
            net.load_state_dict(kept)
            with torch.no_grad():
                scores = np.asarray(net.forward(late_x))
                beta = _temperature(scores, held.y) if calibration == "temperature" else 1.0
    finally:
        torch.set_num_threads(threads)
    arrays = {"mean": scaler.mean, "scale": scaler.scale}
    learned = net.state_dict()
    for k, layer in enumerate((0, 3, 6)):
        factor = beta if k == 2 else 1.0
        weight, bias = (learned[f"{layer}.{name}"].numpy() * factor for name in ("weight", "bias"))
        arrays |= {f"w{k + 1}": np.ascontiguousarray(weight.T), f"b{k + 1}": bias}
    return MetaModel("mlp", names, arrays)


def _temperature(scores: F8, labels: Labels) -> float:
    """Return the factor on scores [k, 3] with the least cross-entropy (Guo et al. 2017)."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    truth = labels.astype(np.int64)
    found = minimize_scalar(
        lambda b: -log_softmax(np.exp(b) * scores, axis=1)[np.arange(len(truth)), truth].mean(), bounds=(-10, 10), method="bounded"
    )
    return float(np.exp(found.x))


def _forest(train: Rows, seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    made = RandomForestClassifier(100, min_samples_leaf=50, max_depth=8, class_weight="balanced", random_state=seed, n_jobs=1)
    return made.fit(train.x, train.y)


def _boosted(train: Rows, held: Rows, seed: int) -> Any:
    import xgboost

    weights = class_weights(train.counts, "balanced")
    first, watch = (xgboost.DMatrix(rows.x.astype(np.float32), label=rows.y, weight=weights[rows.y], nthread=1) for rows in (train, held))
    params = {"objective": "multi:softprob", "num_class": 3, "eta": 0.05, "max_depth": 3, "subsample": 0.8, "colsample_bytree": 0.8}
    params |= {"eval_metric": "mlogloss", "seed": seed, "nthread": 1}
    booster = xgboost.train(params, first, ROUNDS, evals=[(watch, "held")], early_stopping_rounds=STOP_AFTER, verbose_eval=False)
    return booster[: booster.best_iteration + 1]


def _leaf_wise(train: Rows, held: Rows, seed: int) -> Any:
    """Grow trees on weighted rows of any two or three classes; one that has no rows gets a probability of about 0."""
    import lightgbm

    fixed = {"num_threads": 1, "deterministic": True, "force_row_wise": True, "verbosity": -1}  # a refit gives the same bits
    params = {"objective": "multiclass", "num_class": 3, "learning_rate": 0.05, "num_leaves": 8, "min_data_in_leaf": 50, "seed": seed}
    params |= {"bagging_fraction": 0.8, "bagging_freq": 1, "feature_fraction": 0.8, "metric": "multi_logloss"}
    first = lightgbm.Dataset(train.x, label=train.y, weight=train.weights, params=dict(fixed))
    watch = lightgbm.Dataset(held.x, label=held.y, weight=held.weights, reference=first, params=dict(fixed))
    stop = lightgbm.early_stopping(STOP_AFTER, verbose=False)
    booster = lightgbm.train({**params, **fixed}, first, ROUNDS, valid_sets=[watch], callbacks=[stop])
    return lightgbm.Booster(model_str=booster.model_to_string(num_iteration=booster.best_iteration))
