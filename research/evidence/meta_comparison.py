"""Comparison of learned meta layers: kinds, vectors and options walk-forward, beside the base models and the ensemble.

Every variant is scored on the same cells: those that all of them, every base model and the ensemble answered out of sample. No backtest
runs, so nothing here is a trial; the one that is then served is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from qtcore import Bars, Engine, Params
from qtcore.types import F8
from research.errors import UserError
from research.training.labels import score_labels
from research.training.meta.train import Material, MetaPlan, fit_fold, prepare
from research.training.models.base import ModelAbsentError
from research.training.predictions import Predictions, aligned

# name -> what `train_meta` takes; `per_symbol` fits one model a symbol, `horizon` trains on labels of so many rows
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "logistic meta26, platt": {},
    "logistic meta26, temperature": {"calibration": "temperature"},
    "logistic meta26, uncalibrated": {"calibration": "none"},
    "logistic meta26, smote": {"smote": True, "calibration": "none"},
    "mlp v5": {"kind": "mlp", "vector": "v5"},
    "mlp meta26": {"kind": "mlp"},
    "forest meta26": {"kind": "forest"},
    "xgboost meta26": {"kind": "xgboost"},
    "logistic meta32, uncalibrated": {"vector": "meta32", "calibration": "none"},
    "xgboost meta32": {"kind": "xgboost", "vector": "meta32"},
    "logistic bet30, uncalibrated": {"vector": "bet30", "calibration": "none"},
    "logistic bet35, uncalibrated": {"vector": "bet35", "calibration": "none"},
    "logistic meta26, uncalibrated, per symbol": {"calibration": "none", "per_symbol": True},
    "logistic meta26, uncalibrated, labels of 12 rows": {"calibration": "none", "horizon": 12},
    "logistic meta26, uncalibrated, labels of 24 rows": {"calibration": "none", "horizon": 24},
}

Progress = Callable[[int, int, str], Any]


def compare(
    bars: Bars,
    predictions: Predictions,
    params: Params | None = None,
    variants: Mapping[str, Mapping[str, Any]] = VARIANTS,
    *,
    seed: int = 42,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Train every variant walk-forward and score it beside the base models and the ensemble.

    Returns one row each, indexed by name: `n`, `balanced_accuracy` with `low` and `high` (95 %, block bootstrap), `minus_best` with
    `minus_best_low` and `minus_best_high`: the difference from the best base model, on the same resamples; `minus_ensemble` likewise;
    `entropy`: mean entropy of its answers over ln 3, and `escalates`: share above `meta.entropy_threshold`, which is what
    `meta.variant=learned` escalates. `attrs["absent"]` says which variants could not be trained. Raises UserError when no cell has
    every answer.
    """
    params, predictions = params or Params(), aligned(predictions, bars)
    if not predictions.slots:
        raise UserError("predictions must hold votes of a base model, was none; train models first")
    answers, absent = {}, {}
    for i, (name, variant) in enumerate(variants.items()):
        if progress is not None:
            progress(i, len(variants), f"meta layer: {name}")
        try:
            answers[name] = walk_forward_probs(bars, predictions, params, variant, seed)
        except (ModelAbsentError, UserError) as error:
            absent[name] = str(error)
    said = _opinions(bars, predictions, params, answers)
    table = _score(said, predictions, params, answers)
    table.attrs["absent"] = absent
    return table


def walk_forward_probs(bars: Bars, predictions: Predictions, params: Params, variant: Mapping[str, Any], seed: int) -> F8:
    """Return what one variant says out of sample, [n, S, 3], NaN before its first model. Raises ModelAbsentError when it has none."""
    asked: dict[str, Any] = {"kind": "logistic", "vector": "meta26", "seed": seed, **variant}
    per_symbol, horizon = asked.pop("per_symbol", False), asked.pop("horizon", None)
    if horizon is not None:
        predictions = _relabelled(bars, predictions, horizon)
    material, plan = prepare(bars, predictions, _of_sides(params), **asked)
    n, n_symbols = material.labels.shape
    out = np.full((n, n_symbols, 3), np.nan)
    for part in [slice(s, s + 1) for s in range(n_symbols)] if per_symbol else [slice(None)]:
        table = np.ascontiguousarray(material.table.reshape(n, n_symbols, -1)[:, part])
        own = replace(material, table=table.reshape(-1, table.shape[-1]), labels=np.ascontiguousarray(material.labels[:, part]))
        out[:, part] = _served(own, plan)
    if np.isnan(out).all():
        raise ModelAbsentError("no fold had 1,000 rows to train on; load a longer period")
    return out


def _of_sides(params: Params) -> Params:
    """Return parameters of the mode in which a layer learns sides, and one that never changes its mind is scored, on the same features."""
    own = {name: value for name, value in params.flat().items() if name.partition(".")[0] in ("features", "arbiter")}
    return Params.profile("published").with_values(own)


def _served(material: Material, plan: MetaPlan) -> F8:
    n, n_symbols = material.labels.shape
    out = np.full((n * n_symbols, 3), np.nan)
    for _, start, stop in material.folds:
        try:
            fit = fit_fold(material, plan, start)[0]
        except ModelAbsentError:
            continue
        cells = slice(start * n_symbols, stop * n_symbols)
        out[cells] = fit.answer(np.ascontiguousarray(material.table[cells]))
    return out.reshape(n, n_symbols, 3)


def _relabelled(bars: Bars, predictions: Predictions, horizon: int) -> Predictions:
    """Give the predictions labels of another horizon; percentiles are fitted on what lies before the first test fold."""
    first = np.flatnonzero(predictions.fold >= 0)
    share = float(first[0] / bars.n) if len(first) else 0.4
    labels, label = score_labels(bars, replace(predictions.label, horizon=horizon), train_share=share)
    return replace(predictions, labels=labels, label=label)


def _opinions(bars: Bars, predictions: Predictions, params: Params, answers: Mapping[str, F8]) -> dict[str, Any]:
    from research.training.scoring.opinions import Opinion

    decisions = Engine(params).run(bars, predictions.votes()).decisions
    voted = [(m, name) for m, name in enumerate(predictions.names) if name in predictions.slots]
    out = {name: Opinion(predictions.action[m], predictions.confidence[m]) for m, name in voted}
    out["ensemble"] = Opinion(decisions.ensemble_action, decisions.ensemble_confidence)
    for name, probs in answers.items():
        known = ~np.isnan(probs[..., 0])
        action = np.where(known, np.argmax(np.where(known[..., None], probs, 0.0), axis=-1), -1).astype(np.int8)
        out[name] = Opinion(action, np.where(known, probs.max(axis=-1), np.nan))
    return out


def _score(said: dict[str, Any], predictions: Predictions, params: Params, answers: Mapping[str, F8]) -> pd.DataFrame:
    from research.training.scoring.bootstrap import Bootstrap, block_length
    from research.training.scoring.differences import common, difference
    from research.training.scoring.opinions import tally

    labels, group = predictions.labels, np.zeros(predictions.labels.shape, np.int8)
    cells = common(said.values()) & (labels >= 0)
    if not cells.any():
        raise UserError("cells must exist that every model and variant answered, was none; load a longer period or compare fewer")
    inside = np.flatnonzero(cells.any(axis=1))
    rows = slice(int(inside[0]), int(inside[-1]) + 1)
    counted = {name: tally(opinion.where(cells), labels, group, 1) for name, opinion in said.items()}
    block = block_length([t.residual[rows] for t in counted.values()], predictions.label.horizon)
    bootstrap = Bootstrap(rows.stop - rows.start, block)
    figures = {name: _recall(t) for name, t in counted.items()}
    best = max(predictions.slots, key=lambda slot: figures[slot][0])
    table = []
    for name, t in counted.items():
        row: dict[str, Any] = {"name": name, "n": int(cells.sum())} | dict(
            zip(("balanced_accuracy", "low", "high"), figures[name], strict=True)
        )
        for column, other in (("minus_best", best), ("minus_ensemble", "ensemble")):
            gap = difference(t, counted[other], bootstrap, rows)["balanced_accuracy"]
            row |= {column: gap["difference"], f"{column}_low": gap["ci95"][0], f"{column}_high": gap["ci95"][1]}
        if name in answers:
            row |= _entropy(answers[name][cells], params.meta.entropy_threshold)
        table.append(row)
    return pd.DataFrame(table).set_index("name")


def _recall(counted: Any) -> tuple[float, float, float]:
    from research.training.scoring.intervals import share_limits, tilted
    from research.training.scoring.opinions import HITS, recall

    per_bar = counted.rows.sum(axis=1, dtype=np.int64)
    value = float(recall(per_bar.sum(axis=0).astype(float)))
    low, high = share_limits(value, recall(tilted(per_bar, per_bar[:, :HITS].sum(axis=1))))
    return value, low, high


def _entropy(probs: F8, threshold: float) -> dict[str, float]:
    entropy = -(probs * np.log(probs + 1e-10)).sum(axis=1) / np.log(3.0)
    return {"entropy": float(entropy.mean()), "escalates": float((entropy > threshold).mean())}


def best_variant(table: pd.DataFrame, names: Sequence[str] = ()) -> str:
    """Say in one sentence whether any variant of a comparison beats the best base model and the ensemble."""
    tried = table.loc[list(names)] if names else table[table["entropy"].notna()]
    name = str(tried["balanced_accuracy"].idxmax())
    row = tried.loc[name]
    beats = row["minus_best_low"] > 0.0 and row["minus_ensemble_low"] > 0.0
    verb = "beats" if beats else "does not beat"
    return (
        f"Of {len(tried)} meta layers tried the best, {name}, {verb} both the best base model and the ensemble in balanced accuracy: "
        f"{row['balanced_accuracy']:.1%}, {100 * row['minus_best']:+.1f} points from the best base model "
        f"({100 * row['minus_best_low']:+.1f} to {100 * row['minus_best_high']:+.1f})."
    )
