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
from qtcore.types import I8, METRICS
from research.runs.case import Case
from research.runs.metrics import figures, outcomes, regime_figures
from research.runs.space import Space

LANES = 64  # settings that the kernels run side by side: pieces are multiples
Piece = tuple[I8 | None, NDArray, NDArray]  # places of the settings in their part, None for all; METRICS and REGIME_METRICS


@dataclass(frozen=True)
class Settings:
    """The work of a sweep: settings of `space` are run on `case`. An item: a part [first, last), and the places in it that are run."""

    space: Space
    case: Case

    def __call__(self, item: tuple[int, int, I8 | None]) -> tuple[NDArray, NDArray]:
        """Run an item: METRICS [m] and REGIME_METRICS [m, 15] or [0, 15]."""
        first, last, picked = item
        drawn = self.space.draw(first, last)
        if picked is not None:
            drawn = [at[picked] for at in drawn]
        if self.case.own.chain:
            return self.case.run_own(self.space.settings(drawn))
        records = self.space.records(drawn)
        metrics, regimes = np.empty(len(records), METRICS), []
        markets, number = self.space.markets(drawn)
        order = []
        for i, params in enumerate(markets):
            rows = np.flatnonzero(number == i)
            metrics[rows], some = self.case.run(records[rows], params)
            regimes.append(some)
            order.append(rows)
        sliced = np.concatenate(regimes)
        return metrics, sliced[np.argsort(np.concatenate(order))] if len(sliced) else sliced

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
        picked, metrics, regimes = pieces[0]
        if picked is not None:
            places = np.argsort(np.concatenate([at for at, _, _ in pieces if at is not None]))
            metrics = np.concatenate([some for _, some, _ in pieces])[places]
            regimes = np.concatenate([some for _, _, some in pieces])
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
        return self.table(first, last, [(None, *self((first, last, None)))])
