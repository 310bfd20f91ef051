"""Serving check: predictions are what the models say, bar by bar, and the models know nothing of later bars (`spec` D-99).

Serving and training are proven for models whose artefacts lie in the run's folder (`models/`). The origin of imported predictions cannot
be proven; what can be seen is whether they know the next bar as honest ones never do.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore import Engine
from qtcore.types import F8, I8, N_MODELS
from research.data.clock import iso
from research.verify.causality import cut_points, rewrite_future, same_bits
from research.verify.claims import Claim, Offender
from research.verify.evidence import Evidence
from research.verify.leaks import predictions_early

MAX_SERVED = 200  # bars that are served one at a time
MAX_CELLS = 150_000  # training cells of the retrained fold above which only its first model is fitted again


class SomeBars:
    """Base models that answer single bars only: blocks in between pass without a vote and cost nothing."""

    def __init__(self, models: Any) -> None:
        self.models, self.feature_names = models, tuple(models.feature_names)
        self.horizon, self.lookback, self.n_horizons = models.horizon, models.lookback, models.n_horizons

    def serve(self, inputs: NDArray[np.float32], close_time: I8) -> F8:
        """Answer a block of one bar, stay silent on longer ones."""
        if len(close_time) == 1:
            probs: F8 = self.models.serve(inputs, close_time)
            return probs
        return np.full((N_MODELS, len(close_time), inputs.shape[1], 3 * self.n_horizons), np.nan)


def load_models(run: Evidence) -> Any:
    """Return the schedule in the run's folder, None where there is none."""
    from research.training.models.schedule import ModelSet

    folder = run.files.path / "models"
    return ModelSet.load(folder, is_checked=False) if (folder / "schedule.json").exists() else None


def same_bars(run: Evidence, models: Any) -> bool:
    """Whether the base models were trained on this run's bars."""
    return all(a.meta.get("data_fingerprint") == run.files.manifest["data_fingerprint"] for part in models.parts for a in part.artefacts)


def check_models(run: Evidence, models: Any, seed: int, report: Any) -> list[Claim]:
    """Serve sampled bars one at a time and compare with the stored predictions; fit one fold again with another future."""
    report("serve models bar by bar")
    served = serving_claim(run, models, seed)
    if not same_bars(run, models):
        return [served]
    report("train one fold again with another future")
    return [served, purge_claim(run, models), retraining_claim(run, models, seed)]


def early_claim(run: Evidence) -> Claim:
    """No model's predictions explain the next bar as features explain the last one (`leaks.predictions_early`)."""
    slots = [m for m in range(N_MODELS) if (run.votes.action[m] >= 0).any()]
    first, n_early = None, 0
    for m in slots:
        score = np.where(run.votes.action[m] >= 0, run.votes.action[m] - 1.0, np.nan)
        if run.votes.probs is not None:
            score = run.votes.probs[m, :, :, 2] - run.votes.probs[m, :, :, 0]
        for found in predictions_early(score, run.bars):
            n_early += 1
            first = first or Offender(-1, "over all bars", "", f"{run.votes.names[m]}: {found.message}", found.distance)
    return Claim("leak", "no model's predictions look one bar early", len(slots), n_early, "models", first)


def known_claims(run: Evidence) -> list[Claim]:
    """No bar that the maker of the predictions knew has a vote; nothing to claim where he was not said to know any."""
    if (until := run.predictions.knows_until) is None:
        return []
    known = run.bars.close_time <= until
    voted = known[:, None] & (run.votes.action >= 0).any(axis=0)
    bad, row = int(voted.sum()), int(voted.any(axis=1).argmax())
    first = run.clock.offender(row, int(voted[row].argmax()), "a vote", 1.0) if bad else None
    text = f"no bar up to {iso(until)}, which the maker of the predictions knew, has a vote"
    return [Claim("D-99", text, int(known.sum()), bad, "bars", first)]


def purge_claim(run: Evidence, models: Any) -> Claim:
    """Training and stopping rows of every artefact end, labels included, before the next part begins."""
    bad, first = 0, None
    for reach, artefact in ((part.horizon, artefact) for part in models.parts for artefact in part.artefacts):
        span = artefact.meta["split"]["close_time"]
        begin, end = ({part: int(np.searchsorted(run.bars.close_time, times[i])) for part, times in span.items()} for i in (0, 1))
        late = [part for part, after in (("fit", "valid"), ("fit", "test"), ("valid", "test")) if end[part] + reach >= begin[after]]
        bad += bool(late)
        if late and first is None:
            first = run.clock.offender(end[late[0]], None, f"{artefact.slot} fold {artefact.fold + 1}, {late[0]} rows", reach)
    n = sum(len(part.artefacts) for part in models.parts)
    return Claim("purge", "no training label reaches into stopping or scored rows", n, bad, "models", first)


def serving_claim(run: Evidence, models: Any, seed: int) -> Claim:
    """Features stream through the engine up to each sampled bar, which is then served alone: the stored probabilities, bit by bit."""
    predicted = np.flatnonzero(run.predictions.fold >= 0)
    chosen = sorted({int(predicted[i]) for i in cut_points(len(predicted), MAX_SERVED, seed + 5)})
    engine = Engine(run.params, SomeBars(models), custom=run.own.features)  # the meta layer reads the votes, and these are compared
    stored = run.votes.probs
    assert stored is not None
    checked, bad, first, start = 0, 0, None, 0
    for row in chosen:
        if row > start:
            engine.run(run.bars[start:row])
        probs = engine.run(run.bars[row : row + 1]).votes.probs
        start = row + 1
        mine = np.full_like(stored[:, :1], np.nan) if probs is None else probs
        differs = ~same_bits(mine[:, 0], np.ascontiguousarray(stored[:, row])).all(axis=-1)
        checked, bad = checked + differs.size, bad + int(np.count_nonzero(differs))
        if differs.any() and first is None:
            m, s = (int(i) for i in np.argwhere(differs)[0])
            gap = np.nanmax(np.abs(mine[m, 0, s] - stored[m, row, s])) if np.isfinite(mine[m, 0, s]).any() else np.inf
            first = run.clock.offender(row, s, f"{run.votes.names[m]} probabilities", float(gap))
    text = f"models asked one bar at a time answer what is stored ({len(chosen)} of {len(predicted)} predicted bars)"
    return Claim("serving", text, checked, bad, "predictions", first)


def retraining_claim(run: Evidence, models: Any, seed: int) -> Claim:
    """Fit the first fold of every horizon again on bars whose future is rewritten from its boundary on: the same artefacts, by hash."""
    from research.training.walk_forward import retrain_fold

    fold, fitted, wrong, boundary = 0, list[str](), list[str](), 0
    for part in models.parts:
        expected = part.hashes(fold)
        boundary = int(np.searchsorted(run.bars.close_time, part.config["boundaries"][fold]))
        slots = tuple(expected)
        if boundary * len(run.bars.symbols) > MAX_CELLS:
            slots = slots[:1]
        again = retrain_fold(rewrite_future(run.bars, boundary, seed), part, fold, run.own.features, slots) if slots else {}
        named = {slot: slot if part is models else f"{slot} of {part.horizon} bars" for slot in slots}
        fitted += named.values()
        wrong += [named[slot] for slot in slots if again.get(slot) != expected[slot]]
    first = (
        Offender(boundary, str(np.datetime64(int(run.bars.close_time[boundary]), "ns"))[:16] + " UTC", "", wrong[0], 1.0) if wrong else None
    )
    text = f"fold {fold + 1} of {', '.join(fitted)} trained again, bars from {boundary} on rewritten, gives the same artefact"
    return Claim("D-99", text, len(fitted), len(wrong), "models", first)
