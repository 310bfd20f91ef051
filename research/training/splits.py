"""Purged walk-forward splits: which rows train, which stop the training, which are scored. Purged by label end, with an embargo.

    rows  0 ........................ first test row .................. n
    fold  |    fit    |gap| valid |gap|   test   |
    next  |        fit        |gap|  valid  |gap|   test   |
    held  |        fit        |gap|va|gap|ld|   test   |     where what opinions are worth is learned: `ld` is held out

A row may train only when its label ends before the next part begins, less the embargo (`spec` 12.3, D-73, D-86). Time is counted in
rows of the grid, all symbols of a row together, so no symbol's future trains another one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from qtcore.types import I8
from research.errors import ModelError, UserError

SPLITS = ("walk_forward", "single_split")
VALID_SHARES = dict(zip(SPLITS, (0.15, 0.15 / 0.85)))  # of what trains: stops the training
HELD_SHARE = 0.5  # of that: no model sees it, where a training learns what opinions are worth
NO_SHUFFLE = "splits must keep the order of time, was {}; neighbouring labels share bars, so shuffling scores what it trained"
UNUSED, FIT, VALID, TEST = 0, 1, 2, 3  # roles of a row


@dataclass(frozen=True)
class Fold:
    """Rows of one fold; all arrays are sorted row numbers int64.

    fit: train the model. valid: early stopping and calibration. test: predicted out of sample, every row of the period. held: the last rows
    before the test, for what the models' opinions are worth; whoever reads results there purges them by their own end.
    start: first row that training could use before purging; embargo: rows.
    """

    number: int
    fit: I8
    valid: I8
    test: I8
    held: I8
    start: int
    embargo: int

    @property
    def boundary(self) -> int:
        """First test row: nothing at or after it may change the fold's models."""
        return int(self.test[0])

    @property
    def train(self) -> I8:
        """Rows before the test whose labels are known in time: what percentiles are fitted on."""
        return np.concatenate([self.fit, self.valid])

    def roles(self, n: int) -> NDArray[np.int8]:
        """Role of every row, int8 [n]: 0 unused, 1 fit, 2 valid, 3 test."""
        out = np.zeros(n, np.int8)
        for role, rows in ((FIT, self.fit), (VALID, self.valid), (TEST, self.test)):
            out[rows] = role
        return out

    def sizes(self) -> dict[str, int]:
        """Count the rows of each part, and those lost to purge and embargo."""
        parts = {"fit": len(self.fit), "valid": len(self.valid)} | ({"held": len(self.held)} if len(self.held) else {})
        return parts | {"test": len(self.test), "purged": self.boundary - self.start - sum(parts.values())}


def walk_forward(
    label_end: I8,
    *,
    n_folds: int = 6,
    train_share: float = 0.4,
    valid_share: float = 0.15,
    held_share: float = 0.0,
    embargo: int = 0,
    is_rolling: bool = False,
    shuffle: bool = False,
    edges: Sequence[int] | None = None,
) -> tuple[Fold, ...]:
    """Cut n rows into folds: the first `train_share` trains, then `n_folds` equal test periods follow each other to the end (D-86).

    label_end [n]: row in which the labels of each row end, the latest of all symbols. embargo: rows between a label's end and the next
    part. held_share: of the validation slice; none is held out where its purge would take half of what is left. is_rolling: training keeps
    its first length instead of growing. edges: first row of each test period, and n, instead of `train_share` and `n_folds`
    (`retraining_edges`). Raises UserError when a part would be empty, or on `shuffle`.

    >>> first = walk_forward(np.arange(1000) + 5, embargo=5)[0]
    >>> first.boundary, first.sizes()
    (400, {'fit': 330, 'valid': 50, 'test': 100, 'purged': 20})
    """
    n = len(label_end)
    if shuffle:
        raise ModelError(NO_SHUFFLE.format("shuffle=True"))
    if n_folds < 1 or embargo < 0 or not 0.0 < train_share < 1.0 or not 0.0 < valid_share < 1.0:
        raise ModelError(
            "splits must have n_folds >= 1, embargo >= 0 and shares inside (0, 1), "
            f"was n_folds={n_folds}, embargo={embargo}, train_share={train_share}, valid_share={valid_share}"
        )
    longest, gap = int(np.max(label_end - np.arange(n), initial=0)), min(embargo, n)
    if edges is None:
        n_folds = min(n_folds, n + 1)  # more are too many all the same
        first = int(n * train_share)
        edges = [first + (n - first) * k // n_folds for k in range(n_folds + 1)]
    first, folds = edges[0], []
    for k in range(len(edges) - 1):
        start = edges[k] - first if is_rolling else 0
        middle = edges[k] - round((edges[k] - start) * valid_share)
        n_held = round((edges[k] - middle) * held_share)
        stop = edges[k] - (n_held if edges[k] - middle - n_held > 2 * (longest + gap) else 0)
        fit = _ending_before(label_end, start, middle, gap)
        valid = _ending_before(label_end, middle, stop, gap)
        held = np.arange(stop, edges[k], dtype=np.int64)
        test = np.arange(edges[k], edges[k + 1], dtype=np.int64)
        if not (len(fit) and len(valid) and len(test)):
            raise ModelError(
                f"bars must be enough rows for {len(edges) - 1} purged walk-forward folds, was {n} rows with labels of {longest} rows and "
                f"an embargo of {embargo}; load a longer period or use fewer folds"
            )
        folds.append(Fold(k, fit, valid, test, held, start, embargo))
    return tuple(folds)


def retraining_edges(close_time: I8, train_share: float, every: str | int) -> list[int]:
    """Return the edges of test periods of a fixed length, the last one shorter: models are trained again at each.

    close_time [n]: ns UTC. every: rows, or a length of time such as `7d`. Raises UserError when it is neither.

    >>> retraining_edges(np.arange(10) * 3_600_000_000_000, 0.4, "2h")
    [4, 6, 8, 10]
    """
    from research.data.clock import parse_interval

    n, first = len(close_time), int(len(close_time) * train_share)
    text = str(every).strip()
    if re.fullmatch("[0-9]{1,10}", text) and int(text) > 0:
        return [*range(first, n, int(text)), n]
    try:
        length = parse_interval(text)
    except UserError:
        raise ModelError(f"retrain_every must be rows such as 168 or a length of time such as 7d, was {text[:40]!r}") from None
    steps = (close_time[first:] - close_time[first : first + 1]) // length
    return [*(first + np.flatnonzero(np.diff(steps, prepend=-1))).tolist(), n]


def single_split(label_end: I8, embargo: int = 0, held_share: float = 0.0) -> tuple[Fold, ...]:
    """Return the preset of one fold: 70 % fit, 15 % valid, 15 % test by time, purged (D-73). held_share: as in `walk_forward`."""
    valid_share = VALID_SHARES["single_split"]
    return walk_forward(label_end, n_folds=1, train_share=0.85, valid_share=valid_share, held_share=held_share, embargo=embargo)


def _ending_before(label_end: I8, start: int, stop: int, embargo: int) -> I8:
    """Rows in [start, stop) whose label ends, embargo included, before `stop`."""
    return start + np.flatnonzero(label_end[start:stop] + embargo < stop).astype(np.int64)


@dataclass(frozen=True)
class Combination:
    """One split of combinatorial cross-validation: `groups` of time are tested, the rest trains; rows sorted, int64."""

    number: int
    groups: tuple[int, ...]
    train: I8
    test: I8


def combinatorial(label_end: I8, n_groups: int = 10, n_test: int = 2, embargo: int = 0) -> tuple[Combination, ...]:
    """Cut n rows into groups of time and test every choice of `n_test` of them, purged by label end (Lopez de Prado 2018, ch. 12).

    label_end [n]: row in which the labels of each row end. A row trains only when its label shares no row with a tested label, and does
    not begin within `embargo` rows behind one. 10 groups, 2 tested: 45 splits, 9 paths (`paths`). Unlike `walk_forward` it trains on later
    rows too: for the spread of a figure over paths, never for predictions that are traded. Raises UserError when a split cannot train.

    >>> len(combinatorial(np.arange(1000) + 5))
    45
    """
    n = len(label_end)
    if not 1 <= n_test < n_groups <= n or embargo < 0:
        raise ModelError(
            f"splits must have 1 <= n_test (--tested) < n_groups (--groups) <= {n} rows, embargo >= 0, was {n_test}, {n_groups}, {embargo}"
        )
    edges = [n * g // n_groups for g in range(n_groups + 1)]
    reach = [int(np.max(label_end[a:b])) for a, b in pairwise(edges)]  # last row that a label of the group reads
    out: list[Combination] = []
    for groups in combinations(range(n_groups), n_test):
        usable = np.ones(n, bool)
        for g in groups:
            usable[edges[g] : max(edges[g + 1], reach[g] + embargo + 1)] = False
            usable[: edges[g]] &= label_end[: edges[g]] < edges[g]
        test = np.concatenate([np.arange(edges[g], edges[g + 1], dtype=np.int64) for g in groups])
        if not usable.any():
            raise ModelError(f"splits must leave rows to train, was none of {n} beside groups {list(groups)}; use shorter labels")
        out.append(Combination(len(out), groups, np.flatnonzero(usable).astype(np.int64), test))
    return tuple(out)


def paths(n_groups: int = 10, n_test: int = 2) -> NDArray[np.int64]:
    """Say which split predicts which group in each whole history that `combinatorial` gives: split numbers [paths, n_groups].

    >>> paths().shape
    (9, 10)
    """
    groups = list(combinations(range(n_groups), n_test))
    return np.array([[i for i, chosen in enumerate(groups) if g in chosen] for g in range(n_groups)], np.int64).T
