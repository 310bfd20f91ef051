"""Paired comparison of two opinions: the difference of their balanced accuracies on the cells that both were scored on.

Both are read through the same waves over the bars, so what they share cancels. The best base model is picked on the cells that it is judged
on, which flatters it: a meta layer that beats it has earned that.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from research.training.scoring.bootstrap import Bootstrap, block_length
from research.training.scoring.intervals import limits, tilted
from research.training.scoring.opinions import DIRECTED, ENOUGH, HITS, N_SUMS, Opinion, ScoreSums, effective, recall, shares, tally


def difference(a: ScoreSums, b: ScoreSums, bootstrap: Bootstrap, rows: slice) -> dict[str, Any]:
    """Subtract the figures of `b` from those of `a`; both were counted on the same cells.

    Returns `balanced_accuracy`, `accuracy` and `direction_accuracy`, each `{"a", "b", "difference", "ci95"}`, with `n` cells and
    `n_effective`. Direction is counted where each has one.
    """
    bars = np.concatenate([t.rows.sum(axis=1, dtype=np.int64) for t in (a, b)], axis=1)
    seen, by_cells = bars.sum(axis=0).astype(float), tilted(bars, bars[:, :HITS].sum(axis=1))
    by_moves = tilted(bars, bars[:, DIRECTED] + bars[:, N_SUMS + DIRECTED])
    figures: dict[str, Any] = {"balanced_accuracy": (recall, by_cells), "accuracy": (_accuracy, by_cells)}
    figures["direction_accuracy"] = _direction, by_moves
    out: dict[str, Any] = {}
    for name, (figure, tilts) in figures.items():
        own, other = (float(figure(half)) for half in _halves(seen))
        gap = np.subtract(*(figure(half) for half in _halves(tilts)))
        out[name] = {"a": own, "b": other, "difference": own - other, "ci95": limits(own - other, gap)}
    n, busy = seen[:HITS].sum(), np.count_nonzero(bars[:, :HITS].any(axis=1)) / bootstrap.block
    worth = float(effective(n, _accuracy(seen[:N_SUMS]), _accuracy(bootstrap.sums(bars[rows, :N_SUMS])), np.asarray(busy)))
    return out | {"n": int(n), "n_effective": worth, "enough": worth >= ENOUGH}


def paired(
    a: Opinion, b: Opinion, labels: NDArray[np.int8], horizon: int, baseline: Opinion | None = None
) -> tuple[list[ScoreSums], Bootstrap, slice]:
    """Count two opinions on the cells that both were given on and that have a label [n, S]: their sums, and the waves for both.

    horizon: of the label, bars; baseline: what stands beside both. The slice is from the first such bar to the last.
    """
    both = common((a, b)) & (labels >= 0)
    counted = [tally(each.where(both), labels, np.zeros(labels.shape, np.int8), 1, baseline) for each in (a, b)]
    used = np.flatnonzero(both.any(axis=1))
    rows = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, len(labels))
    return counted, Bootstrap(rows.stop - rows.start, block_length([c.residual[rows] for c in counted], horizon)), rows


def _halves(sums: NDArray) -> tuple[NDArray, NDArray]:
    """Part the sums of the two opinions, [..., 18] -> [..., 9] each."""
    return sums[..., :N_SUMS], sums[..., N_SUMS:]


def _accuracy(sums: NDArray) -> NDArray[np.float64]:
    return shares(sums)[..., 0]


def _direction(sums: NDArray) -> NDArray[np.float64]:
    return shares(sums)[..., 1]


def common(opinions: Iterable[Opinion]) -> NDArray[np.bool_]:
    """Cells on which all opinions were given, [n, S]."""
    return np.asarray(np.logical_and.reduce([opinion.action >= 0 for opinion in opinions]))


def meta_against(
    opinions: dict[str, Opinion], base: list[str], labels: NDArray[np.int8], bootstrap: Bootstrap, rows: slice
) -> list[dict[str, Any]]:
    """Set every learned meta layer (`meta_*`) against the best base model and the ensemble, each pair on the cells that all were scored on.

    base: names of the base models. One row a pair: `layer`, `against`, the fields of `difference`, and `sentence`.
    """
    out = []
    group = np.zeros(labels.shape, np.int8)
    for name in (n for n in opinions if n.startswith("meta_")):
        cells = common(opinions[n] for n in (name, *base, "ensemble")) & (labels >= 0)
        counted = {n: tally(opinions[n].where(cells), labels, group, 1) for n in (name, *base, "ensemble")}
        best = max(base, key=lambda n: np.nan_to_num(recall(counted[n].rows.sum(axis=(0, 1)))), default=None)
        for other in ([best] if best else []) + ["ensemble"]:
            row = {"layer": name, "against": other} | difference(counted[name], counted[other], bootstrap, rows)
            out.append(row | {"sentence": sentence(row, is_best=other == best)})
    return out


def sentence(row: dict[str, Any], is_best: bool) -> str:
    """Say plainly whether the meta layer beats what it is set against."""
    other = f"the best base model ({row['against']})" if is_best else f"the {row['against']}"
    if not row["enough"]:
        worth = f"{row['n']:,} common cells are worth {row['n_effective']:.0f} independent ones"
        return f"{row['layer']} against {other}: not enough data, {worth}."
    balanced = row["balanced_accuracy"]
    low, high = balanced["ci95"]
    verb = "beats" if low > 0.0 else ("is worse than" if high < 0.0 else "cannot be told from")
    points = f"{100 * balanced['difference']:+.1f} points, 95 % interval {100 * low:+.1f} to {100 * high:+.1f}"
    cells = f"on the {row['n']:,} cells that all were scored on"
    return f"{row['layer']} {verb} {other} in balanced accuracy {cells}: {balanced['a']:.1%} against {balanced['b']:.1%} ({points})."
