"""Leakage audit: the same pipeline with a shuffled split, the wrong one, beside the purged walk-forward one.

Same candles, features, label, model class, parameters and scored cells; only the split differs. Labels of neighbouring bars share bars and
prices carry the time, so a shuffled split trains on the neighbours of what it scores: a figure of 40 % becomes 50 to 80 % without any skill
(`spec` 14.2). The shuffled split exists in this module only; `research.training.splits` refuses to shuffle.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.choices import FeatureSet
from qtcore.params import Params
from qtcore.types import F8, Bars, Votes
from research.errors import ConfigError, UserError
from research.files import plain
from research.training.labels import one_horizon
from research.training.models.base import EQUAL, BaseModel, lookback_of, make_model, model_target
from research.training.models.inputs import Inputs, model_inputs
from research.training.scoring.baseline import out_of_sample
from research.training.scoring.differences import difference, paired
from research.training.scoring.opinions import Opinion, blocks
from research.training.walk_forward import train

Progress = Callable[[int, int, str], Any]
TEST, VALID = 0.25, 0.15  # shares of all cells that are held out, and of the rest that stop the training
SPLITS = ("shuffled (wrong)", "purged walk-forward")


@dataclass(frozen=True)
class Audit:
    """What the two splits scored.

    rows: one a split and feature set, `split`, `features` and the figures of an accuracy block. gaps: shuffled less honest, one a feature
    set, as `research.training.scoring.differences.difference` gives them. config: model, label, cells.
    """

    rows: list[dict[str, Any]]
    gaps: dict[str, dict[str, Any]]
    config: dict[str, Any]

    @property
    def sentences(self) -> list[str]:
        """One plain sentence for each feature set."""
        return [self._sentence(features) for features in self.gaps]

    def _sentence(self, features: str) -> str:
        gap, who = self.gaps[features], f"{self.config['model']} on {features} features and label {self.config['label']}"
        if not gap["enough"]:
            return f"{who}: not enough data, {gap['n']:,} common cells are worth {gap['n_effective']:.0f} independent ones."
        a, b, points, (low, high) = (gap["accuracy"][name] for name in ("a", "b", "difference", "ci95"))
        majority = next(row["majority_accuracy"] for row in self.rows if row["features"] == features)
        size = f"{100 * points:+.1f} points, 95 % interval {100 * low:+.1f} to {100 * high:+.1f}"
        meaning = "which is leakage, not skill" if low > 0.0 else "so no leakage can be told here"
        shuffled = f"a shuffled split scores {a:.1%} where the purged walk-forward one scores {b:.1%} on the same cells"
        return f"{who}: {shuffled} ({size}), {meaning}; always answering the most frequent label scores {majority:.1%}."

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        out: dict[str, Any] = plain({**self.config, "rows": self.rows, "gaps": self.gaps, "sentences": self.sentences})
        return out


def audit_leakage(
    bars: Bars,
    model: str = "xgb",
    label: str = "L3",
    features: Sequence[str] = ("v5_rel",),
    params: Params | None = None,
    *,
    preset: str = "default",
    n_folds: int = 4,
    seed: int = 42,
    progress: Progress | None = None,
) -> Audit:
    """Train `model` both ways and compare on the cells that both predicted.

    model: a slot whose model looks at one row. features: names of feature sets, `v5_rel` (relative) or `v5` (with raw price levels, which
    tell the time). preset: parameters of the model. n_folds: of the walk-forward split. progress(done, total, text) is called after each
    fit. Raises UserError on an unknown name, or when the bars are too few.
    """
    known = [kind.name.lower() for kind in FeatureSet]
    if not features or not set(features) <= set(known):
        raise UserError(f"features must be among {', '.join(known)}, was {', '.join(features) or 'none'}")
    one_horizon(label)
    row_model(model, features, preset)  # a mistake is told before anything is trained
    rows, gaps = [], {}
    for name in features:
        settings = (params or Params()).with_values({"features.feature_set": name})
        asked: dict[str, Any] = {"preset": preset, "n_folds": n_folds, "seed": seed, "progress": progress}
        made = train(bars, (model,), label, settings, calibration="none", maps=False, weights=EQUAL, **asked)  # alone, as the wrong way
        inputs = model_inputs(bars, settings)
        if progress is not None:
            progress(0, 1, f"shuffled {name}: training the wrong way")
        wrong = shuffled_probs(inputs, made.labels, model, seed, preset)
        if progress is not None:
            progress(1, 1, f"shuffled {name}: training the wrong way")
        assert made.probs is not None
        own = made.probs[made.names.index(model), ..., :3]
        scored, gap = _compare(wrong, own, made.labels, made.label.horizon, out_of_sample(bars, made))
        rows += [{"split": split, "features": name} | block for split, block in zip(SPLITS, scored, strict=True)]
        gaps[name] = gap
    config = {
        "model": model,
        "label": made.label.id,
        "symbols": list(bars.symbols),
        "bars": bars.n,
        "folds": n_folds,
        "seed": seed,
        "preset": preset,
    }
    return Audit(rows, gaps, config)


def shuffled_probs(inputs: Inputs, labels: NDArray[np.int8], slot: str, seed: int, preset: str = "default") -> F8:
    """Predict a random quarter of all cells by a model fitted on the others: the wrong way.

    labels [n, S], -1 unknown. Returns probs [n, S, 3], NaN on the cells that trained. Raises UserError for a model that needs windows.
    """
    made = row_model(slot, inputs.names, preset)
    cells = np.random.default_rng(seed).permutation(np.flatnonzero((inputs.usable & (labels >= 0)).ravel()))
    test, rest = np.split(cells, [round(TEST * len(cells))])
    valid, fit = np.split(rest, [round(VALID * len(rest))])
    matrix, classes = inputs.matrix.reshape(-1, len(inputs.names)), labels.reshape(-1)
    made.fit(matrix[fit], classes[fit], matrix[valid], classes[valid], seed)
    out = np.full((*labels.shape, 3), np.nan)
    out.reshape(-1, 3)[test] = made.predict_proba(matrix[test])
    return out


def row_model(slot: str, names: Sequence[str], preset: str) -> BaseModel:
    """Make a model that looks at one row. Raises UserError for one that needs windows."""
    made = make_model(model_target(slot), names, preset)
    if lookback_of(made) > 1:
        raise ConfigError(f"model (--model) must look at one row, was {slot}; take xgb or lgbm")
    return made


def _compare(
    wrong: F8, honest: F8, labels: NDArray[np.int8], horizon: int, baseline: Opinion
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Score both on the cells that both predicted, the volatility baseline beside them: two accuracy blocks, and their difference."""
    votes = Votes.from_probs(np.stack([wrong, honest]))
    said = [Opinion(votes.action[k], votes.confidence[k], probs) for k, probs in enumerate((wrong, honest))]
    counted, bootstrap, rows = paired(said[0], said[1], labels, horizon, baseline)
    scored = [blocks(c, bootstrap, rows, np.ones((1, 1)), ("total",))["total"] for c in counted]
    return scored, difference(counted[0], counted[1], bootstrap, rows)
