"""Meta model check: the learned models are those of the run, and know nothing of later bars (`spec` D-87, D-99).

That every decision is theirs follows from the replay, which asks them again. Here their files are compared with the manifest, and one
fold is fitted again with bars, votes and labels from its boundary on rewritten.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from qtcore.types import N_MODELS
from research.training.meta.schedule import MetaSchedule
from research.training.models.base import ModelAbsentError
from research.training.predictions import Predictions
from research.verify.causality import rewrite_future
from research.verify.claims import Claim, Offender
from research.verify.evidence import Evidence
from research.verify.parity import random_future

MAX_CELLS = 300_000  # cells before the boundary of the fold that is fitted again


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
    """Fit one fold again after a rewritten future: the same model, by hash. The last fold whose training is not too long for a proof."""
    from research.training.meta.train import refit

    rows = np.searchsorted(run.bars.close_time, [a.valid_from for a in meta.artefacts])
    affordable = [i for i, row in enumerate(rows) if row * len(run.bars.symbols) <= MAX_CELLS]
    chosen = affordable[-1] if affordable else 0
    artefact, row = meta.artefacts[chosen], int(rows[chosen])
    try:
        again = refit(rewrite_future(run.bars, row, seed), other_future(run.predictions, row, seed), run.params, meta, artefact.fold)
    except ModelAbsentError:
        again = ""
    is_same = again == artefact.hash
    first = None if is_same else Offender(row, str(np.datetime64(artefact.valid_from, "ns"))[:16] + " UTC", "", "meta", 1.0)
    text = f"the meta model of fold {artefact.fold + 1} trained again, everything from bar {row} on rewritten, is the same"
    return Claim("D-99 meta", text, 1, int(not is_same), "models", first)


def other_future(predictions: Predictions, row: int, seed: int) -> Predictions:
    """Return predictions whose votes from `row` on are shuffled, and whose labels that end at or after it are drawn anew."""
    votes, labels = random_future(predictions.votes(), row, seed), predictions.labels.copy()
    late = slice(max(0, row - predictions.label.horizon), None)
    labels[late] = np.random.default_rng([seed, N_MODELS]).integers(0, 3, labels[late].shape)
    return replace(predictions, action=votes.action, confidence=votes.confidence, probs=votes.probs, labels=labels)
