"""Input vectors of learned meta models: each set of features with its fixed order of names (`spec` 5, 6.1, 8).

A model is served only rows whose ordered names are its own (D-41); `VECTORS` lists all that exist. A missing model stands as HOLD at 0.5
in its own columns and is not counted in the aggregates.
"""

import math
from collections.abc import Sequence

import numpy as np

from qtcore.jit import kernel
from qtcore.types import ADVANCED, MODELS

SLOTS = {  # that each vector reads, in its order: patchtst before nhits in v5, as its authors had it; the originals by the alphabet
    "v5": (0, 1, 3, 2),
    "meta26": (0, 1, 2, 3),
    "meta30": (0, 1, 2, 3, 4),
    "meta32": (0, 1, 2, 3),
    "meta36": (0, 1, 2, 3, 4),
    "meta32_original": (1, 2, 3, 0),
    "meta36_original": (1, 2, 3, 4, 0),
    "bet30": (0, 1, 2, 3),
    "bet35": (0, 1, 2, 3, 4),
}


def columns_of(vector: str, voters: Sequence[str] = MODELS) -> tuple[str, ...]:
    """Return the ordered feature names of a vector; voters: the names of the five slots."""
    names = [voters[m] for m in SLOTS[vector]]
    if vector == "v5":
        return (*(f"{m}_confidence" for m in names), *(f"{m}_action" for m in names))
    if wants_hits(vector):
        return (*_one_hot(names), *(f"{m}_backing" for m in names))
    return _one_hot(names) if vector in ("meta26", "meta30") else _probable(names)


def wants_hits(vector: str) -> bool:
    """Whether a vector ends in what the hit rates of its voters say of the bet (`qtcore.meta.hits`)."""
    return vector in ("bet30", "bet35")


def _one_hot(models: Sequence[str]) -> tuple[str, ...]:
    own = [f"{m}_{what}" for m in models for what in ("sell", "hold", "buy", "conf")]
    aggregates = ["mean_confidence", "max_confidence", "min_confidence", "confidence_std"]
    votes = ["vote_buy_pct", "vote_sell_pct", "vote_hold_pct", "disagreement"]
    return (*own, *aggregates, *votes, "volatility", "trend_strength")


def _probable(models: Sequence[str]) -> tuple[str, ...]:
    own = [f"{m}_{what}" for m in models for what in ("is_sell", "is_hold", "is_buy", "confidence")]
    aggregates = ["mean_confidence", "max_confidence", "min_confidence", "std_confidence", "disagreement", "entropy"]
    return (*own, *aggregates, *ADVANCED, "prediction_change_rate")


VECTORS: dict[str, tuple[str, ...]] = {vector: columns_of(vector) for vector in SLOTS}  # with the known voters


def vector_of(names: Sequence[str]) -> str:
    """Return the name of the vector with these ordered feature names, "" if there is none."""
    return next((vector for vector, own in VECTORS.items() if own == tuple(names)), "")


def slot_order(vector: str) -> np.ndarray:
    """Return the model slots of a vector in the order of its columns."""
    return np.array(SLOTS[vector], np.int64)


@kernel
def v5_row(action, confidence, cell, order, row):
    """Write confidences, then actions, of the models in `order` into `row` [8]; a missing model is HOLD at 0.5 (5).

    action, confidence [5, N]; cell: column.
    """
    n = len(order)
    for k in range(n):
        a = action[order[k], cell]
        row[k] = 0.5 if a < 0 else confidence[order[k], cell]
        row[n + k] = 1.0 if a < 0 else float(a)


@kernel
def spread(values, n):
    """Return mean and population standard deviation of the first `n` of `values`, summed left to right; 0.0 and 0.0 for none."""
    if n == 0:
        return 0.0, 0.0
    total, squares = 0.0, 0.0
    for k in range(n):
        total += values[k]
    mean = total / n
    for k in range(n):
        squares += (values[k] - mean) * (values[k] - mean)
    return mean, math.sqrt(squares / n)


@kernel
def extremes(values, n):
    """Return the largest and the smallest of the first `n` of `values`; 0.5 and 0.5 for none."""
    high, low = 0.5, 0.5
    for k in range(n):
        high = values[k] if k == 0 or values[k] > high else high
        low = values[k] if k == 0 or values[k] < low else low
    return high, low


@kernel
def one_hot_row(action, confidence, cell, order, volatility, trend, present, row):
    """Write the 26 or 30 features of override mode (6.1) into `row`.

    action, confidence [5, N]; cell: column; order [M]: slots; volatility, trend: regime, NaN is 0.5 and 0.0; present [5]: scratch.
    """
    n_models, n, sell, hold, buy = len(order), 0, 0, 0, 0
    for k in range(n_models):
        a, c = action[order[k], cell], confidence[order[k], cell]
        row[4 * k] = 1.0 if a == 0 else 0.0
        row[4 * k + 1] = 1.0 if a == 1 or a < 0 else 0.0
        row[4 * k + 2] = 1.0 if a == 2 else 0.0
        row[4 * k + 3] = 0.5 if a < 0 else c
        if a >= 0:
            present[n] = c
            n, sell, hold, buy = n + 1, sell + (a == 0), hold + (a == 1), buy + (a == 2)
    first, most = 4 * n_models, max(sell, max(hold, buy))
    mean, deviation = spread(present, n)
    high, low = extremes(present, n)
    voters = n if n > 0 else 4
    row[first], row[first + 1], row[first + 2], row[first + 3] = (mean if n > 0 else 0.5), high, low, deviation
    row[first + 4], row[first + 5], row[first + 6] = buy / voters, sell / voters, hold / voters
    row[first + 7] = 1.0 - most / n if n > 0 else 0.0
    row[first + 8] = volatility if volatility == volatility else 0.5
    row[first + 9] = trend if trend == trend else 0.0


@kernel
def probable_row(probs, cell, order, advanced, before, present, leaning, row):
    """Write the 32 or 36 features of the advanced model (8) into `row`; return the mean confidence, NaN without a voter.

    probs [5, N, 3]: SELL HOLD BUY, NaN absent; cell: column; order [M]: slots; advanced [9, N]: `ADVANCED`; before: mean confidence of
    the bar before, NaN if there was none; present, leaning [5]: scratch. A NaN among `advanced` leaves the row with a NaN.
    """
    n_models, n, heat = len(order), 0, 0.0
    for k in range(n_models):
        p_sell, p_hold, p_buy = probs[order[k], cell, 0], probs[order[k], cell, 1], probs[order[k], cell, 2]
        is_absent = p_sell != p_sell
        c = max(p_sell, max(p_hold, p_buy))
        row[4 * k] = 0.0 if is_absent else p_sell
        row[4 * k + 1] = 1.0 if is_absent else p_hold
        row[4 * k + 2] = 0.0 if is_absent else p_buy
        row[4 * k + 3] = 0.5 if is_absent else c
        if not is_absent:
            present[n], leaning[n] = c, p_hold + 2.0 * p_buy
            heat += c * math.log(c + 1e-9)
            n += 1
    first = 4 * n_models
    mean, deviation = spread(present, n)
    high, low = extremes(present, n)
    row[first], row[first + 1], row[first + 2], row[first + 3] = (mean if n > 0 else 0.5), high, low, deviation
    row[first + 4] = spread(leaning, n)[1]
    row[first + 5] = -(heat / n) if n > 0 else 0.0
    for k in range(len(advanced)):
        row[first + 6 + k] = advanced[k, cell]
    row[first + 6 + len(advanced)] = abs(mean - before) if n > 0 and before == before else 0.0
    return mean if n > 0 else np.nan
