"""Study plan: which features, targets and books are tried together, and which part of the data nobody looks at until the end."""

from dataclasses import dataclass
from datetime import date
from itertools import product
from typing import ClassVar

import numpy as np

from qtcore.choices import FAMILIES
from qtcore.declare import names, text, word
from qtcore.params import Params
from qtcore.types import I8
from research.errors import ConfigError, several
from research.training.labels import get_label
from research.training.plan import Declared, option

BASE, ALL, JOINT = "base", "all", "+"
HELD_BACK = 0.2  # of the bars, where no date is named
LEAST_HELD = 100  # bars on either side of the date
MOST = 1_000  # combinations
EARNINGS, SKILL = "earnings", "skill"


@dataclass(frozen=True)
class StudyPlan(Declared):
    """What a study is told; the table `[study]`."""

    TABLE: ClassVar[str] = "study"

    data: str = text("", "candles, as `qt backtest` takes them")
    symbols: tuple[str, ...] = names((), "symbols of the candles; empty for all")
    start: str = option(text("", "first day of the candles"), said="from")
    end: str = option(text("", "day after the last of the candles"), said="to")
    families: tuple[str, ...] = names((BASE, ALL), "beside features.sets: base (nothing), all, a family, or several as clock+range")
    targets: tuple[str, ...] = names(("L3",), "labels that the models learn, as run.label takes them")
    books: tuple[str, ...] = names(("symbols",), "values of governor.book")
    best_by: str = word(EARNINGS, (EARNINGS, SKILL), "what the best has: the largest t value, or the surest gain of accuracy over the base")
    hold_back: str = text("", "date (UTC) from which bars are held back until --held-back; empty: the last fifth of them")

    def __post_init__(self) -> None:
        for name in ("start", "end", "hold_back"):
            if isinstance(value := getattr(self, name), date):  # TOML has dates of its own
                object.__setattr__(self, name, value.isoformat())
        super().__post_init__()

    def combinations(self) -> list[tuple[str, str, str]]:
        """Return every (families, target, book), each once; those without more features first, as others are held against them."""
        families = dict.fromkeys((BASE, *self.families))
        found = list(product(families, dict.fromkeys(self.targets), dict.fromkeys(self.books)))
        if not self.targets or not self.books or len(found) > MOST:
            raise ConfigError(f"[study] must have 1 to {MOST} combinations of families, targets and books, was {len(found)}; name others")
        return found

    def check(self, params: Params) -> None:
        """Raise UserError on every mistake that can be told without candles."""
        from research.data.clock import parse_time

        if not self.data:
            raise ConfigError('study.data must name candles, was empty; write data = "candles.parquet" into [study]')
        for families, target, book in self.combinations():
            self.sets(params, families, MOST)
            if target == "auto":
                raise ConfigError("study.targets must name labels, was auto, which the data choose; name L1 or L4")
            get_label(target, params.broker)
            params.with_values({"governor.book": book})
        if self.hold_back:
            parse_time(self.hold_back, "study.hold_back")

    def sets(self, params: Params, families: str, n_symbols: int) -> tuple[str, ...]:
        """Return `features.sets` of one combination. Raises UserError on an unknown family, and on one that needs more symbols."""
        from qtcore.features import chosen
        from qtcore.features.registry import ACROSS, LEAST

        base = params.features.every_set
        others = tuple(name for name in FAMILIES if name not in base)
        if families == BASE:
            return base
        if families == ALL:
            return (*base, *(name for name in others if name not in ACROSS or n_symbols >= LEAST))
        wanted = tuple(families.split(JOINT))
        if there := [name for name in wanted if name in base]:
            held = f"study.families must be beside features.sets ({', '.join(base)}), was {there[0]!r} of {families!r}"
            raise ConfigError(f'{held}, which is there already; name others, or make the base smaller: features.sets = ["{base[0]}"]')
        if wrong := [name for name in wanted if name not in others]:
            known = ", ".join((BASE, ALL, *others))
            raise ConfigError(f"study.families must be among {known}, or several as clock{JOINT}range, was {wrong[0]!r} of {families!r}")
        chosen((*base, *wanted), n_symbols)
        return (*base, *dict.fromkeys(wanted))

    def held_from(self, close_time: I8) -> int:
        """Return the first row that is held back. Raises ConfigError where either part is too short. close_time [n]: ns UTC."""
        from research.data.clock import iso, parse_time

        n = len(close_time)
        if self.hold_back:
            since = parse_time(self.hold_back, "study.hold_back")
            assert since is not None
            row = int(np.searchsorted(close_time, since, side="right"))
        else:
            row = n - round(HELD_BACK * n)
        if not LEAST_HELD <= row <= n - LEAST_HELD:
            span = f"{iso(int(close_time[0]))} to {iso(int(close_time[-1]))}"
            raise ConfigError(
                f"study.hold_back must leave {LEAST_HELD} bars or more on either side, was {self.hold_back or 'empty'} with "
                f"{several(row, 'bars')} before and {several(n - row, 'bars')} behind ({span}); name another date"
            )
        return row
