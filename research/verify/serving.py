"""Are the predictions what the models say, bar by bar, and do the models know nothing of later bars (`spec` D-99)?

Only for models whose artefacts lie in the run's folder (`models/`); the origin of imported predictions cannot be proven.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore import Engine
from qtcore.types import F8, I8, MODELS, N_MODELS
from research.verify.causality import cut_points, rewrite_future, same_bits
from research.verify.claims import Claim, Offender
from research.verify.evidence import Evidence

MAX_SERVED = 200  # bars that are served one at a time
MAX_CELLS = 150_000  # training cells of the retrained fold above which only its first model is fitted again


class SomeBars:
    """Base models that answer single bars only: blocks in between pass without a vote and cost nothing."""

    def __init__(self, models: Any) -> None:
        self.models, self.feature_names = models, tuple(models.feature_names)
        self.horizon = int(models.config["label"]["horizon"])

    def serve(self, inputs: NDArray[np.float32], close_time: I8) -> F8:
        """Answer a block of one bar, stay silent on longer ones."""
        if len(close_time) == 1:
            probs: F8 = self.models.serve(inputs, close_time)
            return probs
        return np.full((N_MODELS, *inputs.shape[:2], 3), np.nan)


def load_models(run: Evidence) -> Any:
    """Return the schedule in the run's folder, None where there is none."""
    from research.models.schedule import ModelSet

    folder = run.files.path / "models"
    return ModelSet.load(folder) if (folder / "schedule.json").exists() else None


def check_models(run: Evidence, models: Any, seed: int, report: Any) -> list[Claim]:
    """Serve sampled bars one at a time and compare with the stored predictions; fit one fold again with another future."""
    report("serve models bar by bar")
    served = serving_claim(run, models, seed)
    report("train one fold again with another future")
    return [served, retraining_claim(run, models, seed)]


def serving_claim(run: Evidence, models: Any, seed: int) -> Claim:
    """Features stream through the engine up to each sampled bar, which is then served alone: the stored probabilities, bit by bit."""
    predicted = np.flatnonzero(run.predictions.fold >= 0)
    chosen = sorted({int(predicted[i]) for i in cut_points(len(predicted), MAX_SERVED, seed + 5)})
    engine = Engine(run.params, SomeBars(models))
    stored = run.votes.probs
    assert stored is not None
    checked, bad, first, start = 0, 0, None, 0
    for row in chosen:
        if row > start:
            engine.run(run.bars[start:row])
        probs = engine.run(run.bars[row : row + 1]).votes.probs
        start = row + 1
        mine = np.full((N_MODELS, 1, len(run.bars.symbols), 3), np.nan) if probs is None else probs
        differs = ~same_bits(mine[:, 0], np.ascontiguousarray(stored[:, row])).all(axis=-1)
        checked, bad = checked + differs.size, bad + int(np.count_nonzero(differs))
        if differs.any() and first is None:
            m, s = (int(i) for i in np.argwhere(differs)[0])
            gap = np.nanmax(np.abs(mine[m, 0, s] - stored[m, row, s])) if np.isfinite(mine[m, 0, s]).any() else np.inf
            first = run.clock.offender(row, s, f"{MODELS[m]} probabilities", float(gap))
    text = f"models asked one bar at a time answer what is stored ({len(chosen)} of {len(predicted)} predicted bars)"
    return Claim("serving", text, checked, bad, "predictions", first)


def retraining_claim(run: Evidence, models: Any, seed: int) -> Claim:
    """Fit the first fold again on bars whose future is rewritten from its boundary on: the same artefacts, by hash."""
    from research.train import retrain_fold

    fold = 0
    expected = models.hashes(fold)
    boundary = int(np.searchsorted(run.bars.close_time, models.config["boundaries"][fold]))
    slots = tuple(expected)
    if boundary * len(run.bars.symbols) > MAX_CELLS:
        slots = slots[:1]
    again = retrain_fold(rewrite_future(run.bars, boundary, seed), models, fold, slots=slots) if slots else {}
    wrong = [slot for slot in slots if again.get(slot) != expected[slot]]
    first = (
        Offender(boundary, str(np.datetime64(int(run.bars.close_time[boundary]), "ns"))[:16] + " UTC", "", wrong[0], 1.0) if wrong else None
    )
    text = f"fold {fold + 1} of {', '.join(slots)} trained again, bars from {boundary} on rewritten, gives the same artefact"
    return Claim("D-99", text, len(slots), len(wrong), "models", first)
