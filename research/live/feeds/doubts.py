"""Candle quality warnings: what cannot be used, came twice or jumps. The words of `qt data check`, counted as the candles come."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.types import F8
from research.data.clock import iso
from research.data.rules import FEW, PROBLEMS, VALUE_RULES, Issue, broken_rule
from research.live.records import Event
from research.live.storage.cells import DamagedError

KINDS = {  # of events, by problem
    **dict.fromkeys(VALUE_RULES, "bad"),
    "off_grid": "bad",
    "conflict": "revised",
    "duplicate": "duplicate",
    "jump": "jump",
}


class Doubts:
    """Counts of a feed's problems, by symbol. rows [S]: candles that came so far, which a share is of."""

    def __init__(self, symbols: tuple[str, ...]) -> None:
        self.symbols, self.rows = symbols, np.zeros(len(symbols), np.int64)
        self._found: dict[tuple[str, str], Issue] = {}
        self._is_told: set[tuple[str, str]] = set()
        self.is_changed = False  # since `state`: something was said

    def state(self, bar: int) -> dict[str, Any]:
        """Return the counts after `bar` as JSON holds them."""
        self.is_changed = False
        found = [[issue.symbol, problem, issue.count, issue.first] for (_, problem), issue in self._found.items()]
        return {"bar": bar, "rows": self.rows.tolist(), "found": found, "told": sorted(map(list, self._is_told))}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with the counts of `state`. Raises DamagedError where they are not of these symbols."""
        known = all(name in self.symbols and problem in KINDS for name, problem, *_ in (*state["found"], *state["told"]))
        if len(state["rows"]) != len(self.symbols) or not known:
            raise DamagedError("counts of candles of other symbols")
        self.rows = np.array(state["rows"], np.int64)
        self._found = {(name, problem): Issue(name, problem, count, 0, first, "told") for name, problem, count, first in state["found"]}
        self._is_told = {(name, problem) for name, problem in state["told"]}

    def mask(self, prices: F8) -> tuple[F8, list[tuple[int, str]]]:
        """Blank what cannot be a candle of prices [5, S], or [6, S] with funding; return also (symbol, problem) of each."""
        broken = broken_rule(prices[:5])
        if not broken.any():
            return prices, []
        prices = prices.copy()
        prices[:5, broken > 0] = np.nan
        return prices, [(int(s), VALUE_RULES[broken[s] - 1]) for s in np.flatnonzero(broken)]

    def say(self, now: int, problem: str, symbols: Sequence[int] | NDArray, open_time: int, end: str = "") -> Iterator[Event]:
        """Yield an event for every symbol whose candle of `open_time` has the problem, and one where it has become too many.

        end: what the sentence ends with; what a backtest does, without.
        """
        for s in symbols:
            name, of = self.symbols[s], int(self.rows[s])
            known = self._found.get((name, problem))
            count, first = (1, open_time) if known is None else (known.count + 1, known.first)
            issue = Issue(name, problem, count, of, first, end or PROBLEMS[problem][1])
            self._found[name, problem], self.is_changed = issue, True
            this = "" if known is None else f" (this one at {iso(open_time)})"
            yield Event(now, KINDS[problem], issue.text + this, name)
            is_many = KINDS[problem] == "bad" and count > max(FEW, of // 100)
            if is_many and (name, problem) not in self._is_told:
                self._is_told.add((name, problem))
                yield Event(now, "quality", Issue(name, problem, count, of, first, "stops").text, name)
