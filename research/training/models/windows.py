"""Sequence windows: the last L feature rows of one symbol, gathered only when a batch asks for them.

A window that is incomplete or holds an invalid row gives no prediction (`spec` D-29); its label is the one of its last bar.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.types import I8
from research.training.models.base import F4


def complete(usable: NDArray[np.bool_], lookback: int) -> NDArray[np.bool_]:
    """Cells whose last `lookback` rows are all usable, [n, S]; the rows before the first one count as missing."""
    run = np.cumsum(usable, axis=0, dtype=np.int64)
    before = np.zeros_like(run)
    before[lookback:] = run[:-lookback]
    return np.asarray(run - before == lookback)


@dataclass(frozen=True)
class Windows:
    """Windows by cell, like an array [N, L, F] that is made when indexed.

    matrix [n, S, F]: float32. cells [N]: flat numbers t * S + s of the last bar of each window. lookback: L rows.
    """

    matrix: F4
    cells: I8
    lookback: int

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, L, F), as the array would have it."""
        return len(self.cells), self.lookback, self.matrix.shape[2]

    def __getitem__(self, which: Any) -> F4:
        """Gather some windows as float32 [k, L, F]; `which` is a slice or an array of indices."""
        t, s = np.divmod(self.cells[which], self.matrix.shape[1])
        return self.matrix[t[:, None] + np.arange(1 - self.lookback, 1), s[:, None]]

    def last(self, count: int) -> "Windows":
        """Keep the `count` most recent windows; cells are in order of time."""
        return Windows(self.matrix, self.cells[-count:], self.lookback)


def inputs_of(matrix: F4, cells: I8, lookback: int) -> Any:
    """Return what a model of this lookback is fitted on and asked about: rows [N, F], or windows [N, L, F]."""
    return np.array(matrix.reshape(-1, matrix.shape[2])[cells]) if lookback == 1 else Windows(matrix, cells, lookback)
