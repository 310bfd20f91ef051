"""Draws of a sweep: what each setting earned beyond the market, from day-end equity of its own pass, drawn as the verdict's test does."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qtcore.types import F8, I8
from research.evidence.alpha import Hedge
from research.evidence.family import Drawn
from research.runs.case import Case


@dataclass
class Drawing:
    """Hedges and draws the settings of a case, for a lineage of the trial ledger by its name.

    Settings that hold longer are tested longer, as their runs are, so that a row leaves what its run alone would.
    """

    case: Case
    lineage: str
    _hedges: dict[int, Hedge] = field(default_factory=dict)

    def hedges(self, records: NDArray) -> tuple[list[Hedge], I8]:
        """Return the hedges of settings (PARAMS [P]), and which of them each setting has [P]."""
        stops, which = np.unique(self.case.n_returns(records) + self.case.first + 1, return_inverse=True)
        for stop in stops.tolist():
            if stop not in self._hedges:
                self._hedges[stop] = Hedge.of(self.case.bars, slice(self.case.first, stop))
        return [self._hedges[stop] for stop in stops.tolist()], which

    def ends(self, records: NDArray) -> I8:
        """Return the bars at whose close the equity of settings must be known, ascending, counted from the first vote."""
        return np.unique(np.concatenate([hedge.ends for hedge in self.hedges(records)[0]])) - self.case.first

    def drawn(self, records: NDArray, ends: I8, equity: F8) -> Drawn:
        """Draw settings. equity [P, D]: at the bars `ends` [D], counted from the first vote."""
        out, (hedges, which) = Drawn(), self.hedges(records)
        for i, hedge in enumerate(hedges):
            rows, columns = np.flatnonzero(which == i), np.searchsorted(ends, hedge.ends - self.case.first)
            before = records["broker"]["initial_cash"][rows]
            out += Drawn.of(self.lineage, hedge.outcome(equity[np.ix_(rows, columns)], before))
        return out
