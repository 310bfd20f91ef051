"""Rules that a layer of one's own keeps or breaks, and the comparisons that tell: run twice, in blocks, on inputs that must stay."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.own_code import said
from qtcore.types import Bars, Votes
from research.verify.causality import cut_points, first_difference

Arrays = dict[str, NDArray]
World = tuple[Bars, Votes]


@dataclass(frozen=True)
class Rule:
    """One rule: kept, or broken with a sentence that says where."""

    name: str
    broken: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.broken or 'kept'}"


def blocks_of(n: int, seed: int) -> list[list[int]]:
    """Two ways to cut: at random, and bar by bar."""
    return [[0, *cut_points(n, 7, seed), n], list(range(n + 1))]


def differs(what: str, expected: Arrays, found: Arrays, bars: Bars, rows: int | None = None) -> str:
    """Name the first cell of the first `rows` in which two sets of arrays differ by bits; "" when none does."""
    for name, array in expected.items():
        gap = first_difference(name, array[:rows], found[name][:rows])
        if gap is not None:
            symbol = "" if gap.symbol is None else f" of {bars.symbols[gap.symbol]}"
            return f"{what}: {gap.name}{symbol} differs first at bar {gap.bar}, {gap.left:g} against {gap.right:g}"
    return ""


def attempt(name: str, check: Callable[[], str]) -> Rule:
    """Run one check; an exception breaks its rule."""
    try:
        return Rule(name, check())
    except (Exception, SystemExit) as error:  # the layer is a stranger's code: whatever it raises is the finding
        return Rule(name, f"raised {said(error)}")


def arrays_of(*things: Any) -> list[NDArray]:
    """Every array reachable from dataclasses, one level deep."""
    found: list[NDArray] = []
    for thing in things:
        values = [thing] if isinstance(thing, np.ndarray) else list(vars(thing).values())
        found += [v for v in values if isinstance(v, np.ndarray)]
    return found


def mutates(call: Callable[[], Any], inputs: list[NDArray]) -> str:
    """Say how many of the inputs a call changed; "" when none."""
    before = [array.tobytes() for array in inputs]
    call()
    changed = sum(array.tobytes() != old for array, old in zip(inputs, before))
    return f"{changed} of its input arrays were changed; work on copies" if changed else ""
