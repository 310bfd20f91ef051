"""Combinatorial purged cross-validation: many histories instead of one. How much of a backtest is the luck of one history?

Time is cut into groups; every choice of some of them is tested by a model that trained on the others, purged by the end of the labels
(`research.training.splits.combinatorial`). The tested groups make up whole out-of-sample histories, the paths: 10 groups, 2 tested, give 45
fits and 9 paths (Lopez de Prado 2018, ch. 12). Each path is traded by the chain. Most fits know the future of what they test, so a path is
no track record: the spread of its figures says how far one history can be trusted, and nothing here is ever traded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.params import Params
from qtcore.types import F8, N_MODELS, Bars
from qtcore.voters import slots_of
from research.errors import UserError
from research.evidence.leakage import row_model
from research.evidence.sharpe import ABSURD
from research.files import plain
from research.runs.backtest import priced, resolved
from research.runs.case import Case
from research.runs.metrics import figures
from research.training.labels import classify, fit_thresholds, get_label, label_end, look_ahead
from research.training.models.inputs import Inputs, model_inputs
from research.training.predictions import Predictions
from research.training.splits import combinatorial, paths

VALID = 0.15  # share of the training rows, the latest, that stop the training
FIGURES = ("sharpe", "total_return", "max_drawdown", "n_trades")


@dataclass(frozen=True)
class Paths:
    """rows: one a path, `path`, `accuracy`, `n` (scored cells) and FIGURES. config: what was asked for, and the number of fits."""

    rows: list[dict[str, Any]]
    config: dict[str, Any]

    def spread(self, name: str) -> dict[str, float | None]:
        """Lowest, quarter, median, three quarters and highest of a figure over the paths; None where no path has it."""
        known = np.array([row[name] for row in self.rows if np.isfinite(row[name])])
        ends = ("lowest", "quarter", "median", "three_quarters", "highest")
        return {end: float(np.quantile(known, q)) if len(known) else None for end, q in zip(ends, (0.0, 0.25, 0.5, 0.75, 1.0), strict=True)}

    @property
    def sentence(self) -> str:
        """Say how the paths differ."""
        ratios = np.array([row["sharpe"] for row in self.rows])
        known = ratios[np.isfinite(ratios)]
        who = f"{self.config['model']} and label {self.config['label']} over {len(self.rows)} paths of {self.config['fits']} fits"
        if not len(known):
            return f"{who}: no path traded."
        if np.abs(known).max() > ABSURD:
            return f"{who}: a Sharpe ratio of {known[np.abs(known).argmax()]:.0f} a year is a defect of data or run; look for a leak."
        low, middle, high = (f"{x:.2f}" for x in np.quantile(known, (0.0, 0.5, 1.0)))
        return (
            f"{who}: the Sharpe ratio a year lies between {low} and {high}, median {middle}, and is at or below 0 in "
            f"{np.count_nonzero(known <= 0.0)} of them; one history could have shown any of these."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        spreads = {name: self.spread(name) for name in ("accuracy", *FIGURES)}
        out: dict[str, Any] = plain({**self.config, "paths": self.rows, "spread": spreads, "sentence": self.sentence})
        return out


def audit_cpcv(
    bars: Bars,
    model: str = "xgb",
    label: str = "L3",
    params: Params | None = None,
    *,
    n_groups: int = 10,
    n_test: int = 2,
    preset: str = "fast",
    seed: int = 42,
    progress: Callable[[int, int, str], Any] | None = None,
) -> Paths:
    """Train on every combination of groups, put the answers together to paths, and trade each.

    model: a slot whose model looks at one row. n_groups, n_test: groups of time, and how many are tested at once. preset: parameters of
    the model. progress(done, total, text) is called after each fit. Raises UserError on unknown names or too few bars.
    """
    params = params or Params()
    rule, inputs = get_label(label, params.broker), model_inputs(bars, params)
    splits, ahead = combinatorial(label_end(bars.n, rule), n_groups, n_test, rule.horizon), look_ahead(bars, rule)[0]
    answers, labels = [], []
    for split in splits:
        known = classify(ahead, rule, *fit_thresholds(ahead, rule, split.train))
        answers.append(_fit(inputs, known, split.train, rule.horizon, model, preset, seed))
        labels.append(known)
        if progress is not None:
            progress(len(answers), len(splits), f"{model}: combinations of groups")
    rows, edges = [], [bars.n * g // n_groups for g in range(n_groups + 1)]
    names = slots_of([model])
    for number, chosen in enumerate(paths(n_groups, n_test)):
        probs, truth = np.full((N_MODELS, *bars.close.shape, 3), np.nan), np.full(bars.close.shape, -1, np.int8)
        for g, split in enumerate(chosen):
            at = slice(edges[g], edges[g + 1])
            probs[names.index(model), at], truth[at] = answers[split](at), labels[split][at]
        path = Predictions.from_probs(bars, probs, np.full(bars.n, -1, np.int16), truth, rule, imported=True, names=names)
        rows.append({"path": number} | _score(bars, path, params, model))
    config = {"model": model, "label": rule.id, "groups": n_groups, "tested": n_test, "fits": len(splits), "seed": seed, "preset": preset}
    return Paths(rows, config | {"symbols": list(bars.symbols), "bars": bars.n})


def _fit(
    inputs: Inputs, labels: NDArray[np.int8], train: NDArray[np.int64], horizon: int, slot: str, preset: str, seed: int
) -> Callable[[slice], F8]:
    """Fit on the rows `train`, the latest of them kept to stop it. Returns what answers rows: probs [m, S, 3], NaN without features."""
    made = row_model(slot, inputs.names, preset)
    cut = train[int(len(train) * (1.0 - VALID))]
    usable = inputs.usable & (labels >= 0)
    parts = [np.zeros(len(labels), bool) for _ in range(2)]
    parts[0][train[train + horizon < cut]], parts[1][train[train >= cut]] = True, True
    fit, valid = (usable & part[:, None] for part in parts)
    if not (fit.any() and valid.any()):
        raise UserError(f"splits must leave labelled rows to train, was none of {len(train)}; load a longer period or use fewer groups")
    made.fit(inputs.matrix[fit], labels[fit], inputs.matrix[valid], labels[valid], seed)

    def answer(at: slice) -> F8:
        out = np.full((*inputs.usable[at].shape, 3), np.nan)
        out[inputs.usable[at]] = made.predict_proba(inputs.matrix[at][inputs.usable[at]])
        return out

    return answer


def _score(bars: Bars, path: Predictions, params: Params, model: str) -> dict[str, Any]:
    """Share of right calls of a path, and what the chain earns with it."""
    action = path.action[path.names.index(model)]
    scored = (action >= 0) & (path.labels >= 0)
    params = resolved(params, path)
    case = Case.of(bars, priced(bars, path, params))
    metrics = case.metrics(params.record(), params)
    told = figures(metrics, case.n_returns(params.record()), case.bars_per_year)
    right = float(np.mean(action[scored] == path.labels[scored])) if scored.any() else np.nan
    return {"accuracy": right, "n": int(scored.sum())} | {name: float(told[name][0]) for name in FIGURES}
