"""Feature matrix: planes packed by name into one float32 row per cell, as a model reads them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qtcore.jit import kernel

if TYPE_CHECKING:
    from qtcore.features.bank import Planes


def matrix(planes: "Planes", names: Iterable[str]) -> NDArray[np.float32]:
    """Pack planes by name: [n, S, F] float32, C-contiguous; a row is NaN where it is not valid, a cell where its feature is unknown.

    Raises InputError on a name that the planes do not hold.
    """
    slots = np.array([planes.slot(name) for name in names], np.int64)
    n_planes, n, n_symbols = planes.values.shape
    out = np.empty((n, n_symbols, len(slots)), np.float32)
    cells = n * n_symbols
    pack(planes.values.reshape(n_planes, cells), planes.valid.reshape(cells), slots, out.reshape(cells, len(slots)))
    return out


@kernel
def pack(values, valid, slots, out):
    """Gather `values[slots]` [F, cells] into out [cells, F] float32; NaN where not `valid` [cells]."""
    for i in range(out.shape[0]):
        for f in range(out.shape[1]):
            out[i, f] = values[slots[f], i] if valid[i] else np.nan
