"""Meta model check: the learned models are those of the run, and know nothing of later bars (`spec` D-87, D-99).

That every decision is theirs follows from the replay, which asks them again. Here their files are compared with the manifest, and one
fold is fitted again with bars, votes and labels from its boundary on rewritten.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from qtcore.types import N_MODELS, Bars
from research.training.meta.estimators import Rows
from research.training.meta.fitted import MetaFit, fit_digest
from research.training.meta.schedule import MetaSchedule
from research.training.models.base import ModelAbsentError
from research.training.predictions import Predictions
from research.verify.causality import rewrite_future
from research.verify.claims import Claim, Offender
from research.verify.evidence import Evidence
from research.verify.parity import random_future

MAX_CELLS = 300_000  # cells before the boundary of the fold that is fitted again
SAME_ANSWER = 1e-6  # probabilities of one model fitted on two processors; Haswell and SkylakeX kernels of OpenBLAS: 7e-16 (2026-12)


def meta_claims(run: Evidence, seed: int, report: Any) -> list[Claim]:
    """Compare the meta models with the manifest and fit one of them again; nothing to claim where the rules alone acted."""
    said = run.files.manifest.get("meta_model")
    if said is None and run.meta is None:
        return []
    found = "" if run.meta is None or run.meta.check() else run.meta.hash
    is_same = said is not None and found == said["hash"]
    first = None if is_same else Offender(-1, "at the start", "", "models/meta", 1.0)
    claims = [Claim("meta files", "the meta models are those of the manifest", 1, int(not is_same), "schedules", first)]
    if run.meta is not None and is_same and retrainable(run):
        report("train one meta model again with another future")
        claims.append(retraining_claim(run, run.meta, seed))
    return claims


def retrainable(run: Evidence) -> bool:
    """Whether the meta models were trained on this run's own bars and predictions."""
    return run.meta is not None and run.meta.config.get("data_fingerprint") == run.files.manifest["data_fingerprint"]


def retraining_claim(run: Evidence, meta: MetaSchedule, seed: int) -> Claim:
    """Fit one fold again after a rewritten future: the same model, by hash. The last fold whose training is not too long for a proof.

    The last digits of a fit are the processor's, so a model stored elsewhere has another hash. It is then fitted here with the future as it
    was, too: both fits must be the same, and the stored model must answer as they do.
    """
    rows = np.searchsorted(run.bars.close_time, [a.valid_from for a in meta.artefacts])
    affordable = [i for i, row in enumerate(rows) if row * len(run.bars.symbols) <= MAX_CELLS]
    chosen = affordable[-1] if affordable else 0
    artefact, row = meta.artefacts[chosen], int(rows[chosen])
    again = fit_again(run, meta, artefact.fold, rewrite_future(run.bars, row, seed), other_future(run.predictions, row, seed))
    is_same = again is not None and fit_digest(again[0]) == artefact.hash
    aside = ""
    if again is not None and not is_same:
        here = fit_again(run, meta, artefact.fold, run.bars, run.predictions)
        is_same = here is not None and fit_digest(here[0]) == fit_digest(again[0]) and answers_as(meta.fitted(artefact), *again)
        aside = f" but for rounding (within {SAME_ANSWER:g}), as it was fitted on another processor" if is_same else ""
    first = None if is_same else Offender(row, str(np.datetime64(artefact.valid_from, "ns"))[:16] + " UTC", "", "meta", 1.0)
    text = f"the meta model of fold {artefact.fold + 1} trained again, everything from bar {row} on rewritten, is the same{aside}"
    return Claim("D-99 meta", text, 1, int(not is_same), "models", first)


def fit_again(run: Evidence, meta: MetaSchedule, fold: int, bars: Bars, predictions: Predictions) -> tuple[MetaFit, Rows] | None:
    """Fit one fold on this processor; None where that cannot be done."""
    from research.training.meta.train import refit

    try:
        return refit(bars, predictions, run.params, meta, fold)
    except ModelAbsentError:
        return None


def answers_as(stored: MetaFit | None, fitted: MetaFit, rows: Rows) -> bool:
    """Whether a stored model gives the training rows the probabilities of one fitted here, within `SAME_ANSWER`."""
    return stored is not None and bool(np.all(np.abs(stored.answer(rows.x) - fitted.answer(rows.x)) <= SAME_ANSWER))


def other_future(predictions: Predictions, row: int, seed: int) -> Predictions:
    """Return predictions whose votes from `row` on are shuffled, and whose labels that end at or after it are drawn anew."""
    votes, labels = random_future(predictions.votes(), row, seed), predictions.labels.copy()
    late = slice(max(0, row - predictions.label.horizon), None)
    labels[late] = np.random.default_rng([seed, N_MODELS]).integers(0, 3, labels[late].shape)
    return replace(predictions, action=votes.action, confidence=votes.confidence, probs=votes.probs, labels=labels)
