"""Sweep result, `SweepResult`: the table of a sweep, its best rows, its pictures, and the way back to a single run."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from qtcore import Params
from research.errors import UserError
from research.evidence.sharpe import Moments, deflated_sharpe
from research.files import Kind, count_rows, read_table
from research.runs.case import Case
from research.runs.metrics import figure_names
from research.runs.space import Space
from research.sweep.drivers import count_drivers
from research.sweep.rules import best_row, kept, known_column, parse_rules

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PART = Kind("results as `qt sweep` wrote them", "remove it and use --resume", {"trial": int, "n_bars": int, "outcome": int})


def read_part(part: pd.DataFrame | Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Return a part of a sweep's table, or some of its columns. Raises UserError where its file is gone, damaged or of another kind."""
    if isinstance(part, Path):
        return read_table(part, PART, columns).replace_schema_metadata(None).to_pandas()  # pandas' own words there may be damaged
    return part if columns is None else part[columns]


@dataclass
class SweepResult:
    """The finished settings of a sweep, in order.

    parts: tables by their first setting, in memory or as Parquet files; resumed: those that another process wrote. where: constraints
    that `best` keeps. tried: what the ledger has seen on these candles, None when the rows were not counted.
    """

    space: Space
    case: Case
    parts: Mapping[int, pd.DataFrame | Path]
    where: tuple[str, ...] = ()
    folder: Path | None = None
    resumed: frozenset[int] = frozenset()
    tried: Any = field(default=None)

    def __len__(self) -> int:
        return sum(self._rows(part) for part in self.parts.values())

    @staticmethod
    def _rows(part: pd.DataFrame | Path) -> int:
        return count_rows(part, PART) if isinstance(part, Path) else len(part)

    @property
    def columns(self) -> list[str]:
        """Names of everything a row tells."""
        return ["trial", *self.space.names, *figure_names(self.case.by_regime), "n_bars", "outcome"]

    def blocks(self, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """Read the table part by part, in order, without holding it."""
        wanted = None if columns is None else list(columns)
        for first in sorted(self.parts):
            yield read_part(self.parts[first], wanted)

    def table(self, columns: Sequence[str] | None = None, where: Sequence[str] = ()) -> pd.DataFrame:
        """Return the trials that keep the constraints, one row each, or some of their columns."""
        rules = parse_rules(where, self.columns)
        names = None if columns is None else [known_column(name, self.columns) for name in columns]
        read = None if names is None else list(dict.fromkeys([*names, *(rule.column for rule in rules)]))
        parts = [block[kept(block, rules)] for block in self.blocks(read)]
        whole = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=read or self.columns)
        return whole if names is None else whole[names]

    def best(self, objective: str = "sharpe", where: Sequence[str] | None = None) -> pd.Series:
        """Return the trial with the largest `objective` (smallest of `-max_drawdown`) among those that keep the constraints.

        where: instead of those of the sweep. An objective of a slice, `sharpe.volatility_low`, needs a sweep with `by_regime`. Where no
        trial traded, so that none has a ratio, the first one stands for all. Raises UserError when no trial keeps the constraints.
        """
        rules = parse_rules(self.where if where is None else where, self.columns)
        tops = []
        for block in self.blocks():
            at = best_row(block, objective, rules)
            if at is not None:
                tops.append(block.iloc[[at]])
        if not tops and not rules and not any(self.table(["n_trades"])["n_trades"]):
            return next(self.blocks()).iloc[0]
        if not tops:
            asked = " and ".join(f"{r.column} {r.sign} {r.limit:g}" for r in rules) or f"a {objective}"
            raise UserError(f"a trial must have {asked}, none of {len(self):,} did; loosen a constraint")
        candidates = pd.concat(tops, ignore_index=True)
        top = best_row(candidates, objective, ())
        assert top is not None
        return candidates.iloc[top]

    def params(self, trial: int) -> Params:
        """Return the resolved parameters of a trial."""
        return self.space.base.with_values(self.space.setting(int(trial)))

    @property
    def drivers(self) -> dict[str, int]:
        """Count the trials by who ran them: `lanes` (64 side by side, quickest), else what asked for the plain driver, as `order`."""
        return count_drivers(self.space, self.case, [(first, first + self._rows(part)) for first, part in self.parts.items()])

    @property
    def n_distinct(self) -> int:
        """Count the distinct outcomes: settings that differ in nothing are one."""
        return len(np.unique(self.table(["outcome"])["outcome"].to_numpy(np.uint64)))

    def deflated(self, trial: int | None = None) -> float:
        """Return the probability that a trial's Sharpe ratio (the best's by default) is skill, given everything the ledger has seen.

        NaN when the trials were not counted, or the trial has no ratio. Without its autocorrelation, which a row does not hold.
        """
        if self.tried is None:
            return math.nan
        row = self.best(where=()) if trial is None else self._row(trial)
        m = Moments(float(row["sharpe_bar"]), float(row["skew"]), float(row["kurtosis"]), int(row["n_bars"]))
        return deflated_sharpe(m, self.tried.trials, self.tried.variance)

    def _row(self, trial: int) -> pd.Series:
        for block in self.blocks():
            at = trial - int(block["trial"].iloc[0])
            if 0 <= at < len(block):
                return block.iloc[at]
        raise UserError(f"a trial must be one of the {len(self):,} finished ones, was {trial}")

    def pivot(self, x: str, y: str, value: str = "sharpe") -> pd.DataFrame:
        """Return `value` over two parameters, the mean over all others; rows y, columns x."""
        for name in (x, y):
            if name not in self.space.names:
                raise UserError(f"a heatmap's axis must be a parameter of the sweep, was {name!r}; they are {', '.join(self.space.names)}")
        return self.table([x, y, value]).pivot_table(index=y, columns=x, values=value, aggfunc="mean")

    def heatmap(self, x: str, y: str, value: str = "sharpe", ax: "Axes | None" = None) -> "Axes":
        """Draw `value` over two parameters, the mean over all others, on `ax` (a new one by default) and return it."""
        import matplotlib.pyplot as plt

        table = self.pivot(x, y, value)
        axes = plt.subplots(figsize=(7, 5))[1] if ax is None else ax
        mesh = axes.pcolormesh(np.arange(table.shape[1] + 1), np.arange(table.shape[0] + 1), table.to_numpy(np.float64), cmap="viridis")
        for at, labels, axis in ((table.columns, x, axes.xaxis), (table.index, y, axes.yaxis)):
            step = max(1, len(at) // 8)
            axis.set_ticks(np.arange(0, len(at), step) + 0.5, [f"{v:g}" if isinstance(v, float) else str(v) for v in at[::step]])
            axis.set_label_text(labels)
        axes.figure.colorbar(mesh, ax=axes, label=value)
        axes.set_title(f"{value}, mean over the other parameters")
        return axes

    def to_polars(self) -> Any:
        """Return the whole table as a polars frame."""
        import polars as pl

        return pl.from_pandas(self.table())

    def __repr__(self) -> str:
        return f"<{len(self):,} of {self.space.size:,} trials over {', '.join(self.space.names)}>"
