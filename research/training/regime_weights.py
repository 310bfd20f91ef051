"""Ensemble weights by regime: factors for the base models, from a user's table or fitted (`spec` 4.6, D-36).

Both are factors on `ensemble.weights`, which the ensemble scales back to the original sum. Fitted factors follow from what the models said
out of sample in earlier folds, never from our own trades, and hold from the first bar of a fold on, like the fold's models.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore import Bars, FeatureBank, Params
from qtcore.declare import time_text
from qtcore.types import F8, I8, MODELS, N_MODELS
from qtcore.voters import check_name
from research.errors import ModelError, refusing
from research.training.predictions import Predictions, aligned
from research.training.regimes import CELLS, N_CELLS, TREND, VOLATILITY, regime_cells

FACTORS = "ensemble.regime_factors"
ENOUGH = 30  # independent events of a model in a slice; with fewer its factor is 1


def regime_factors(table: Mapping[str, Any], names: Sequence[str] | None = MODELS) -> list[float]:
    """Turn `{slice: {model: factor}}` into the 45 numbers of `ensemble.regime_factors`; what is not named is 1.

    A slice is a volatility, a trend, or both: `volatility_high.trend_uptrend`, nested or with the dot. Factors that meet in a cell are
    multiplied. names: who votes in each of the five slots; None before they are known, then the table is checked alone. Raises UserError
    on an unknown name or a factor outside [0, 100].

    >>> regime_factors({"volatility_high": {"xgb": 1.2}})[30:35]
    [1.2, 1.0, 1.0, 1.0, 1.0]
    """
    factors = np.ones((N_CELLS, N_MODELS))
    _multiply(factors, table, np.ones(N_CELLS, bool), "ensemble.regime_weights", names)
    return [float(x) for x in factors.reshape(-1)]


def _multiply(factors: F8, table: Any, cells: NDArray[np.bool_], path: str, names: Sequence[str] | None) -> None:
    if not isinstance(table, Mapping):
        raise ModelError(f"{path} must be a table such as {{xgb = 1.2}}, was {table!r}")
    for key, value in table.items():
        name, _, rest = str(key).partition(".")
        if name in (*VOLATILITY, *TREND):
            inside = np.array([name in cell.split(".") for cell in CELLS])
            _multiply(factors, {rest: value} if rest else value, cells & inside, f"{path}.{name}", names)
        elif path.count(".") > 1 and not rest and (names is None or name in names):
            with refusing(ModelError):
                check_name(name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 100.0:
                raise ModelError(f"{path}.{name} must be a number in [0, 100], was {value!r}")
            if names is not None:
                factors[cells, names.index(name)] *= value
        else:
            known = ", ".join((*VOLATILITY, *TREND) if path.count(".") == 1 else (*VOLATILITY, *TREND, *(names or MODELS)))
            raise ModelError(f"{path} must name some of {known}, was {key!r}")


def fit_regime_weights(bars: Bars, predictions: Predictions, params: Params) -> Params:
    """Return `params` with a stage at every fold but the first: the table of `params` times factors fitted on the folds before it.

    A factor is a model's accuracy in a slice over the mean accuracy of the models there; 1 where a model has fewer than 30 independent
    events (predictions over the label's horizon) in the slice. Only labels that end before the fold's first bar count. Raises UserError
    without folds: imported predictions say nothing of how they were made.
    """
    predictions = aligned(predictions, bars)
    folds = np.unique(predictions.fold[predictions.fold >= 0])
    if predictions.imported or len(folds) < 2:
        raise ModelError(f"run.regime_fit must have walk-forward predictions of two folds or more, was {predictions!r}; train models here")
    planes = FeatureBank(params, bars.symbols, bars.interval, ()).compute(bars)
    volatility, trend = planes.regime
    cells = regime_cells(np.where(np.isnan(volatility), 0.5, volatility), np.where(np.isnan(trend), 0.0, trend))
    given = np.array(params.ensemble.regime_factors).reshape(N_CELLS, N_MODELS)
    stages = {stage.start: dict(stage.values) for stage in params.stages}
    starts = [int(np.flatnonzero(predictions.fold == fold)[0]) for fold in folds[1:]]
    for start in starts:
        factors = given * fit_factors(cells, predictions, start)
        stages.setdefault(int(bars.close_time[start]), {})[FACTORS] = factors.reshape(-1).tolist()
    rows = [{"from": time_text(start)} | values for start, values in sorted(stages.items())]
    return params.with_values({"stages": rows})


def fit_factors(cells: NDArray[np.int8], predictions: Predictions, start: int) -> F8:
    """Fit factors [9, 5] on what was predicted and became known before the row `start`. cells [n, S]: 0..8 in the order of `CELLS`."""
    horizon = predictions.label.horizon
    known = max(start - horizon, 0)  # a label of row t ends with row t + horizon
    right, said = _counts(cells[:known], predictions.action[:, :known], predictions.labels[:known], predictions.fold[:known])
    is_enough = said >= ENOUGH * horizon
    accuracy = np.where(is_enough, right / np.maximum(said, 1), np.nan)
    n_judged = is_enough.sum(axis=1, keepdims=True)
    mean = np.where(is_enough, accuracy, 0.0).sum(axis=1, keepdims=True) / np.maximum(n_judged, 1)
    return np.where(is_enough & (mean > 0.0), accuracy / np.where(mean > 0.0, mean, 1.0), 1.0)


def _counts(cells: NDArray[np.int8], action: NDArray[np.int8], labels: NDArray[np.int8], fold: NDArray[np.int16]) -> tuple[I8, I8]:
    """Count right and all scored predictions of every model in every slice, [9, 5] each."""
    right, said = np.zeros((N_CELLS, N_MODELS), np.int64), np.zeros((N_CELLS, N_MODELS), np.int64)
    is_scored = (labels >= 0) & (fold >= 0)[:, None]
    for m in range(N_MODELS):
        voted = is_scored & (action[m] >= 0)
        said[:, m] = np.bincount(cells[voted], minlength=N_CELLS)
        right[:, m] = np.bincount(cells[voted & (action[m] == labels)], minlength=N_CELLS)
    return right, said
