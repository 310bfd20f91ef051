"""Leak detectors: one named detector for each known leak, on functions where possible, on artefacts elsewhere.

| detector               | looks at          | finds                              | cannot find       |
| ---------------------- | ----------------- | ---------------------------------- | ----------------- |
| shifted                | feature function  | a value from k rows ahead          | what precedes it  |
| centred_window         | feature function  | a window around the bar            | same              |
| back_fill              | feature function  | holes filled from later bars       | without holes     |
| full_sample_scaler     | feature function  | mean, deviation, range of all rows | same              |
| full_sample_percentile | feature function  | ranks and thresholds of all rows   | same              |
| higher_timeframe       | feature function  | a longer bar before its close      | over 60 bars long |
| label_as_feature       | matrix, labels    | a column that tells BUY from SELL  | AUC under 0.95    |
| no_purge               | rows, label ends  | training labels inside scored rows | wrong label ends  |
| shuffled_split         | rows              | training after a scored row        | shuffled training |
| early_stopping_on_test | rows, label ends  | stopping rows that are scored      | undeclared rows   |
| trained_on_later       | training function | later bars that change the model   | random training   |
| full_sample_thresholds | fitting function  | label thresholds of later returns  | copied thresholds |
| calibration_on_test    | fitting function  | scored labels in a calibration     | other inputs      |
| resampling_on_test     | matrices          | training rows made of held-out ones| far neighbours    |
| meta_in_sample         | rows, base models | votes of models fitted on the row  | wrong fold numbers|
| predictions_early      | predictions, bars | predictions that know the next bar | weak predictions  |
| served_early           | serving function  | rows served one bar early          | unknown models    |
| future_universe        | choosing function | symbols chosen by later bars       | choices by hand   |

Feature detectors compare bits between the original bars and bars with another future: a deterministic clean feature raises no alarm at all.
The two statistical ones, `label_as_feature` and `predictions_early`, have thresholds far outside chance; tests measure their false alarms.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.types import F8, I8, Bars
from research.verify.causality import cut_points, known, rewrite_future, same_bits, touch_bar

Compute = Callable[[Bars], Any]  # bars -> [n, S], [F, n, S], or a mapping of names to [n, S]
Rows = I8 | Sequence[int]

MIN_CLASS = 30  # BUY and SELL cells below which an AUC says nothing
READABLE = 0.95  # AUC from which a column is called a copy of the label
GLOBAL_REACH = 0.5  # of the known past; a statistic of the whole sample reaches further back, a window less
IMPLAUSIBLE = 0.25  # correlation with the next bar's return that no honest forecast of prices reaches
SIGMAS = 6.0


@dataclass(frozen=True)
class Finding:
    """One leak: which detector, what it saw, and where first. `bar` is a row, `reach` the rows looked ahead (0 unknown)."""

    detector: str
    message: str
    column: str = ""
    bar: int = -1
    symbol: str = ""
    reach: int = 0
    distance: float = float("nan")


# ------------------------------------------------------------------ features


def audit_features(compute: Compute, bars: Bars, seed: int = 0, n_cuts: int = 5) -> list[Finding]:
    """Look for the six feature leaks in a function of bars; at most one finding a column.

    compute: bars -> [n, S], [F, n, S] or {name: [n, S]}; deterministic. The future after `n_cuts` rows is rewritten, and cut off, the past
    compared by bits; a column that moved is then tested bar by bar to name the leak. Use at least 300 bars, with holes.
    """
    base = _planes(compute(bars))
    after_holes = 1 + np.flatnonzero(~known(bars.close).all(axis=1))  # where a back-fill would reach over the cut
    cuts = _spread(np.array(cut_points(bars.n, 4 * n_cuts, seed), np.int64), n_cuts, bars.n) + _spread(after_holes, n_cuts, bars.n)
    moved: dict[str, list[tuple[int, NDArray[np.bool_], F8]]] = {}
    for cut in cuts:
        for world in (rewrite_future(bars, cut, seed), bars[:cut]):
            for name, plane in _planes(compute(world)).items():
                changed = ~same_bits(base[name][:cut], plane[:cut])
                if changed.any():
                    moved.setdefault(name, []).append((cut, changed, plane[:cut]))
    if not moved:
        return []
    touched = _touches(compute, bars, base, seed)
    return [_name_the_leak(name, base[name], cases, touched, bars) for name, cases in moved.items()]


def _spread(rows: I8, k: int, n: int) -> list[int]:
    """Pick up to `k` rows, evenly, from those with at least a third of the bars before them and one behind."""
    usable = rows[(rows >= n // 3) & (rows < n - 1)]
    return [int(row) for row in usable[np.linspace(0, len(usable) - 1, min(k, len(usable))).astype(np.int64)]]


def _planes(result: Any) -> dict[str, F8]:
    """Give every plane a name; float64 [n, S] each."""
    if isinstance(result, Mapping):
        return {name: np.asarray(plane, np.float64) for name, plane in result.items()}
    array = np.asarray(result, np.float64)
    stack = array[None] if array.ndim == 2 else array
    return {f"column {i}" if array.ndim == 3 else "feature": plane for i, plane in enumerate(stack)}


def _touches(compute: Compute, bars: Bars, base: Mapping[str, F8], seed: int) -> dict[str, list[tuple[int, list[int]]]]:
    """Change single bars in a row, one at a time: for each plane, (changed bar, earlier rows that moved)."""
    width = min(60, bars.n // 4)
    start = bars.n - bars.n // 8 - width
    out: dict[str, list[tuple[int, list[int]]]] = {name: [] for name in base}
    for row in range(start, start + width):
        for name, plane in _planes(compute(touch_bar(bars, row, seed))).items():
            rows = np.flatnonzero(~same_bits(base[name][:row], plane[:row]).all(axis=1))
            out[name].append((row, [int(t) for t in rows]))
    return out


def _name_the_leak(
    name: str, base: F8, cases: list[tuple[int, NDArray[np.bool_], F8]], touched: dict[str, list[tuple[int, list[int]]]], bars: Bars
) -> Finding:
    cut, changed, plane = max(cases, key=lambda case: np.count_nonzero(case[1]))
    row, column = (int(i) for i in np.argwhere(changed)[0])
    reach = max(case_cut - int(np.argwhere(marks)[0][0]) for case_cut, marks, _ in cases)
    distance = abs(float(base[row, column]) - float(plane[row, column]))

    def found(detector: str, message: str, rows: int = 0) -> Finding:
        text = f"{name} of {bars.symbols[column]} at bar {row} {message}"
        return Finding(detector, text, name, row, bars.symbols[column], rows, distance if distance == distance else float("inf"))

    if all(not known(bars.close[:c][marks]).any() for c, marks, _ in cases):
        return found("back_fill", "fills a hole from later bars; leave it NaN or carry the last value forward", reach)
    if reach > GLOBAL_REACH * (cut - int(np.argmax(known(base).any(axis=1)))):
        if all(_is_affine(base[:c], p) for c, _, p in cases):
            return found("full_sample_scaler", "is scaled with figures of the whole sample; fit the scale on past rows")
        return found("full_sample_percentile", "is ranked or cut by the whole sample; fit thresholds on past rows")
    pairs = [(row_, t) for row_, rows in touched[name] for t in rows]
    offsets = {u - t for u, t in pairs}
    if len(offsets) == 1:
        return found("shifted", f"holds a value from {offsets.copy().pop()} rows ahead", offsets.pop())
    if pairs and _has_walls([u for u, _ in touched[name]], pairs):
        return found("higher_timeframe", "uses a longer bar before it closed; take the last closed one", max(offsets))
    return found("centred_window", "uses a window that reaches past the bar; let it end at the bar", max(offsets, default=reach))


def _is_affine(x: F8, y: F8) -> bool:
    """Whether y = a x + b in every column, with one a and b each."""
    for u, v in zip(x.T, y.T):
        both = known(u) & known(v)
        if np.count_nonzero(both) < 3 or np.ptp(u[both]) == 0.0:
            continue
        a, b = np.polyfit(u[both], v[both], 1)
        if np.max(np.abs(a * u[both] + b - v[both])) > 1e-6 * max(np.ptp(v[both]), 1e-300):
            return False
    return True


def _has_walls(touched: list[int], pairs: list[tuple[int, int]]) -> bool:
    """Whether there is a row that no look ahead crosses. Windows cross every row, longer bars stop at their close."""
    crossed = {row for u, t in pairs for row in range(t + 1, u + 1)}
    inner = [u for u in touched if min(u for u, _ in pairs) <= u <= max(u for u, _ in pairs)]
    return any(u not in crossed for u in inner)


# ------------------------------------------------------------------ labels and splits


def label_as_feature(matrix: F8, labels: NDArray[np.int8], names: Sequence[str] | None = None) -> list[Finding]:
    """Look for columns from which BUY and SELL can be read off.

    matrix [n, S, F] or [rows, F]: model input. labels: int8 of the same cells, -1 invalid.
    """
    x, y = matrix.reshape(-1, matrix.shape[-1]), np.asarray(labels).reshape(-1)
    out = []
    for f in range(x.shape[1]):
        column = x[:, f].astype(np.float64)
        area = _auc(column[(y == 2) & known(column)], column[(y == 0) & known(column)])
        if max(area, 1.0 - area) >= READABLE:
            name = names[f] if names is not None else f"column {f}"
            out.append(Finding("label_as_feature", f"{name} tells BUY from SELL with AUC {max(area, 1.0 - area):.3f}", name))
    return out


def _auc(high: F8, low: F8) -> float:
    """Probability that a value of `high` exceeds one of `low`, ties half; 0.5 when there are too few."""
    if min(len(high), len(low)) < MIN_CLASS:
        return 0.5
    ordered = np.sort(low)
    below = np.searchsorted(ordered, high, "left")
    upto = np.searchsorted(ordered, high, "right")
    return float(np.mean((below + upto) / 2.0) / len(low))


def no_purge(train: Rows, test: Rows, label_end: Rows) -> list[Finding]:
    """Look for training rows whose label overlaps the label of a scored row.

    train, test: row numbers. label_end [n]: last row that the label of each row of the data reads.
    """
    rows, scored, end = np.asarray(train), np.sort(np.asarray(test)), np.asarray(label_end)
    latest = np.maximum.accumulate(end[scored])
    reach = np.searchsorted(scored, end[rows], "right")  # scored rows that begin before this training label ends
    overlap = (reach > 0) & (latest[np.maximum(reach, 1) - 1] >= rows)
    if not overlap.any():
        return []
    row = int(rows[overlap].min())
    text = (
        f"{np.count_nonzero(overlap)} training rows share label bars with scored rows, first row {row} whose label ends at {int(end[row])}"
    )
    return [Finding("no_purge", text, bar=row)]


def shuffled_split(train: Rows, test: Rows) -> list[Finding]:
    """Look for training rows that are later than the first scored row."""
    rows, first = np.asarray(train), int(np.min(test))
    late = rows[rows > first]
    if not len(late):
        return []
    text = f"{len(late)} training rows are later than the first scored row {first}, first {int(late.min())}; cut by time"
    return [Finding("shuffled_split", text, bar=int(late.min()))]


def early_stopping_on_test(stopping: Rows, test: Rows, label_end: Rows) -> list[Finding]:
    """Look for early-stopping or calibration rows that are scored rows, or whose labels reach the first one."""
    rows, first = np.asarray(stopping), int(np.min(test))
    bad = rows[(np.asarray(label_end)[rows] >= first) | np.isin(rows, test)]
    if not len(bad):
        return []
    text = f"{len(bad)} rows that stop the training are scored or reach the first scored row {first}, first {int(bad.min())}"
    return [Finding("early_stopping_on_test", text, bar=int(bad.min()))]


def trained_on_later(train: Callable[[Bars], str], bars: Bars, boundary: int, seed: int = 0) -> list[Finding]:
    """Look for anything at or after row `boundary` that changes a model. train: bars -> hash (or any text) of the artefact."""
    original = train(bars)
    if train(bars) != original:
        return [Finding("trained_on_later", "training twice on the same bars gives two models; fix its seed and use one thread")]
    if train(rewrite_future(bars, boundary, seed)) == original:
        return []
    return [Finding("trained_on_later", f"the model changes when bars from row {boundary} on are rewritten", bar=boundary)]


# ------------------------------------------------------------------ training


def full_sample_thresholds(fit: Callable[[F8], Any], returns: F8, boundary: int, seed: int = 0) -> list[Finding]:
    """Look for label thresholds that know returns from row `boundary` on.

    fit: returns [n, S] -> thresholds, any arrays; it is also given other returns from `boundary` on, those that training may not know.
    """
    rng = np.random.default_rng(seed)
    other = returns.copy()
    other[boundary:] = 3.0 * np.nanstd(returns) * rng.standard_normal(other[boundary:].shape)
    if _same_values(fit(returns), fit(other)):
        return []
    text = f"label thresholds move with returns from row {boundary} on; fit percentiles on the fold's training rows"
    return [Finding("full_sample_thresholds", text, bar=boundary)]


def calibration_on_test(fit: Callable[[NDArray[np.int8]], Any], labels: NDArray[np.int8], test: Rows, seed: int = 0) -> list[Finding]:
    """Look for a calibration that reads scored labels.

    fit: labels [n] or [n, S] -> its parameters, any arrays. test: rows that are scored; each of their labels becomes another.
    """
    other = labels.copy()
    scored = other[np.asarray(test)]
    turned = (scored + np.random.default_rng(seed).integers(1, 3, scored.shape)) % 3
    other[np.asarray(test)] = np.where(scored >= 0, turned, scored)
    if _same_values(fit(labels), fit(other)):
        return []
    first = int(np.min(test))
    return [Finding("calibration_on_test", f"the calibration moves with labels of scored rows, first {first}", bar=first)]


def resampling_on_test(fitted: F8, train: F8, held_out: F8, near: int = 50) -> list[Finding]:
    """Look for resampled training rows that were made of rows held out for calibration or scoring.

    fitted [N, F]: rows as the model got them; train [M, F], held_out [K, F]: the original rows. A row that is no training row must be a
    mixture of two of them; where only a held-out row explains it (a copy, or one end of the mixture), it is a leak.
    """
    known_rows = {row.tobytes() for row in np.ascontiguousarray(train)}
    copies = {row.tobytes() for row in np.ascontiguousarray(held_out)} - known_rows
    made = [i for i, row in enumerate(np.ascontiguousarray(fitted)) if row.tobytes() not in known_rows]
    pool, is_held = np.vstack([train, held_out]).astype(np.float64), np.arange(len(train) + len(held_out)) >= len(train)
    bad = [i for i in made if fitted[i].tobytes() in copies or _mixed_with(fitted[i].astype(np.float64), pool, is_held, near)]
    if not bad:
        return []
    text = f"{len(bad)} of {len(made)} resampled rows were made of held-out rows, first {bad[0]}; resample the training part only"
    return [Finding("resampling_on_test", text, bar=bad[0])]


def _mixed_with(row: F8, pool: F8, is_held: NDArray[np.bool_], near: int) -> bool:
    """Say whether `row` lies between two of its nearest rows of the pool, one of them held out, and between no two others."""
    apart = pool - row
    distance = np.sqrt((apart**2).sum(axis=1))
    nearest = np.argsort(distance)[:near]
    nearest = nearest[distance[nearest] > 0.0]
    unit = apart[nearest] / distance[nearest, None]
    between = unit @ unit.T < -1.0 + 1e-9  # seen from the row, its two parents lie in opposite directions
    held = is_held[nearest]
    return bool(between.any() and not between[np.ix_(~held, ~held)].any())


def meta_in_sample(rows: Rows, voted_by: Rows, trained: Sequence[Rows], label_end: Rows) -> list[Finding]:
    """Look for rows of a meta model whose votes come from base models that were trained on them.

    rows: what the meta model is fitted on. voted_by [n]: number of the base fit that voted at each row, -1 none. trained: the rows of each
    base fit, those that stopped it included. label_end [n]: last row that the label of each row reads.
    """
    asked, by = np.asarray(rows), np.asarray(voted_by)
    found = []
    for k, own in enumerate(trained):
        scored = asked[by[asked] == k]
        if len(scored) and (overlap := no_purge(own, scored, label_end)):
            found.append((int(scored.min()), k, overlap[0].bar))
    if not found:
        return []
    first, k, bar = min(found)
    text = f"meta rows from {first} on hold votes of base fit {k}, which was trained on them (row {bar}); use out-of-sample votes only"
    return [Finding("meta_in_sample", text, bar=first)]


def _same_values(a: Any, b: Any) -> bool:
    """Whether two results are equal in every bit. Arrays, numbers, or tuples of them."""
    x, y = (value if isinstance(value, tuple | list) else (value,) for value in (a, b))
    return len(x) == len(y) and all(np.asarray(u).tobytes() == np.asarray(v).tobytes() for u, v in zip(x, y))


# ------------------------------------------------------------------ predictions and universe


def predictions_early(score: F8, bars: Bars, max_lag: int = 5) -> list[Finding]:
    """Look for predictions that belong one bar later: they explain the next bar as features explain the last one.

    score [n, S]: p_buy - p_sell, or action - 1; NaN absent. The correlation with the next bar's return must exceed 0.25, six standard
    errors and twice that of the bar after it: honest forecasts of liquid prices stay far below.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        returns = np.diff(np.log(bars.close), axis=0, prepend=np.nan)
    profile = {lag: _correlation(score, returns, lag) for lag in range(-max_lag, 3)}
    (ahead, n), (second, _) = profile[1], profile[2]
    if n < MIN_CLASS or abs(ahead) < max(IMPLAUSIBLE, SIGMAS / np.sqrt(n), 2.0 * abs(second)):
        return []
    last = max((abs(c) for lag, (c, _) in profile.items() if lag <= 0), default=0.0)
    text = f"predictions correlate {ahead:+.2f} with the next bar's return (past bars at most {last:.2f}, the bar after {second:+.2f})"
    return [Finding("predictions_early", text + "; they look one bar early", reach=1, distance=abs(ahead))]


def _correlation(score: F8, returns: F8, lag: int) -> tuple[float, int]:
    """Correlation of score[t] with returns[t + lag] over known cells, symbols standardised; (0, 0) when there is none."""
    n = len(score)
    x = score[max(0, -lag) : n - max(0, lag)]
    y = returns[max(0, lag) : n + min(0, lag)]
    products, count = 0.0, 0
    for u, v in zip(x.T, y.T):
        both = known(u) & known(v)
        if np.count_nonzero(both) < 3 or np.ptp(u[both]) == 0.0 or np.ptp(v[both]) == 0.0:
            continue
        a, b = ((z[both] - z[both].mean()) / z[both].std() for z in (u, v))
        products, count = products + float(np.dot(a, b)), count + len(a)
    return (products / count, count) if count else (0.0, 0)


def served_early(serve: Callable[[Bars], F8], stored: F8, bars: Bars, n_rows: int = 20, seed: int = 0) -> list[Finding]:
    """Look for stored predictions that are not what bars up to their own close give.

    serve: bars -> prediction of their last row, [S] or [S, 3]; stored [n, S(, 3)]. Rows that equal the next bar's serving are named.
    """
    for row in cut_points(bars.n - 1, n_rows, seed):
        mine = np.asarray(serve(bars[: row + 1]))
        if same_bits(mine, stored[row]).all():
            continue
        is_early = bool(same_bits(np.asarray(serve(bars[: row + 2])), stored[row]).all())
        column = int(np.argwhere(~same_bits(mine, stored[row]))[0][0])
        why = "equal what the next bar gives: they are one bar early" if is_early else "are not what bars up to their close give"
        return [Finding("served_early", f"predictions of bar {row} {why}", bar=row, symbol=bars.symbols[column], reach=int(is_early))]
    return []


def future_universe(choose: Callable[[Bars], Sequence[str]], bars: Bars, start: int, seed: int = 0) -> list[Finding]:
    """Look for a choice of symbols that depends on bars from row `start` on. choose: bars -> names; it is given other futures and none."""
    chosen = sorted(choose(bars))
    for other in (bars[:start], *(rewrite_future(bars, start, seed + k) for k in range(3))):
        again = sorted(choose(other))
        if again != chosen:
            names = ", ".join(sorted(set(chosen) ^ set(again)))
            return [
                Finding(
                    "future_universe", f"the choice of {names} depends on bars from row {start} on; choose by earlier volume", bar=start
                )
            ]
    return []
