"""Sweep work units: settings are run, whole parts or pieces of one, here or by workers; the caller makes their table.

A worker hands back records of numbers alone: a table of 64 rows takes as long to make as one of 4,096 (2026-11).
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from qtcore.sweep import run_order
from qtcore.sweep.plain import N_REGIMES
from qtcore.types import F8, I8, METRICS, REGIME_METRICS
from research.evidence.family import Drawn
from research.runs.case import Case
from research.runs.metrics import figures, outcomes, regime_figures
from research.runs.space import Space
from research.sweep.drawing import Drawing

LANES = 64  # settings that the kernels run side by side: pieces are multiples
Piece = tuple[I8 | None, NDArray, NDArray, Drawn]  # places of the settings in their part, None for all; what `Settings` returns


@dataclass(frozen=True)
class Settings:
    """The work of a sweep: settings of `space` are run on `case`. An item: a part [first, last), and the places in it that are run.

    drawing: how settings that are counted leave their trace in the trial ledger; None where none is.
    """

    space: Space
    case: Case
    drawing: Drawing | None = None

    def __call__(self, item: tuple[int, int, I8 | None]) -> tuple[NDArray, NDArray, Drawn]:
        """Run an item: METRICS [m], REGIME_METRICS [m, 15] or [0, 15], and what the settings draw."""
        first, last, picked = item
        chosen = self.space.draw(first, last)
        if picked is not None:
            chosen = [at[picked] for at in chosen]
        records, out = self.space.records(chosen), Drawn()
        ends = np.empty(0, np.int64) if self.drawing is None else self.drawing.ends(records)
        metrics = np.empty(len(records), METRICS)
        regimes = np.zeros((len(records) if self.case.by_regime else 0, N_REGIMES), REGIME_METRICS)
        for rows, measured, sliced, equity in self._runs(chosen, records, ends):
            metrics[rows] = measured
            if len(regimes):
                regimes[rows] = sliced
            if self.drawing is not None:
                out += self.drawing.drawn(records[rows], ends, equity)
        return metrics, regimes, out

    def _runs(self, chosen: list[NDArray], records: NDArray, ends: I8) -> Iterator[tuple[NDArray, NDArray, NDArray, F8]]:
        """Run settings, some at a time: their places, and what `Case.run` yields of them."""
        if self.case.own.chain:
            yield np.arange(len(records)), *self.case.run_own(self.space.settings(chosen), ends)
            return
        markets, number = self.space.markets(chosen)
        for i, params in enumerate(markets):
            rows = np.flatnonzero(number == i)
            for some, *found in self.case.run(records[rows], params, ends):
                yield rows[some], *found

    def for_worker(self) -> Self:
        """Copy every array: kernels want writeable ones."""
        return copy.deepcopy(self)

    def packed(self) -> Self:
        """Lay out here what all workers need, and leave the meta layer's models behind where they have said all they will."""
        self((0, min(LANES, self.space.size), None))  # fills what `case` and `space` remember, and compiles here, not in every worker
        if any(axis.is_market for axis in self.space.axes):
            return self
        return replace(self, case=replace(self.case, meta=None))

    def pieces(self, first: int, last: int, rows: int) -> Iterator[tuple[int, int, I8 | None]]:
        """Cut the part [first, last) into items of at most `rows` settings, a multiple of LANES.

        The drivers' own chunks stay whole: 64 pieces took 1.5 times as long where neighbours of the grid were together (2026-11).
        """
        if last - first <= rows:
            yield first, last, None
            return
        drawn = self.space.draw(first, last)
        order, market = run_order(self.case.market(self.space.base), self.space.records(drawn)), self.space.markets(drawn)[1]
        order = order[np.argsort(market[order], kind="stable")]
        for start in range(0, len(order), rows):
            yield first, last, order[start : start + rows]

    def table(self, first: int, last: int, pieces: Sequence[Piece]) -> pd.DataFrame:
        """Make the table of the part [first, last) of all its pieces: a row a setting, the values of the axes and the figures."""
        picked, metrics, regimes, _ = pieces[0]
        if picked is not None:
            places = np.argsort(np.concatenate([piece[0] for piece in pieces if piece[0] is not None]))
            metrics = np.concatenate([piece[1] for piece in pieces])[places]
            regimes = np.concatenate([piece[2] for piece in pieces])
            regimes = regimes[places] if len(regimes) else regimes
        drawn = self.space.draw(first, last)
        n_bars = self.case.n_returns(self.space.records(drawn))
        columns: dict[str, Any] = {"trial": np.arange(first, last), **self.space.columns(drawn)}
        columns |= figures(metrics, n_bars, self.case.bars_per_year)
        if self.case.by_regime:
            columns |= regime_figures(regimes, metrics, n_bars, self.case.bars_per_year)
        return pd.DataFrame(columns | {"n_bars": n_bars, "outcome": outcomes(metrics)})

    def rows(self, first: int, last: int) -> pd.DataFrame:
        """Run the part [first, last) and return its table."""
        return self.part(first, last)[0]

    def part(self, first: int, last: int) -> tuple[pd.DataFrame, Drawn]:
        """Run the part [first, last) and return its table, and what its settings draw."""
        done = self((first, last, None))
        return self.table(first, last, [(None, *done)]), done[-1]
