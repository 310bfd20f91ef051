"""Paired comparison of two opinions: the difference of their balanced accuracies on the cells that both were scored on.

Both are resampled by the same blocks of bars, so what they share cancels. The best base model is picked on the cells that it is judged on,
which flatters it: a meta layer that beats it has earned that.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from research.training.scoring.bootstrap import Bootstrap, interval
from research.training.scoring.opinions import DIRECTED, DIRECTION_HITS, ENOUGH, HITS, Opinion, ScoreSums, recall, share, tally


def difference(a: ScoreSums, b: ScoreSums, bootstrap: Bootstrap, rows: slice) -> dict[str, Any]:
    """Subtract the figures of `b` from those of `a`; both were counted on the same cells.

    Returns `balanced_accuracy`, `accuracy` and `direction_accuracy`, each `{"a", "b", "difference", "ci95"}`, with `n` cells and
    `n_effective`. Direction is counted where each has one.
    """
    (seen_a, drawn_a), (seen_b, drawn_b) = (_sums(t, bootstrap, rows) for t in (a, b))
    figures = {"balanced_accuracy": recall, "accuracy": _accuracy, "direction_accuracy": _direction}
    out: dict[str, Any] = {}
    for name, figure in figures.items():
        own, other = float(figure(seen_a)), float(figure(seen_b))
        limits = interval((figure(drawn_a) - figure(drawn_b))[:, None])[:, 0].tolist()
        out[name] = {"a": own, "b": other, "difference": own - other, "ci95": limits}
    n, hits = seen_a[:HITS].sum(), seen_a[HITS : 2 * HITS].sum()
    drawn = drawn_a[:, :HITS].sum(axis=1), drawn_a[:, HITS : 2 * HITS].sum(axis=1)
    busy = np.count_nonzero(a.rows.sum(axis=1)[:, :HITS].any(axis=1)) / bootstrap.block
    worth = share(np.array([n]), np.array([hits]), drawn[0][:, None], drawn[1][:, None], np.array([busy]))[0].n_effective
    return out | {"n": int(n), "n_effective": worth, "enough": worth >= ENOUGH}


def _sums(counted: ScoreSums, bootstrap: Bootstrap, rows: slice) -> tuple[NDArray, NDArray]:
    per_bar = counted.rows.sum(axis=1, dtype=np.int64)
    return per_bar.sum(axis=0).astype(float), bootstrap.sums(per_bar[rows])


def _accuracy(sums: NDArray) -> NDArray[np.float64]:
    n = sums[..., :HITS].sum(axis=-1)
    return np.asarray(np.where(n > 0, sums[..., HITS : 2 * HITS].sum(axis=-1) / np.maximum(n, 1.0), np.nan))


def _direction(sums: NDArray) -> NDArray[np.float64]:
    n = sums[..., DIRECTED]
    return np.asarray(np.where(n > 0, sums[..., DIRECTION_HITS] / np.maximum(n, 1.0), np.nan))


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
