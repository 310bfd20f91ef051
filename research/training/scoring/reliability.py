"""Reliability diagram data: accuracy per bin of confidence, and the expected calibration error. Is 0.7 right in 70 of 100 cases?

ECE: 15 equal bins of the confidence in [0, 1], gaps between confidence and accuracy weighted by cells (Guo et al. 2017). Few independent
cells give a gap by luck alone, so the ECE of a perfectly calibrated opinion with the same confidences and as many independent cells stands
beside it.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from research.training.scoring.bootstrap import Bootstrap, interval
from research.training.scoring.intervals import share_limits, tilted
from research.training.scoring.opinions import ECE_BINS, ENOUGH, Opinion, bin_of, effective, known_confidence


def reliability(opinion: Opinion, labels: NDArray[np.int8], bootstrap: Bootstrap, rows: slice) -> dict[str, Any]:
    """Compare confidence with accuracy in 15 bins.

    Lists of 15, NaN in an empty bin: `n`, `n_effective`, mean `confidence`, `accuracy`, its `ci95`, and `enough`. Then `ece`, its
    bootstrap interval `ece_ci95` (resampling adds noise, so it leans upward) and `ece_by_chance`.
    """
    n_bars, n_symbols = labels.shape
    at = np.flatnonzero((opinion.action.reshape(-1) >= 0) & (labels.reshape(-1) >= 0))
    confidence, hit = known_confidence(opinion, at), opinion.action.reshape(-1)[at] == labels.reshape(-1)[at]
    place = at // n_symbols * ECE_BINS + bin_of(confidence)

    def count(w: NDArray | None) -> NDArray:
        return np.bincount(place, w, minlength=n_bars * ECE_BINS).reshape(n_bars, ECE_BINS)

    cells, hits, said = count(None), count(hit).astype(np.int64), count(confidence)
    drawn_n, drawn_hits, drawn_said = (bootstrap.sums(plane[rows]) for plane in (cells, hits, said))
    n, right, claimed = cells.sum(axis=0), hits.sum(axis=0), said.sum(axis=0)
    busy = np.count_nonzero(cells, axis=0) / bootstrap.block
    tilts = [tilted(np.stack([cells[:, b], hits[:, b]], axis=-1), cells[:, b]) for b in range(ECE_BINS)]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, accuracy = claimed / n, right / n
        limits = [share_limits(accuracy[b], tilts[b][..., 1] / tilts[b][..., 0]) for b in range(ECE_BINS)]
        worth = effective(n, accuracy, drawn_hits / drawn_n, busy)
        spread = np.sqrt(mean * (1.0 - mean) / worth)
        drawn_ece = np.abs(drawn_hits - drawn_said).sum(axis=1) / drawn_n.sum(axis=1)
    total = n.sum()
    return {
        "n": n.tolist(),
        "n_effective": worth.tolist(),
        "confidence": mean.tolist(),
        "accuracy": accuracy.tolist(),
        "ci95": limits,
        "enough": (worth >= ENOUGH).tolist(),
        "ece": float(np.abs(right - claimed).sum() / total) if total else np.nan,
        "ece_ci95": interval(drawn_ece[:, None])[:, 0].tolist(),
        "ece_by_chance": float(math.sqrt(2.0 / math.pi) * np.nansum(n * spread) / total) if total else np.nan,
    }
