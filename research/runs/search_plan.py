"""Search plan: what a sweep tries and what the best setting is, declared once.

`sweep` takes the fields as keywords; users set them by `--set search.NAME`, in the table `[search]`, or with flags of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from qtcore import Params
from qtcore.declare import bounded, optional, switch, text, word
from research.runs.space import SEARCHES, Space
from research.training.plan import MOST_ROWS, Declared, option

USUAL = 1_000  # settings of a random or adaptive search


@dataclass(frozen=True)
class SearchPlan(Declared):
    """What a search is told. grid: `{"layer.name": values}` as `Space.of` reads them; seed: of the settings that are drawn."""

    TABLE: ClassVar[str] = "search"

    grid: Mapping[str, Any] = field(default_factory=dict)
    search: str = option(word("grid", SEARCHES, "adaptive tries what the trials so far make promising"), said="method", flag="--search")
    settings: int | None = option(
        optional(bounded(0, 0, MOST_ROWS, "settings of a random or adaptive search; auto is 1,000"), "auto"), flag="--settings"
    )
    objective: str = text("sharpe", "figure that the best trial has the most of, and an adaptive search looks for; -NAME for the least")
    by_regime: bool = switch(False, "also figures of each regime slice, as sharpe.volatility_low")
    where: tuple[str, ...] = field(default=())
    seed: int = 42

    @property
    def n_settings(self) -> int:
        """Settings of the search; 0 for a grid, which tries all."""
        return self.settings if self.settings is not None else 0 if self.search == "grid" else USUAL

    def space(self, base: Params) -> Space:
        """Return the settings over `base`. Raises UserError where the grid does not do."""
        return Space.of(base, self.grid, self.search, self.n_settings, self.seed)
