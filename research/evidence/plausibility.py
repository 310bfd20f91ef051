"""Ceilings of plausible figures, and the lag profile of predictions. Does a prediction know what nobody can know yet?

A proof takes predictions as given. Predictions that *are* the label, or hold a part of it, pass it; what gives them away is that they are
better than honest ones can be. Five figures are compared with a ceiling (`CEILINGS`), four of every model and layer, one of the money:

- balanced accuracy: mean recall of the labels that occur. Knowing exactly when prices move, and nothing of where to, gives at most 2/3.
- direction accuracy: side right on cells whose label is a move, rises and falls counted alike, so that no drift lifts it.
- rank correlation of the lean (p_buy - p_sell, or the signed confidence of an action) with the return over the label's horizon.
- lag correlation: the same with the return of one single bar t+1 ... t+h of the horizon h, the largest of the *lag profile*. It says where
  the knowledge sits: in all of them, as in the label; in t+1 alone, as in predictions that are stamped one bar early.
- net Sharpe ratio a year.

Rank correlations are also taken within every symbol, within parts of 500 bars and within fifths of the bars by volatility: a leak in one
symbol, one month or one regime drowns in the whole. And with the returns of 6 and of 30 horizons, where the history has 30 such windows:
who knows the week to come needs no label. Momentum, reversal and distances from averages of 5 to 500 bars, and the price itself, on random
walks, hourly FX, equities and crypto reach 0.04 there, at the lower end.

Ranks are taken symbol by symbol, so neither drift nor volatility of a symbol counts as knowledge. What is compared is the lower end of a
one-sided 99.5 % interval: `Z` standard errors of the block bootstrap, and never fewer than the independent events allow; those of a share
(Wilson's score) are the label windows that do not overlap, those of a correlation follow from how long a lean stays what it is (Bartlett's
formula). Many figures of many runs are looked at, and a false alarm costs an honest run its verdict.

Where the ceilings come from, measured in November 2026: 36 honest trainings (XGBoost and LightGBM, preset fast, three folds, labels L1 and
L3) on spot and perpetual crypto, FX, US equities and indices, 756 figures; and trainings with the default preset on the whole of each of
six files of candles (104 and 13 coins of spot and 6 of perpetuals by the hour, 20 coins of 5 minutes, FX, US equities): none above, looked
at in symbols, parts and by volatility too. The highest lower end beside its ceiling:

| bars up to | balanced accuracy | direction accuracy | rank correlation | lag correlation | Sharpe ratio |
| ---------- | ----------------- | ------------------ | ---------------- | --------------- | ------------ |
| 15 minutes | 0.50 of 0.70      | 0.53 of 0.60       | 0.12 of 0.25     | 0.02 of 0.35    | -2.2 of 12   |
| 1 hour     | 0.46 of 0.70      | 0.52 of 0.60       | 0.02 of 0.15     | 0.02 of 0.20    | -0.8 of 8    |
| below 1 day| 0.39 of 0.70      | 0.51 of 0.60       | 0.01 of 0.15     | 0.03 of 0.20    | -0.1 of 6    |
| 1 day      | 0.37 of 0.70      | 0.46 of 0.60       | -0.08 of 0.15    | 0.00 of 0.25    | -0.7 of 5    |
| longer     | 0.29 of 0.70      | 0.43 of 0.62       | -0.15 of 0.20    | -0.05 of 0.30   | no trades    |

Prices that bounce between few ticks are honest and predictable: the worst of 20 coins on 5-minute bars has 0.14 between one return and the
next, the worst of 104 on hourly bars 0.11; hence more room on short bars. Random predictions, also stubborn, rare and one-sided ones, on
random walks of 300 and of 120 bars: none of 24,000 figures above, the closest 0.08 below. Momentum, reversal and noise on real candles and
random walks of 150 to 3,000 bars, from 5 minutes to a day: none of 1,432 figures of 298 runs, the closest 0.11 below.

**What this cannot find**, and nothing else in a run can:

- a leak of less than the ceilings, such as a label that is right in 45 of 100 cells: an honest edge of that size looks the same;
- a leak in few cells: a few dozen bars, calls as rare as one bar in thirty, one regime of one symbol; nothing tells it from chance there;
- one on cells where some of the voting models are silent, but for approved entries: figures are of the cells where all of them spoke;
- knowledge of when prices move without whereto, and of bars beyond thirty horizons of the label;
- confidence beside HOLD, which neither trades nor leans.

Where bars or moves are too few to show a label that is right in 60 of 100 cells, or 0.3 of the future in noise, no run reads `edge`:
`research.evidence.planted` plants both and says how many bars it would take.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.types import F8, Action, Bars
from research.data.clock import iso
from research.evidence.accuracy import opinions
from research.evidence.planted import plants, unnoticed
from research.evidence.sharpe import MIN_BARS, Moments, moments
from research.runs.record import RunRecord
from research.training.scoring.bootstrap import Bootstrap
from research.training.scoring.ceilings import Ceilings, ceilings_of
from research.training.scoring.opinions import Opinion
from research.training.scoring.ranks import Part, Z, correlations, lean, ranks_in, standard_ranks, within
from research.training.targets import forward_return

UNPROFILED = ("meta", "arbiter", "arbiter_calls", "final")  # layers that pass on the lean of another one on most cells
LONGEST_PAST = 24  # bars of the past in a lag profile
STANDS_OUT = 0.5  # share of the largest correlation from which a bar is named as one where the knowledge sits
VOLATILE = 24  # bars of the past whose moves say in which fifth by volatility a bar lies
FIFTHS = ("calmest", "second calmest", "middle", "second most volatile", "most volatile")
FARTHER = (6, 30)  # horizons of the label that are looked at too
LEAST_WINDOWS = 30  # of a farther horizon, side by side in a history
PART_BARS = 500  # of the parts of a history that are looked at by themselves, at least
CLASSES = (Action.SELL, Action.HOLD, Action.BUY)
NAMES = {  # of the figures, in the order of findings: first those that say where the knowledge sits; h: the label's horizon
    "rank_correlation": "rank correlation with the return of the next {h} bars",
    "lag_correlation": "rank correlation with the return of a single one of the next {h} bars",
    "direction_accuracy": "direction accuracy, rises and falls counted alike,",
    "balanced_accuracy": "balanced accuracy",
    "sharpe": "net Sharpe ratio a year",
}


@dataclass(frozen=True)
class Figure:
    """One figure of a model, a layer or the account (`where`), and the lower end of its interval; NaN where there is none."""

    name: str
    where: str
    value: float
    low: float
    ahead: int = 0  # bars of the return that it reads, 0: as many as the label


def measure(
    said: Mapping[str, Opinion], labels: NDArray[np.int8], close: F8, horizon: int, bootstrap: Bootstrap
) -> tuple[list[Figure], dict[str, dict[str, Any]]]:
    """Measure every opinion on the bars that `bootstrap` draws: its figures, and lag profiles of models, meta model and ensemble.

    said: opinions [n, S]; labels [n, S], -1 unknown; close [n, S]. A profile has lists `lag`, `correlation`, `low`, `high`; lag k is the
    return of bar t+k against the lean at t, so 0 is the bar that just closed and 1 to `horizon` are what the label reads.
    """
    figures = overall(said, labels, close, horizon, bootstrap)
    steps = standard_ranks(_last_return(close))
    lags, profiles = list(range(-min(horizon, LONGEST_PAST), horizon + 1)), {}
    for name, opinion in profiled(said).items():
        ranks = standard_ranks(lean(opinion))
        value, low = np.array(correlations([(ranks, steps, lag) for lag in lags], 1, bootstrap)).T
        profiles[name] = {"lag": lags, "correlation": value, "low": low, "high": 2.0 * value - low}
        peak = int(np.argmax(np.nan_to_num(low[-horizon:], nan=-np.inf))) - horizon
        figures.append(Figure("lag_correlation", name, float(value[peak]), float(low[peak])))
    return figures, profiles


def overall(said: Mapping[str, Opinion], labels: NDArray[np.int8], close: F8, horizon: int, bootstrap: Bootstrap) -> list[Figure]:
    """Measure balanced accuracy, direction accuracy and rank correlation of every opinion on all bars and symbols together."""
    figures = [figure for name, opinion in said.items() for figure in _shares(name, opinion, labels, horizon, bootstrap)]
    ahead = standard_ranks(forward_return(close, horizon))
    found = correlations([(standard_ranks(lean(opinion)), ahead, 0) for opinion in said.values()], horizon, bootstrap)
    return figures + [Figure("rank_correlation", name, *pair) for name, pair in zip(said, found)]


def in_parts(said: Mapping[str, Opinion], bars: Bars, horizon: int) -> list[tuple[str, Figure]]:
    """Measure the rank correlation of models, meta model and ensemble in symbols, in parts of 500 bars, by volatility, and farther ahead.

    A leak in one symbol of twenty, in one month of a year or in wild bars alone drowns in the figures of the whole. Each with its highest.
    """
    cuts = np.linspace(0, bars.n, max(bars.n // PART_BARS, 1) + 1).astype(int).tolist()
    spans = [slice(first, end) for first, end in pairwise(cuts)] if len(cuts) > 2 else []
    names = [f"from {iso(int(bars.open_time[span.start]))} to {iso(int(bars.close_time[span.stop - 1]))}" for span in spans]
    parts: dict[str, Part] = {name: (span, slice(None)) for name, span in zip(names, spans)}
    parts |= {f"on {symbol}": (slice(None), slice(s, s + 1)) for s, symbol in enumerate(bars.symbols) if len(bars.symbols) > 1}
    parts |= {f"in the {name} fifth of the bars": cells for name, cells in zip(FIFTHS, fifths(bars.close))}
    farther = [horizon * k for k in FARTHER if horizon * k * LEAST_WINDOWS <= bars.n]
    came, out = ranks_in(forward_return(bars.close, horizon), list(parts.values())), []
    ahead = {n: standard_ranks(forward_return(bars.close, n)) for n in farther}
    for name, opinion in profiled(said).items():
        found = within(ranks_in(lean(opinion), list(parts.values())), came, horizon)
        figures = [Figure("rank_correlation", f"{name} {where}", *pair) for where, pair in zip(parts, found)]
        whole = standard_ranks(lean(opinion))
        figures += [Figure("rank_correlation", name, *within([whole], [ahead[n]], n)[0], n) for n in farther]
        known = [figure for figure in figures if not np.isnan(figure.low)]
        out += [(name, max(known, key=lambda figure: figure.low))] if known else []
    return out


def fifths(close: F8) -> list[NDArray[np.bool_]]:
    """Part the cells [n, S] of every symbol by the mean move of the last bars: five masks, the calmest cells first."""
    moves = np.abs(_last_return(close))
    sums, counts = (np.cumsum(plane, axis=0) for plane in (np.nan_to_num(moves), (moves == moves).astype(np.float64)))
    for plane in (sums, counts):
        plane[VOLATILE:] = plane[VOLATILE:] - plane[:-VOLATILE]
    with np.errstate(invalid="ignore", divide="ignore"):
        ranks = standard_ranks(sums / counts)
    edges = np.sqrt(3.0) * np.array([-np.inf, -0.6, -0.2, 0.2, 0.6, np.inf])  # of ranks of variance 1, which are uniform
    return [(ranks >= low) & (ranks < high) for low, high in pairwise(edges.tolist())]


def profiled(said: Mapping[str, Opinion]) -> dict[str, Opinion]:
    """Leave out the layers that pass on the lean of another one on most cells."""
    return {name: opinion for name, opinion in said.items() if name not in UNPROFILED}


# ------------------------------------------------------------------ shares


def _shares(name: str, opinion: Opinion, labels: NDArray[np.int8], horizon: int, bootstrap: Bootstrap) -> list[Figure]:
    """Balanced accuracy, and direction accuracy balanced over rises and falls."""
    known = (opinion.action >= 0) & (labels >= 0)
    side = np.sign(np.nan_to_num(lean(opinion)))
    classes = [known & (labels == c) for c in CLASSES]
    hits = [cells & (opinion.action == labels) for cells in classes]
    moves = [classes[c] & (side != 0.0) for c in (Action.SELL, Action.BUY)]
    right = [moves[0] & (side < 0.0), moves[1] & (side > 0.0)]
    counts = np.stack([np.count_nonzero(cells, axis=1) for cells in (*classes, *hits, *moves, *right)], axis=1).astype(np.int32)
    drawn = bootstrap.sums(counts)
    recall, side_right = (
        mean_recall((counts[:, cells], counts[:, hit]), (drawn[:, cells], drawn[:, hit]), horizon)
        for cells, hit in ((slice(0, 3), slice(3, 6)), (slice(6, 8), slice(8, 10)))
    )
    return [Figure("balanced_accuracy", name, *recall), Figure("direction_accuracy", name, *side_right)]


def mean_recall(counts: tuple[NDArray, NDArray], drawn: tuple[NDArray, NDArray], horizon: int) -> tuple[float, float]:
    """Return the mean over K classes of hits / cells and its lower end, from (cells, hits): counts per bar [n, K], resampled sums [B, K].

    Classes that never occur are left out; NaN with fewer than two. Independent events: what the bootstrap's variance says, and never more
    than there are label windows of `horizon` bars that do not overlap and hold one; ten cells of one lucky hour are one event.
    """
    occurs = np.flatnonzero(counts[0].any(axis=0))
    if len(occurs) < 2:
        return np.nan, np.nan
    (cells, hits), (drawn_cells, drawn_hits) = ([array[:, occurs] for array in pair] for pair in (counts, drawn))
    value = float(np.mean(hits.sum(axis=0) / cells.sum(axis=0)))
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = float(np.nanvar(np.mean(drawn_hits / drawn_cells, axis=1)))
    n = len(occurs) ** 2 / sum(1.0 / windows(np.flatnonzero(cells[:, k]), horizon) for k in range(len(occurs)))
    return value, wilson(value, min(n, value * (1.0 - value) / variance) if variance > 0.0 else n)


def windows(rows: NDArray[np.int64], horizon: int) -> int:
    """Count the rows, taken from the first on, that lie at least `horizon` after the one taken before.

    >>> windows(np.array([3, 4, 5, 9]), 4)
    2
    """
    n, free = 0, -1
    for row in rows.tolist():
        if row >= free:
            n, free = n + 1, row + horizon
    return n


def wilson(share: float, n: float) -> float:
    """Return the lower end of Wilson's score interval for a share of `n` independent events.

    >>> round(wilson(1.0, 20.0), 2), round(wilson(0.75, 400.0), 2)
    (0.75, 0.69)
    """
    spread = Z * np.sqrt(share * (1.0 - share) / n + Z * Z / (4.0 * n * n))
    return float((share + Z * Z / (2.0 * n) - spread) / (1.0 + Z * Z / n))


def _last_return(close: F8) -> F8:
    """Return of the bar that closed at each row, NaN at the first and at holes."""
    out = np.full(close.shape, np.nan)
    out[1:] = forward_return(close, 1)[:-1]
    return out


# ------------------------------------------------------------------ money


def sharpe_figure(net: F8, per_year: float, bootstrap: Bootstrap) -> Figure:
    """Annualised Sharpe ratio of net returns per bar and its lower end, by the larger of two errors: of the moments, of the bootstrap."""
    m = moments(net)
    if m.n < MIN_BARS or np.isnan(m.sharpe):
        return Figure("sharpe", "account", np.nan, np.nan)
    drawn = bootstrap.sums(np.stack([net, net * net], axis=1)) / bootstrap.n_rows
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = drawn[:, 0] / np.sqrt(drawn[:, 1] - drawn[:, 0] ** 2)
    error = max(float(np.nanstd(ratios[np.isfinite(ratios)])), standard_error(m))
    return Figure("sharpe", "account", m.sharpe * np.sqrt(per_year), (m.sharpe - Z * error) * np.sqrt(per_year))


def standard_error(m: Moments) -> float:
    """Return the standard error of a Sharpe ratio per bar (Lo 2002, Mertens 2002)."""
    return float(np.sqrt(max(1.0 - m.skew * m.sharpe + (m.kurtosis - 1.0) / 4.0 * m.sharpe**2, 0.0) / max(m.n - 1, 1)))


# ------------------------------------------------------------------ against the ceilings


def plausibility(run: RunRecord, rows: slice, net: F8, drawn: tuple[Bootstrap, Bootstrap]) -> dict[str, Any]:
    """Compare a run with the ceilings of its bars.

    rows: tested bars; net: net returns per bar; drawn: bootstraps of rows and of `net`. Result: `exempt`, a sentence where the candles are
    simulated, else None; `off`: the user said that the ceilings do not hold; `findings`: every figure above its ceiling, with `name`,
    `where`, `figure`, `low`, `ceiling` and `text`; `lags`: profiles by model (`measure`), with `sits`, where their knowledge is, in words;
    `ceilings`: for every kind of figure the ceiling and the one with the highest lower end; `unnoticed`: which leak these bars are too few
    to show, a sentence (`research.evidence.planted`), None where they are enough.
    """
    from research.data import bars_per_year, made_again

    bars, horizon = run.bars, int(run.predictions.label.horizon)
    said = {name: opinion.rows(rows) for name, opinion in opinions(run).items()}
    labels, close, ceilings = run.labels[rows], bars.close[rows], ceilings_of(int(bars.interval))
    figures, profiles = measure(said, labels, close, horizon, drawn[0])
    figures.append(sharpe_figure(net, bars_per_year(bars), drawn[1]))
    over = {f.where for f in figures if f.name == "rank_correlation" and f.low > ceilings.rank_correlation}
    figures += [figure for name, figure in in_parts(said, bars[rows], horizon) if name not in over]
    above = [figure for name in NAMES for figure in figures if figure.name == name and figure.low > getattr(ceilings, name)]
    suspects = {figure.where for figure in above}
    lags = {name: profile | {"sits": _sits(profile, horizon) if name in suspects else None} for name, profile in profiles.items()}
    text = f"these candles are simulated, and {bars.origin} gives them again to the bit: what their world holds may be known"
    return {
        "exempt": text if bars.origin and made_again(bars) else None,
        "off": not run.ceilings,
        "findings": _findings(above, ceilings, horizon, lags),
        "lags": lags,
        "unnoticed": _unnoticed(said["ensemble"].action >= 0, labels, close, horizon, drawn[0], ceilings),
        "ceilings": [_highest(name, [f for f in figures if f.name == name], getattr(ceilings, name)) for name in NAMES],
    }


def _unnoticed(
    spoke: NDArray[np.bool_], labels: NDArray[np.int8], close: F8, horizon: int, bootstrap: Bootstrap, ceilings: Ceilings
) -> str | None:
    """Say which leak, planted where the models `spoke`, would not be noticed."""
    made = plants(spoke, labels, close, horizon)
    figures = overall(made, labels, close, horizon, bootstrap)
    return unnoticed({name: [f for f in figures if f.where == name] for name in made}, ceilings, len(close))


def _highest(name: str, figures: list[Figure], ceiling: float) -> dict[str, Any]:
    known = [figure for figure in figures if not np.isnan(figure.low)]
    best = max(known, key=lambda figure: figure.low) if known else Figure(name, "", np.nan, np.nan)
    return {"name": name, "ceiling": ceiling, "where": best.where, "figure": best.value, "low": best.low}


def _findings(above: list[Figure], ceilings: Ceilings, horizon: int, lags: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Say of every figure by how much it is above; the first one of a model says where its knowledge sits."""
    out: list[dict[str, Any]] = []
    for figure in above:
        ceiling = getattr(ceilings, figure.name)
        value, low, most = (figure_text(figure.name, x) for x in (figure.value, figure.low, ceiling))
        what = NAMES[figure.name].format(h=figure.ahead or horizon)
        text = f"{figure.where}: {what} is {value}, at least {low}; honest runs stay below {most}"
        sits = lags.get(figure.where, {}).get("sits")
        if sits and not figure.ahead and figure.where not in {found["where"] for found in out}:
            text += f"; {sits}"
        known = {"name": figure.name, "where": figure.where, "figure": figure.value, "low": figure.low, "ceiling": ceiling}
        out.append(known | {"text": text})
    return out


def _sits(profile: Mapping[str, Any], horizon: int) -> str | None:
    """Say in which bars of the horizon the knowledge sits: those whose correlation stands out; None where the largest may be chance."""
    value, low = (np.nan_to_num(profile[name][-horizon:], nan=-1.0) for name in ("correlation", "low"))
    if not low[value.argmax()] > 0.0:
        return None
    lags = 1 + np.flatnonzero(value >= STANDS_OUT * value.max())
    if len(lags) == horizon:
        bars = "bar t+1" if horizon == 1 else f"bars t+1 to t+{horizon}"
        return f"the knowledge sits in {bars}, all that the label reads: these predictions hold the label, or a part of it"
    if list(lags) == [1]:
        return "the knowledge sits in bar t+1 alone: these predictions look as if stamped one bar early"
    spans = np.split(lags, 1 + np.flatnonzero(np.diff(lags) > 1))
    named = ", ".join(f"t+{span[0]}" if len(span) == 1 else f"t+{span[0]} to t+{span[-1]}" for span in spans)
    return f"the knowledge sits in bar{'' if len(lags) == 1 else 's'} {named} of the {horizon} that the label reads"


def figure_text(name: str, x: float) -> str:
    """Write a figure or its ceiling."""
    return f"{100.0 * x:.1f} %" if name.endswith("accuracy") else f"{x:.1f}" if name == "sharpe" else f"{x:.2f}"


def in_doubt(found: Mapping[str, Any]) -> str | None:
    """Say why an edge on these bars could be a leak that no ceiling shows; None where it would show, or where the ceilings do not hold."""
    return f"{found['unnoticed']}." if found.get("unnoticed") and not (found["exempt"] or found["off"]) else None


def told(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say what a reader must know of the ceilings, as (kind, sentence); nothing where they would show a leak and no figure is above one.

    found: what `plausibility` returned, or nothing for a run of earlier days. kind: `note`, `warn` or `bad`.
    """
    if not found:
        return []
    n = len(found["findings"])
    above = f"{n} figure{' is' if n == 1 else 's are'} above what an honest run reaches" if n else "no figure is surely above one"
    out = []
    if found["exempt"]:
        out.append(("note", f"The ceilings of plausible figures do not hold here: {found['exempt']}; {above}."))
    if found["off"]:
        first = f", the first: {found['findings'][0]['text']}" if n else ""
        out.append(("warn", f"The ceilings of plausible figures were turned off (run.ceilings = off); {above}{first}."))
    if n and not out:
        remedy = "look for the label in the predictions, or say with run.ceilings = off that you know why they are right"
        out.append(("bad", f"{above[0].upper()}{above[1:]}; {remedy}."))
    if not out and (doubt := in_doubt(found)) is not None:
        out.append(("note", f"{doubt[0].upper()}{doubt[1:]}"))
    return out
