"""Digest of a sweep for its page: sums over pairs of axes, the best rows, and an even sample, read part by part.

Nothing grows with the number of settings: a map has at most 60 x 60 cells, a sample 5,000 rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from research.runs.space import Axis, Space
from research.sweep.rules import Rule, kept
from research.sweep.trials import SweepResult

CELLS = 60  # values of an axis that a map shows; more are put together
FEWEST, IN_A_CELL = 8, 5  # bins of a range at least; settings that a cell of bins should hold
SAMPLE = 5_000
BINS = 60  # of the histogram


@dataclass(frozen=True)
class Scale:
    """The places of an axis on a map: its `values` in order, or equal bins that begin at `edges` where there are many or it is free."""

    values: "pd.Index[Any] | None"
    edges: NDArray[np.float64]

    @classmethod
    def of(cls, axis: Axis, shown: Sequence[Any], n: int) -> Self:
        """Lay out an axis; shown: its values as a table shows them; n: settings of the sweep, few of them fill few bins."""
        is_number = axis.is_free or all(isinstance(value, int | float) for value in shown)
        if not axis.is_free and (len(shown) <= CELLS or not is_number):
            return cls(pd.Index(sorted(shown)), np.empty(0))
        low, high = (axis.low, axis.high) if axis.is_free else (float(min(shown)), float(max(shown)))
        return cls(None, np.linspace(low, high, int(np.clip(np.sqrt(n / IN_A_CELL), FEWEST, CELLS)) + 1)[:-1])

    def __len__(self) -> int:
        return len(self.edges) if self.values is None else len(self.values)

    @property
    def places(self) -> list[Any]:
        """Values, or the lower ends of the bins."""
        return list(self.edges) if self.values is None else self.values.tolist()

    def code(self, column: "pd.Series[Any]") -> NDArray[np.int64]:
        """Give each value of a column its place."""
        if self.values is not None:
            return np.asarray(self.values.get_indexer(pd.Index(column)), np.int64)
        return np.clip(np.searchsorted(self.edges, column.to_numpy(np.float64), side="right") - 1, 0, len(self.edges) - 1)


@dataclass(frozen=True)
class Digest:
    """A sweep for its page.

    top: the best rows, falling; sample: one row drawn from each run of as many. scales: of each varied axis. maps: mean of the objective by
    pair (x, y), [y, x], NaN where nothing is known. counts [BINS] between edges [BINS + 1]: the spread of the objective, what lies beyond
    in the outermost.
    """

    top: pd.DataFrame
    sample: pd.DataFrame
    scales: dict[str, Scale]
    maps: dict[tuple[str, str], NDArray[np.float64]]
    edges: NDArray[np.float64]
    counts: NDArray[np.int64]


def digest(
    trials: SweepResult,
    columns: Sequence[str],
    objective: tuple[str, float],
    pairs: Sequence[tuple[str, str]],
    n_top: int,
    rules: Sequence[Rule] = (),
) -> Digest:
    """Read the trials' `columns` twice, part by part. objective: figure and sign; pairs: axes (x, y) of the maps.

    n_top: best rows that are kept, of those that keep `rules`.
    """
    name, sign = objective
    scales = scales_of(trials.space)
    sums, known = ({pair: np.zeros(len(scales[pair[0]]) * len(scales[pair[1]])) for pair in pairs} for _ in range(2))
    top, sample, seen, every = pd.DataFrame(), [], 0, max(1, len(trials) // SAMPLE)
    first = np.arange(0, len(trials), every)
    picks = first + np.random.default_rng(trials.space.seed).integers(0, every, len(first))  # a fixed stride would keep step with a grid
    for block in trials.blocks(list(dict.fromkeys([*columns, *(rule.column for rule in rules)]))):
        allowed, block = kept(block, rules), block[list(columns)]
        score = sign * block[name].to_numpy(np.float64)
        top = best_rows(pd.concat([top, best_rows(block[allowed], name, sign, n_top)], ignore_index=True), name, sign, n_top)
        sample.append(block.iloc[picks[(picks >= seen) & (picks < seen + len(block))] - seen])
        seen += len(block)
        told = np.isfinite(score)
        codes = {axis: scale.code(block[axis])[told] for axis, scale in scales.items()}
        for x, y in pairs:
            at, size = codes[y] * len(scales[x]) + codes[x], len(sums[x, y])
            sums[x, y] += np.bincount(at, sign * score[told], size)
            known[x, y] += np.bincount(at, minlength=size)
    drawn = pd.concat(sample, ignore_index=True) if sample else pd.DataFrame(columns=list(columns))
    edges = _edges(drawn[name].to_numpy(np.float64))
    counts = np.zeros(BINS, np.int64)
    for block in trials.blocks([name]):
        values = block[name].to_numpy(np.float64)
        counts += np.histogram(np.clip(values[np.isfinite(values)], edges[0], edges[-1]), edges)[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        maps = {(x, y): (sums[x, y] / known[x, y]).reshape(len(scales[y]), len(scales[x])) for x, y in pairs}
    return Digest(top, drawn, scales, maps, edges, counts)


def scales_of(space: Space) -> dict[str, Scale]:
    """Lay out the axes that vary."""
    told = zip(space.axes, space.shown(), strict=True)
    return {axis.name: Scale.of(axis, shown, space.size) for axis, shown in told if axis.is_free or len(axis.values) > 1}


def best_rows(table: pd.DataFrame, name: str, sign: float, n: int) -> pd.DataFrame:
    """Return the n best rows, falling; of equals the first."""
    return table.iloc[np.argsort(-sign * table[name].to_numpy(np.float64), kind="stable")[:n]].reset_index(drop=True)


def _edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    known = values[np.isfinite(values)]
    low, high = np.quantile(known, (0.001, 0.999)) if len(known) else (0.0, 1.0)
    return np.linspace(low, max(high, low + 1e-9), BINS + 1)
