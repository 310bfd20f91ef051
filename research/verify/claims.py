"""Claims of a proof: what was claimed, over how many cells, and which one broke it first."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.types import I8

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Offender:
    """The first cell that broke a claim: bar (row), its time, symbol ("" where the claim is about a bar), column, and by how much."""

    bar: int
    time: str
    symbol: str
    column: str
    distance: float

    def __str__(self) -> str:
        who = f" {self.symbol}" if self.symbol else ""
        when = f"bar {self.bar} ({self.time})" if self.bar >= 0 else self.time
        return f"{when}{who} {self.column}, distance {self.distance:g}"


@dataclass(frozen=True)
class Claim:
    """One checked statement. `checked` and `violated` count cells, bars or fills, as `unit` says."""

    id: str
    text: str
    checked: int
    violated: int
    unit: str = "cells"
    first: Offender | None = None

    @property
    def holds(self) -> bool:
        """Whether nothing was violated."""
        return self.violated == 0

    @property
    def complaint(self) -> str:
        """One sentence that names the claim and the first offender; empty when it holds."""
        if self.holds:
            return ""
        return f"{self.id}: {self.violated} of {self.checked} {self.unit} break '{self.text}', first {self.first}"

    def to_dict(self) -> dict[str, Any]:
        """Return what `verify.json` holds; an infinite distance (one side is NaN) is null there."""
        first = None if self.first is None else dict(self.first.__dict__)
        if first is not None and not math.isfinite(first["distance"]):
            first["distance"] = None
        return {"id": self.id, "unit": self.unit, "n_checked": self.checked, "n_violated": self.violated, "first": first}


@dataclass(frozen=True)
class Clock:
    """Names rows and columns: close_time [n] ns UTC and the symbols."""

    close_time: I8
    symbols: tuple[str, ...]

    def offender(self, bar: int, symbol: int | None, column: str, distance: float) -> Offender:
        """Name a cell; a distance that is NaN becomes infinite."""
        inside = 0 <= bar < len(self.close_time)
        time = str(np.datetime64(int(self.close_time[bar]), "ns"))[:16] + " UTC" if inside else "outside the data"
        gap = abs(float(distance))
        return Offender(int(bar), time, "" if symbol is None else self.symbols[symbol], column, gap if gap == gap else float("inf"))

    def cells(self, id_: str, text: str, column: str, applies: Mask, holds: Mask, distance: NDArray | None = None) -> Claim:
        """Claim over cells [n, S]: wherever `applies`, `holds` must be true. distance [n, S]: by how much it fails, 1 by default."""
        broken = applies & ~holds
        n_broken = int(np.count_nonzero(broken))
        first = None
        if n_broken:
            row, s = divmod(int(np.argmax(broken)), broken.shape[1])
            first = self.offender(row, s, column, 1.0 if distance is None else float(distance[row, s]))
        return Claim(id_, text, int(np.count_nonzero(applies)), n_broken, "cells", first)

    def bars(self, id_: str, text: str, column: str, applies: Mask, holds: Mask, distance: NDArray | None = None) -> Claim:
        """Claim over bars [n]: wherever `applies`, `holds` must be true."""
        broken = np.flatnonzero(applies & ~holds)
        first = None
        if len(broken):
            row = int(broken[0])
            first = self.offender(row, None, column, 1.0 if distance is None else float(distance[row]))
        return Claim(id_, text, int(np.count_nonzero(applies)), len(broken), "bars", first)

    def rows(self, id_: str, text: str, column: str, bar: I8, symbol: I8, holds: Mask, distance: NDArray | None = None) -> Claim:
        """Claim over the rows of a ledger: bar, symbol, holds [k]."""
        broken = np.flatnonzero(~holds)
        first = None
        if len(broken):
            k = int(broken[np.argmin(bar[broken])])
            first = self.offender(int(bar[k]), int(symbol[k]), column, 1.0 if distance is None else float(distance[k]))
        return Claim(id_, text, len(holds), len(broken), "fills", first)
