"""Content sketches of candles: whether two data sets are the same market, by the share that their sketches have in common.

`spec` D-97. Two data sets that share half of the smaller one's candles belong together, whatever symbols and files are called. A data set
is remembered by a sketch: every candle is hashed (open, high, low, close, volume to six significant digits; neither time nor name), and
the hashes below 2**64 / 2**k are kept, with the smallest k that leaves at most 16,384. Two sketches are compared at the larger k of the
two; the share of common hashes estimates the share of common candles. Candles of another interval look unrelated.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qtcore.types import Bars

SKETCH_SIZE = 16_384


@dataclass(frozen=True)
class Sketch:
    """A sample of a data set's candles, by content. level: each candle is kept with probability 2**-level; candles: how many there are."""

    hashes: NDArray[np.uint64]
    level: int
    candles: int

    @property
    def digest(self) -> str:
        """Name of the content."""
        return hashlib.sha256(self.hashes.tobytes() + f"{self.level},{self.candles}".encode()).hexdigest()[:32]


def sketch(bars: Bars, size: int = SKETCH_SIZE) -> Sketch:
    """Sample the candles of `bars` by content, at most `size` of them; holes are no candles."""
    planes = np.stack([getattr(bars, name) for name in ("open", "high", "low", "close", "volume")], axis=-1).reshape(-1, 5)
    planes = planes[~np.isnan(planes[:, 3])]
    hashes = np.unique(_hash_rows(_six_digits(planes)))
    level = 0
    while np.count_nonzero(kept := hashes < _limit(level)) > size:
        level += 1
    return Sketch(hashes[kept], level, len(planes))


def _six_digits(x: NDArray[np.float64]) -> NDArray[np.int64]:
    """Round to six significant digits, as whole numbers that two ways of writing the same price agree on."""
    size = np.abs(x)
    exponent = np.floor(np.log10(np.where(size > 0.0, size, 1.0)))
    digits = np.rint(x / 10.0**exponent * 1e5)
    return digits.astype(np.int64) * 1_000 + exponent.astype(np.int64)


def _hash_rows(rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Mix five numbers a row into 64 bits (the finaliser of splitmix64 after each)."""
    out = np.zeros(len(rows), np.uint64)
    for column in rows.T:
        out = (out ^ column.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        out = (out ^ (out >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        out = (out ^ (out >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        out ^= out >> np.uint64(31)
    return out


def _limit(level: int) -> np.uint64:
    return np.uint64((1 << (64 - level)) - 1)


def shared(a: Sketch, b: Sketch) -> float:
    """Estimate which share of the smaller data set's candles is in both, a fraction."""
    limit = _limit(max(a.level, b.level))
    x, y = a.hashes[a.hashes < limit], b.hashes[b.hashes < limit]
    smaller = min(len(x), len(y))
    return len(np.intersect1d(x, y, assume_unique=True)) / smaller if smaller else 0.0
