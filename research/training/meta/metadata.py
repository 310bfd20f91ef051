"""Metadata of a meta model, its `..._meta.json`: the fields of `spec` 12.6, the acceptance of 12.5 and D-74."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qtcore import Params
from qtcore.types import F8
from research.parallel import versions
from research.training.meta.estimators import Rows
from research.training.meta.fitted import MetaFit
from research.training.models.base import CLASSES
from research.training.models.scores import score


def describe(
    material: Any,
    plan: Any,
    params: Params,
    fit: MetaFit,
    rows: tuple[Rows, Rows],
    fold: tuple[int, int, int],
    earlier: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Describe one model.

    rows: those that fitted and those that calibrated it; fold: number, first row, row after the last of its test; earlier: metadata of the
    models before it, whose test folds are the walk-forward cross-validation.
    """
    number, start, stop = fold
    train, held = rows
    n_symbols = material.labels.shape[1]
    probs = fit.answer(np.ascontiguousarray(material.table[start * n_symbols : stop * n_symbols])).reshape(stop - start, n_symbols, 3)
    labels = material.labels[start:stop]
    traded = None if material.traded is None else material.traded[start:stop]
    figures = score(probs, labels, train.counts + held.counts, np.ones(3), material.regime[:, start:stop], traded=traded)
    figures.pop("log_loss_unweighted", None)  # of weighted base models; these are calibrated, or weighted on purpose
    table = confusion(probs, labels)
    accuracies = [m["accuracy"] for m in earlier if "accuracy" in m] + ([figures["accuracy"]] if "accuracy" in figures else [])
    return {
        "slot": "meta",
        "kind": plan.kind,
        "vector": plan.vector,
        "suffix": fit.suffix,
        "training_date": int(material.close_time[start]),
        "n_samples": len(train.y) + len(held.y),
        "n_train": len(train.y),
        "n_held": len(held.y),
        "fit_counts": train.counts.tolist(),
        "feature_names": list(fit.feature_names),
        "cv_accuracy": float(np.mean(accuracies)) if accuracies else None,
        "cv_std": float(np.std(accuracies)) if accuracies else None,
        "test_accuracy": figures.get("accuracy"),
        "baseline_accuracy": figures.get("majority_baseline"),
        "cv_metrics": per_class(table),
        "regime_metrics": {k: {"accuracy": v["accuracy"], "n_samples": v["n"]} for k, v in figures.get("regime_accuracy", {}).items()},
        "config": dict(plan.__dict__) | {"meta_params": {k: v for k, v in params.flat().items() if k.startswith("meta.")}},
        "split": {"kind": "walk_forward, expanding", "fold": number, "embargo_rows": plan.embargo, "rows": [material.first, start, stop]},
        "seed": plan.seed,
        "libraries": versions(("numpy", "scikit-learn", "xgboost", "torch", "imbalanced-learn", "skops")),
        **material.about,
        **figures,
    }


def confusion(probs: F8, labels: Any) -> Any:
    """Count [truth, said] over the cells [n, S] that have a label and an answer [n, S, 3]."""
    known = (labels >= 0) & ~np.isnan(probs[..., 0])
    table = np.zeros((3, 3), np.int64)
    np.add.at(table, (labels[known].astype(np.int64), np.argmax(probs[known], axis=-1)), 1)
    return table


def per_class(table: Any) -> dict[str, Any]:
    """Precision, recall, F1 and support of each class from a confusion matrix [truth, said]; None where nothing was counted."""
    out: dict[str, Any] = {"confusion_matrix": table.tolist()}
    for k, name in enumerate(CLASSES):
        hit, said, true = int(table[k, k]), int(table[:, k].sum()), int(table[k].sum())
        precision, recall = (hit / said if said else None), (hit / true if true else None)
        f1 = 2.0 * hit / (said + true) if said + true else None
        out[name] = {"precision": precision, "recall": recall, "f1": f1, "support": true}
    total = int(table.sum())
    out["constant_output_ratio"] = float(table.sum(axis=0).max() / total) if total else None
    return out
