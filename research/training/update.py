"""Incremental training with the bars since: one more fold, tested on what came since, trained on all before; nothing else is refitted.

    first     | train | fold 0 | fold 1 |
    update    | train | fold 0 | fold 1 | fold 2 |      fold 2 trains up to the end of the first training and serves from there on

Earlier folds keep their periods and the labels that were known when they were made, so the store of fits (`research.training.models.fits`)
knows every one of them, unless the history itself was changed: then what it touches is fitted again. The newest fold is scored on bars that
it never saw, as any other, so acceptance (`spec` 12.5) means the same. The meta layer learns anew from all out-of-sample predictions.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from qtcore import Bars
from research.errors import ConfigError
from research.training.models import fits
from research.training.models.schedule import ModelSet
from research.training.plan import TrainingPlan
from research.training.predictions import Predictions
from research.training.walk_forward import run_plan

Progress = Callable[[int, int, str], Any]


def update(
    bars: Bars,
    known: ModelSet,
    custom: Sequence[Any] = (),
    *,
    processes: int = 1,
    progress: Progress | None = None,
    out: str | Path | None = None,
) -> Predictions:
    """Add a fold with the bars since to a training and return the predictions of all folds, as `train` does.

    bars: those of the training and what came since, the same symbols. custom: own features that the models read. Raises
    UserError where there is too little new, or history is gone.
    """
    plan = TrainingPlan.stored(known.config["plan"])
    label = plan.label if known.later else dict(known.config["label"])
    plan = replace(plan, label=label, periods=(*_periods(known), (0, int(bars.close_time[-1]))))
    first, last = _span(known)
    start = int(np.searchsorted(bars.close_time, last, side="right"))
    horizon = max(known.horizon, *known.later) if known.later else known.horizon
    needed = 1 + horizon + (horizon if plan.embargo is None else plan.embargo)
    if bars.close_time[0] > first or start == 0:
        when = np.datetime64(first, "ns").astype("M8[s]")
        raise ConfigError(f"--update must get the training's bars and those since, was without those from {when}Z on; give all of them")
    if bars.n - start < needed:
        when = np.datetime64(last, "ns").astype("M8[s]")
        raise ConfigError(f"--update must get at least {needed} bars after {when}Z, was {bars.n - start}; wait for more")
    plan = replace(plan, periods=(*plan.periods[:-1], (int(bars.close_time[start]), int(bars.close_time[-1]))))
    checked = known.config.get("own_checks", ())
    return run_plan(
        bars, plan, custom, own_checks=checked, store=fits.folder(), workers=(processes, "local", None), progress=progress, out=out
    )


def _periods(known: ModelSet) -> tuple[tuple[int, int], ...]:
    """Close of the first test row of every fold, and of the last bar that was known when it was made."""
    if told := known.config["plan"].get("periods"):
        return tuple((int(first), int(last)) for first, last in told)
    last = _span(known)[1]
    return tuple((int(first), last) for first in known.config["boundaries"])


def _span(known: ModelSet) -> tuple[int, int]:
    """Return the closes of the first row that trained and the last one that was tested."""
    spans = [span for a in known.artefacts for span in a.meta["split"]["close_time"].values()]
    return min(span[0] for span in spans), max(span[1] for span in spans)
