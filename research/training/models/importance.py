"""Permutation feature importance: how much worse a model answers on its held-out fold when one feature's values change places."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from qtcore.types import F8, I8
from research.training.models.base import F4
from research.training.models.scores import balanced_accuracy

CELLS = 4_000  # of the test fold are asked about, in blocks of rows spread over it: the cost of a fit hardly grows


def permutation(
    predict: Callable[[F4], F8], rows: F4, labels: NDArray[np.int8], cells: I8, n_symbols: int, names: Sequence[str], block: int, seed: int
) -> dict[str, float]:
    """Return the drop of balanced accuracy by feature when blocks of its values are shuffled within each symbol.

    rows [N, F], labels [N] and cells [N] (flat numbers t * S + s, in order of time) of a fold that the model has not seen; cells of label
    -1 are left out. block: rows that stay together, the label's horizon, so that neighbours which share a label move together.
    """
    chosen = np.flatnonzero(_spread(cells // n_symbols // block, labels >= 0))
    if len(chosen) == 0:
        return {}
    x, truth = rows[chosen], labels[chosen].astype(np.int64)
    places = _shuffled(cells[chosen] // n_symbols // block, cells[chosen] % n_symbols, seed)

    def skill(matrix: F4) -> float:
        return balanced_accuracy(np.bincount(truth * 3 + np.argmax(predict(matrix), axis=1), minlength=9).astype(np.float64))

    base, out = skill(x), {}
    for f, name in enumerate(names):
        other = x.copy()
        other[:, f] = x[places, f]
        out[name] = round(base - skill(other), 6)
    return out


def _spread(blocks: I8, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark known cells of as many blocks, evenly over time, as hold about CELLS cells."""
    numbers = np.unique(blocks[known])
    keep = max(2, len(numbers) * CELLS // max(1, int(np.count_nonzero(known))))
    if keep >= len(numbers):
        return known
    return np.asarray(known & np.isin(blocks, numbers[np.linspace(0, len(numbers) - 1, keep).astype(np.int64)]))


def _shuffled(blocks: I8, symbols: I8, seed: int) -> I8:
    """Places from which each cell takes its value: the blocks of each symbol in another order."""
    rng = np.random.default_rng(seed)
    out = np.arange(len(blocks))
    for s in np.unique(symbols):
        own = np.flatnonzero(symbols == s)
        parts = np.split(own, np.flatnonzero(np.diff(blocks[own])) + 1)
        out[own] = np.concatenate([parts[i] for i in rng.permutation(len(parts))])
    return out
