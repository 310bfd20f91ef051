"""Sign-flip test with step-down: the t value that luck reaches among everything that was tried on a market.

`spec` D-98. Under the null hypothesis the hedged sum of a block (`research.evidence.alpha`) is as likely to be above as below 0: its sign
may be flipped. A draw flips blocks at random, the same ones for everything on the market, whenever it was tried: the sign is a bit of
Philox (lineage, block, draw). The highest t value in each of DRAWS draws is all that must be kept of a million trials (their maxima), and
critical is the value that one draw in twenty exceeds. Observed t values are made smaller for skewness and autocorrelation
(`qtcore.sweep.hedge`), drawn ones are not.

A trial that is an edge leaves the family, and the rest is judged anew (step-down; Romano and Wolf 2005). Trials without known returns
count as independent normal ones, which asks for more than they would.

Not a bootstrap: where most days are zero, percentile-t of stationary or Mammen's draws calls 9 to 14 % of skill-less books an edge.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from qtcore.types import I8
from research.evidence.alpha import Outcome, unit_of

DRAWS, LEVEL = 2_000, 0.05
F4 = NDArray[np.float32]
AT_ONCE = 1_024  # accounts that are drawn at once: 8 MB
ALONE = np.full(DRAWS, -np.inf, np.float32)  # maxima of nothing


@lru_cache(maxsize=8)
def _signs(lineage: str, keys: bytes) -> F4:
    key = np.frombuffer(hashlib.sha256(lineage.encode()).digest()[:16], np.uint64)
    blocks = np.frombuffer(keys, np.int64)
    raw = np.empty((len(blocks), -(-DRAWS // 64)), "<u8")
    generator = np.random.Philox(key=key)
    begin = generator.state  # set again for each block: a new generator takes ten times as long
    for row, block in zip(raw, blocks.view(np.uint64)):
        begin["state"]["counter"][:] = 0, 0, 0, block
        generator.state = begin
        row[:] = generator.random_raw(raw.shape[1])
    bits = np.unpackbits(raw.view(np.uint8), axis=1)[:, :DRAWS]
    signs: F4 = np.ascontiguousarray(bits.T).astype(np.float32)
    signs *= 2.0
    signs -= 1.0
    return signs


def drawn(lineage: str, keys: I8, units: NDArray[np.int32]) -> F4:
    """Return the t value of every draw and account, [DRAWS, P]; units [P, B]: sums of the blocks `keys`, as in `Outcome`.

    Exact, hence the same bits for an account whoever stands beside it.
    """
    flips = _signs(lineage, np.ascontiguousarray(keys, np.int64).tobytes())
    sums: F4 = flips @ np.ascontiguousarray(units.T, np.float32)
    sums /= np.float32(unit_of(len(keys)))
    return sums


def maxima(lineage: str, keys: I8, units: NDArray[np.int32], known: F4 = ALONE) -> F4:
    """Return the highest t value of each draw among `known` [DRAWS] and the accounts of `units` [P, B] that moved."""
    out = known
    moved = units[units.any(axis=1)]
    for first in range(0, len(moved), AT_ONCE):
        out = np.maximum(out, drawn(lineage, keys, moved[first : first + AT_ONCE]).max(axis=1))
    return out


def independent(lineage: str, n: int) -> F4:
    """Return the highest of `n` independent normal t values in each draw, a function of lineage and draw; -inf for none."""
    if n < 1:
        return ALONE
    from scipy.special import ndtri

    key = np.frombuffer(hashlib.sha256(f"{lineage} independent".encode()).digest()[:16], np.uint64)
    u = np.random.Generator(np.random.Philox(key=key)).random(DRAWS)
    highest: F4 = ndtri(u ** (1.0 / n)).astype(np.float32)
    return highest


def critical(highest: F4) -> float:
    """Return the value that an edge must exceed, from the maxima [DRAWS] of its family."""
    return float(limits(highest))


def limits(highest: F4) -> F4:
    """Return the critical values of many families, maxima [DRAWS, ...] -> [...]."""
    place = math.ceil((1.0 - LEVEL) * (DRAWS + 1)) - 1
    values: F4 = np.partition(highest, place, axis=0)[place]
    return values


def p_value(t: float, highest: F4) -> float:
    """Return the share of draws that reach `t`, itself counted among them: never below 1 / (DRAWS + 1)."""
    return (1 + int(np.count_nonzero(highest >= t))) / (DRAWS + 1)


@dataclass(frozen=True)
class Judged:
    """What the test found of one account.

    critical, p: of the family in which it was decided, those above it that are edges left out; n_edges: how many of these there were.
    """

    is_edge: bool
    critical: float
    p: float
    n_edges: int = 0


def judge(lineage: str, mine: Outcome, others: Sequence[Outcome] = (), rest: F4 = ALONE) -> Judged:
    """Judge one account, `mine`, in a family: the `others` whose sums are known, and `rest` [DRAWS], the maxima of all that were not kept.

    The account may stand among the others too. One that never moved, or is the market, is no edge.
    """
    families = [outcome for outcome in (mine, *others) if len(outcome.units)]
    t = np.concatenate([np.nan_to_num(outcome.t, nan=-np.inf) for outcome in families])
    draws = np.concatenate([drawn(lineage, outcome.keys, outcome.units) for outcome in families], axis=1)
    draws[:, ~np.isfinite(t)] = -np.inf
    left, n_edges = np.ones(len(t), bool), 0
    while True:
        highest = np.maximum(rest, draws[:, left].max(axis=1, initial=-np.inf))
        limit = critical(highest)
        won = left & (t > limit)
        if won[0] or not won.any():
            return Judged(bool(won[0]), limit, p_value(float(t[0]), highest), n_edges)
        left &= ~won
        n_edges += int(won.sum())
