"""Placebo tests of one run: the same book with its predictions at other times, and with other signs. Would that have earned as much?

Two tests, never mixed, of this one setting: neither knows how many were tried, and neither decides a verdict. The statistic of both is the
mean daily net return of the tested days (UTC, by the open of a bar). p = (1 + placebos that earned at least as much) / (1 + placebos).

**Timing.** What the models said is moved circularly by whole days within each fold, all symbols together; what is read of the market at a
bar, and the map that prices the opinion there, stays with the bar. Meta layer, arbiter, governor and account run anew. A fold of D days
has floor(D / A) places, A the days that two places must be apart: the longer of the horizon (of the label, or the holding time) and the
memory of the predictions, which is the first lag in whole days at which the autocorrelation of their mean lean, p_buy - p_sell, around the
mean of its symbol and fold, is at most `FORGOTTEN`. Places nearer to each other would repeat each other, and make small p-values too
common. Folds move independently, and the place where a fold was is one of its places, for the same reason; all of them at once there is
the run itself and left out.

Nothing that was said gets lost, or a placebo would trade less than the run and noise in a rising market would look like a skill: a symbol
moves within the bars that it has between its first and its last vote of the fold, by the same number of its own days as all others. A day
takes over another one bar by bar where both have as many bars, else each bar takes what was said at its time of day, or last before it.
Days with fewer than `WHOLE` of the bars of the longest one, as at the ends of a fold, stay where they are.

**Direction.** In blocks of `BLOCK_DAYS` UTC days, drawn at random and the same for all symbols, BUY and SELL change places after the map
from probabilities to money: bids change their sign, what a trade costs is found anew (funding is paid by the other side), and governor and
account run anew. A book that is long in the mean is no longer so: the placebo has nothing of what the market gave it, so one that only
holds a rising market passes; the sentence says so where more than `ONE_SIDED` of what was held is on one side. Where the broker allows no
shorts a BUY that turned is no trade, and a SELL that turned is a purchase.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from qtcore.arbiter import score_cells
from qtcore.broker import last_traded
from qtcore.chain.decide import bids_of, decide
from qtcore.chain.price import N_BIDS, Bid, horizons_of, leans_of, maps_on, no_map, price, value
from qtcore.chain.trade import UNPRICED, TradeState, run_trade, trade
from qtcore.choices import EnsembleRule, MetaMode
from qtcore.features import Planes
from qtcore.meta import Hits, MetaSource, hit_bars, meta_problems, meta_probs
from qtcore.types import F8, I8, NS_PER_DAY, Money, Value, Votes, n_values
from research.errors import several
from research.runs.benchmark import growth
from research.runs.record import RunRecord
from research.runs.tables import mean_exposure, tested_rows

DRAWS = 99  # of each test, at most: no p below 0.01
LEAST = 19  # below which no p could be 0.05
BUDGET = 20_000_000  # cells that a test visits: about six seconds
ASKED = 10  # times as much as a cell costs where the learned meta layer is asked anew
BLOCK_DAYS = 5
FORGOTTEN = 0.1
WHOLE = 0.9  # of the bars of the longest day, which a day that moves has at least
ONE_SIDED = 0.5  # net over gross exposure
CONSTANT = 1e-18  # variance of a lean that never changes
MANY = 1_000_000  # distinct placebos, from which on they are not counted
KEYS = {"timing": 0x71A1, "direction": 0xD12E}  # of Philox, beside the number of the fold or block

Said = tuple[NDArray[np.int8], F8, Money]  # raw action, raw confidence and money of the tested rows


def placebo(run: RunRecord, draws: int | None = None) -> dict[str, Any]:
    """Make both placebos of a run: `mean` and `days` of the run, and `timing` and `direction`, each with these entries.

    p: None where `refused` says why there is none. draws: mean daily net returns, fractions. n_distinct: different placebos that there are,
    at most `MANY`. floor: below which p cannot be. sentence: all of that in words. draws (argument): how many to make, by default at most
    `DRAWS`, and fewer where they would visit more than `BUDGET` cells.
    """
    replay = Replay(run, tested_rows(run))
    out: dict[str, Any] = {"mean": None, "days": len(replay.ends), "block_days": BLOCK_DAYS}
    if not (run.result.fills["is_entry"] == 1).any():
        return out | dict.fromkeys(KEYS, refused("the run made no trade, so there is nothing to test"))
    if not replay.is_exact:
        return out | dict.fromkeys(KEYS, refused("what was done does not follow from the predictions and one set of parameters alone"))
    out["mean"] = replay.mean
    return out | {"timing": timing(replay, draws), "direction": direction(replay, draws)}


def placebo_table(found: dict[str, Any]) -> pd.DataFrame:
    """Return both placebos as a table; see `Run.placebo`."""
    rows = {}
    for name in KEYS:
        one = found[name]
        draws = np.array(one["draws"] or [np.nan])
        told = {"draws": len(one["draws"]), "distinct": one["n_distinct"], "below": one["floor"]}
        middle = {"median": float(np.median(draws)), "largest": float(draws.max())}
        rows[name] = {"p": one["p"], "mean": found["mean"], **told, **middle, "sentence": one["sentence"]}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("placebo").astype({"p": float, "mean": float, "below": float})


def timing(replay: "Replay", draws: int | None = None) -> dict[str, Any]:
    """Move the predictions to other times."""
    run, folds = replay.run, replay.folds
    if "judge" in run.own_layers or (run.result.meta_probs is not None and run.meta is None):
        own = "judge" if "judge" in run.own_layers else "meta_model"
        return refused(f"an own {own} would have to answer anew for each shift, and what that takes is not known")
    memory, horizon = memory_of(replay), replay.horizon_days
    apart = max(horizon, memory)
    places = [max(1, fold.n_days // apart) for fold in folds]
    about = {"horizon_days": horizon, "memory_days": memory, "places": places}
    if (total := math.prod(places) - 1) == 0:
        longest = several(max(fold.n_days for fold in folds), "whole days")
        why = f"no shift is possible: the longest of {several(len(folds), 'folds')} has {longest}, and places must be"
        return refused(f"{why} {several(apart, 'days')} apart ({_apart(about)})") | about
    n = n_draws(total, replay.n_cells * (ASKED if replay.asks else 1), draws)
    if n == 0:
        return refused(_too_many(replay.n_cells)) | about
    found = []
    for each in drawn(places, range(len(folds)), KEYS["timing"], n):
        source = replay.unmoved
        for fold, n_places, place in zip(folds, places, each):
            fold.move(source, place * (fold.n_days // n_places))
        found.append(replay.mean_of(replay.moved(source)))
    how = f"With the predictions moved by whole days within {several(len(folds), 'folds')}, at least {several(apart, 'days')} apart"
    return _result(replay.mean, found, total, f"{how} ({_apart(about)})", "shifts") | about


def direction(replay: "Replay", draws: int | None = None) -> dict[str, Any]:
    """Let BUY and SELL change places in blocks of days."""
    numbers, block = np.unique(replay.day // BLOCK_DAYS, return_inverse=True)
    about = {"n_blocks": len(numbers)}
    total = 2 ** len(numbers) - 1
    n = n_draws(total, replay.n_cells, draws)
    if n == 0:
        return refused(_too_many(replay.n_cells)) | about
    found = []
    for each in drawn([2] * len(numbers), numbers.tolist(), KEYS["direction"], n):
        found.append(replay.mean_of(replay.turned((1 - 2 * np.array(each, np.int64))[block])))
    how = f"With BUY and SELL changing places at random in {several(len(numbers), 'blocks')} of {BLOCK_DAYS} days, all symbols alike"
    out = _result(replay.mean, found, total, how, "draws") | about
    exposure = mean_exposure(replay.run, replay.rows)
    if abs(exposure["net"]) > ONE_SIDED * exposure["gross"]:
        side, way = ("long", "rising") if exposure["net"] > 0.0 else ("short", "falling")
        out["sentence"] += f" The book was mostly {side}; one that only held a {way} market would do as well here."
    return out


def refused(why: str) -> dict[str, Any]:
    """Return the entry of a test that could not be made."""
    return {"p": None, "refused": why, "draws": [], "n_distinct": 0, "floor": None, "sentence": f"Not tested: {why}."}


def n_draws(total: int, cells: int, asked: int | None) -> int:
    """Say how many of `total` placebos of so many `cells` to make; 0 where the budget does not suffice for `LEAST`."""
    if asked is not None:
        return min(total, asked)
    within = min(DRAWS, BUDGET // max(1, cells))
    return 0 if within < min(LEAST, total) else min(total, within)


def drawn(sizes: Sequence[int], numbers: Iterable[int], key: int, n: int) -> list[tuple[int, ...]]:
    """Draw n different rows of numbers below `sizes`, but not that of zeros; all of them where there are no more.

    Entry k comes of Philox with the key and numbers[k], so more folds or blocks do not change those that were there.
    """
    if math.prod(sizes) - 1 <= n:
        return [each for each in product(*map(range, sizes)) if any(each)]
    streams, found = [np.random.Philox(key=[key, k % 2**64]) for k in numbers], dict[tuple[int, ...], None]()
    while len(found) < n:
        columns = np.stack([stream.random_raw(n) % np.uint64(size) for stream, size in zip(streams, sizes)])
        found |= dict.fromkeys(each for each in map(tuple, columns.T.tolist()) if any(each))
    return list(found)[:n]


def memory_of(replay: "Replay") -> int:
    """Return after how many days the models' mean lean is forgotten: the number of days of the longest fold where it never is."""
    leans = leans_of(replay.votes)
    voters = np.count_nonzero(~np.isnan(leans), axis=0)
    said = np.divide(np.nansum(leans, axis=0), voters, out=np.full(voters.shape, np.nan), where=voters > 0)
    squares = []
    for part in (part for fold in replay.folds for part in fold.parts):
        own = said[part.cells]
        known = np.maximum(1, np.count_nonzero(~np.isnan(own), axis=0))
        said[part.cells] = own - np.nansum(own, axis=0) / known
        squares.append(said[part.cells].reshape(-1) ** 2)
    variance = float(np.nanmean(np.concatenate(squares)))
    longest = max(fold.n_days for fold in replay.folds)
    for lag in range(1, longest if variance > CONSTANT else 1):
        products = []
        for part in (part for fold in replay.folds for part in fold.parts):
            later = part.day >= lag
            then = part.source(lag)[later]
            products.append((said[np.ix_(part.rows[later], part.columns)] * said[np.ix_(then, part.columns)]).reshape(-1))
        pairs = np.concatenate(products)
        pairs = pairs[~np.isnan(pairs)]
        if not len(pairs) or float(pairs.mean()) <= FORGOTTEN * variance:
            return lag
    return longest


@dataclass(frozen=True)
class Part:
    """Symbols that have the same bars in a fold, and those days of it that move.

    rows [m]: their bars; columns [c]: the symbols; day [m]: number of the UTC day; begin, count [D]: first of `rows`, and bars of a day;
    time [m]: of the day, ns.
    """

    rows: I8
    columns: I8
    day: I8
    begin: I8
    count: I8
    time: I8

    @classmethod
    def of(cls, rows: I8, columns: I8, open_time: I8) -> "Part":
        """Lay out the days of some rows, ascending; open_time [n] ns UTC, of all rows."""
        _, day, count = np.unique(open_time[rows] // NS_PER_DAY, return_inverse=True, return_counts=True)
        is_whole = count >= WHOLE * count.max(initial=0)
        rows, number = rows[is_whole[day]], (np.cumsum(is_whole) - 1)[day[is_whole[day]]]
        count = count[is_whole]
        return cls(rows, columns, number, np.cumsum(count) - count, count, open_time[rows] % NS_PER_DAY)

    @property
    def cells(self) -> tuple[NDArray[np.int64], ...]:
        """Index of the cells that move."""
        return np.ix_(self.rows, self.columns)

    @property
    def n_days(self) -> int:
        """Days that move."""
        return len(self.count)

    def source(self, shift: int) -> I8:
        """Return the row whose predictions each of `rows` takes, those of `shift` days before, circularly."""
        said = (self.day - shift) % self.n_days
        at = self.begin[said] + np.arange(len(self.rows)) - self.begin[self.day]
        keys, wanted = self.day * NS_PER_DAY + self.time, said * NS_PER_DAY + self.time
        last = np.maximum(np.searchsorted(keys, wanted, side="right") - 1, self.begin[said])
        return self.rows[np.where(self.count[said] == self.count[self.day], at, last)]


@dataclass(frozen=True)
class Fold:
    """Cells of the tested bars that the same models predicted, by the bars that symbols have."""

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, rows: I8, is_live: NDArray[np.bool_], open_time: I8) -> "Fold":
        """Lay out rows, ascending. is_live [n, S]: cells that move; open_time [n] ns UTC; both of all rows."""
        kinds, kind = np.unique(is_live[rows], axis=1, return_inverse=True)
        columns = [np.flatnonzero(kind.reshape(-1) == k) for k in range(kinds.shape[1])]
        return cls(tuple(Part.of(rows[live], each, open_time) for live, each in zip(kinds.T, columns) if live.any()))

    @property
    def n_days(self) -> int:
        """Days of the symbol that has most."""
        return max((part.n_days for part in self.parts), default=0)

    @property
    def n_bars(self) -> int:
        """Bars of these days."""
        return max((len(part.rows) for part in self.parts), default=0)

    def move(self, source: NDArray[np.int64], shift: int) -> None:
        """Write to source [n, S] the row whose predictions each cell takes, those of `shift` days of its symbol before, circularly."""
        for part in self.parts:
            source[part.cells] = part.source(shift)[:, None]


class Replay:
    """The tested rows of a run, laid out so that decisions and account can be made again without features."""

    def __init__(self, run: RunRecord, rows: slice) -> None:
        """Cut what every placebo reads. rows: the tested ones, from the first vote on."""
        self.run, self.rows, self.bars = run, rows, run.result.bars[rows]
        self.n, self.n_symbols = self.bars.close.shape
        self.n_cells = self.n * self.n_symbols
        self.day = self.bars.open_time // NS_PER_DAY
        self.ends = np.append(np.flatnonzero(np.diff(self.day)), self.n - 1)
        self.spans = run.params.spans(self.bars.close_time)
        self.loop = run.own.trade or trade

    @cached_property
    def votes(self) -> Votes:
        """What the models said; probabilities only where they are read."""
        votes = self.run.result.votes[self.rows]
        is_read = self.run.params.ensemble.rule == EnsembleRule.MEAN or self.asks
        return votes if is_read else Votes(votes.action, votes.confidence, None, votes.names, votes.maps)

    @cached_property
    def folds(self) -> list[Fold]:
        """The folds of a training; what was imported is one, to the last vote."""
        fold = self.run.predictions.fold[self.rows]
        if not (fold >= 0).any():
            last = int(np.flatnonzero((self.votes.action >= 0).any(axis=(0, 2)))[-1])
            fold = np.where(np.arange(self.n) <= last, 0, -1)
        has_vote: NDArray[np.bool_] = np.any(self.votes.action >= 0, axis=0)
        has_bar = ~np.isnan(self.bars.close)
        folds = []
        for rows in (np.flatnonzero(fold == k) for k in np.unique(fold[fold >= 0])):
            is_live = np.zeros_like(has_bar)
            begun, goes_on = (np.logical_or.accumulate(has_vote[rows[::step]], axis=0)[::step] for step in (1, -1))
            is_live[rows] = has_bar[rows] & begun & goes_on
            folds.append(Fold.of(rows, is_live, self.bars.open_time))
        return folds

    @property
    def unmoved(self) -> NDArray[np.int64]:
        """Rows whose predictions each cell takes where nothing moves, [n, S]."""
        return np.repeat(np.arange(self.n)[:, None], self.n_symbols, axis=1)

    @property
    def horizon_days(self) -> int:
        """Days that a prediction or a position looks ahead."""
        bars = max(self.run.predictions.label.horizon, self.run.params.broker.max_holding_bars)
        return max(1, math.ceil(bars * sum(fold.n_days for fold in self.folds) / max(1, sum(fold.n_bars for fold in self.folds))))

    @cached_property
    def planes(self) -> Planes:
        """Features of the rows."""
        planes = self.run.result.planes
        return Planes(np.ascontiguousarray(planes.values[:, self.rows]), planes.slots, planes.valid[self.rows])

    @cached_property
    def pricing(self) -> F8 | None:
        """What prices the opinions, [3, n, S], None where they have no price."""
        pricing = self.run.result.pricing
        return None if pricing is None else np.ascontiguousarray(pricing[:, self.rows])

    @cached_property
    def maps(self) -> NDArray:
        """Maps MAP [H * F], from the first row on."""
        return maps_on(self._known, self.bars.close_time, self.n_symbols)

    @property
    def _known(self) -> NDArray:
        votes = self.run.result.votes
        return no_map(votes.n_horizons) if votes.maps is None else votes.maps

    @cached_property
    def asks(self) -> bool:
        """Whether an answer of the learned meta layer can change what is traded: a bet's, only where it has a seat."""
        is_on = self.run.meta is not None and any(params.meta.enabled for _, params in self.spans)
        return is_on and (self.run.params.meta.mode != MetaMode.BET or bool(np.any(self.maps["is_seated"])))

    @cached_property
    def mean(self) -> float:
        """The statistic of the run itself."""
        return self._mean(self.run.result.equity[self.rows])

    @cached_property
    def is_exact(self) -> bool:
        """Whether signs that turn nothing, and a shift by no day, are the run itself."""
        said = [self.turned(np.ones(self.n, np.int64))]
        if not (set(self.run.own_layers) & {"judge", "meta_model"}):
            said.append(self.moved(self.unmoved))
        return all(np.array_equal(self.equity(each), self.run.result.equity[self.rows]) for each in said)

    def equity(self, said: Said) -> F8:
        """Trade what was said from the first row on, and return the equity at each close, [n]."""
        action, confidence, money = said
        return run_trade(self.bars, action, confidence, self.run.params, self._fresh(), self.loop, money).equity

    def mean_of(self, said: Said) -> float:
        """Return the mean daily net return of what was said."""
        return self._mean(self.equity(said))

    def moved(self, source: NDArray[np.int64]) -> Said:
        """Decide anew with the predictions of the rows `source` [n, S] of each symbol."""
        votes = self._moved(source)
        probs, problem = None, np.zeros(self.n, np.int64)
        if self.asks and self.run.meta is not None:
            probs, problem = self._answers(self.run.meta, votes), meta_problems(self.run.meta, self.bars.close_time)
        parts = []
        for rows, params in self.spans:
            of = [None if plane is None else plane[:, rows] for plane in (probs, self.pricing)]
            maps = self.maps
            if len(self.spans) > 1:
                maps = maps_on(self._known, self.bars.close_time[rows], self.n_symbols)
            seen = votes if len(self.spans) == 1 else votes[rows], self.planes.arbiter[:, rows], self.planes.regime[:, rows]
            parts.append(decide(*seen, params, of[0], meta_problem=problem[rows], pricing=of[1], maps=maps))
        action, confidence = (np.concatenate([getattr(part, name) for part in parts]) for name in ("raw_action", "raw_confidence"))
        gross, edge, risk, forecast, beta, holding = map(np.concatenate, zip(*(part.money for part in parts)))
        return action, confidence, (gross, edge, risk, forecast, beta, holding)

    def turned(self, sign: I8) -> Said:
        """Trade on bids times `sign` [n] of each row: 1 as they were, -1 to the other side."""
        if self.pricing is None:
            action, confidence = (getattr(self.run.result.decisions, name)[self.rows] for name in ("raw_action", "raw_confidence"))
            return (1 + (action - 1) * sign[:, None]).astype(np.int8), confidence, UNPRICED
        bids, signs = self.bids.copy(), np.repeat(sign, self.n_symbols)
        bids[[Bid.ENSEMBLE, Bid.ARBITER]] *= signs
        n_rows = n_values(True, self.run.params.is_book, self.run.result.decisions.holding is not None) - Value.GROSS_EDGE
        action, confidence, money = np.empty(self.n_cells, np.int8), np.empty(self.n_cells), np.empty((n_rows, self.n_cells))
        pricing = self.pricing.reshape(len(self.pricing), -1)
        for rows, params in self._priced_spans:
            start, stop = rows.start * self.n_symbols, rows.stop * self.n_symbols
            price(self._lean, bids, pricing, params.record(), action, confidence, money, start, stop, start)
        shape = self.n, self.n_symbols
        gross, edge, risk, forecast, beta, holding = (*(plane.reshape(shape) for plane in money), *UNPRICED)[: len(UNPRICED)]
        return action.reshape(shape), confidence.reshape(shape), (gross, edge, risk, forecast, beta, holding)

    @cached_property
    def bids(self) -> F8:
        """What every opinion may be counted on to earn before costs, [7 or 19, n * S], of the horizon that speaks; rows as in `Bid`."""
        assert self.pricing is not None
        if self.run.result.decisions.holding is not None and "judge" not in self.run.own_layers:
            told, parts = self.run.result.meta_probs, []
            for rows, params in self._priced_spans:
                meta = None if told is None else told[2:, self.rows][:, rows].repeat(3, axis=0)
                maps = maps_on(self._known, self.bars.close_time[rows], self.n_symbols)
                parts.append(bids_of(self.votes[rows], self.planes.arbiter[:, rows], params, meta, self.pricing[:, rows], maps))
            return np.concatenate(parts, axis=1)
        bids, score, pays = np.empty((N_BIDS, self.n_cells)), np.empty(self.n_cells), np.full(1, np.nan)
        score_cells(np.ascontiguousarray(self.planes.arbiter).reshape(6, -1), score, 0, self.n_cells)
        if self.run.result.meta_probs is not None:
            pays = np.ascontiguousarray(self.run.result.meta_probs[2, self.rows]).reshape(-1)
        pricing, first = self.pricing.reshape(len(self.pricing), -1), self.maps[: len(self.maps) // horizons_of(self._known)]
        for rows, params in self._priced_spans:
            start, stop = rows.start * self.n_symbols, rows.stop * self.n_symbols
            value(self._lean, pricing, score, pays, first, 0, params.record(), bids, start, stop, start)
        return bids

    @cached_property
    def _lean(self) -> F8:
        lean = self.run.result.decisions.lean
        assert lean is not None
        return np.ascontiguousarray(lean[self.rows]).reshape(-1)

    @property
    def _priced_spans(self) -> list[tuple[slice, Any]]:
        """The spans with the parameters that price; an own judge is priced without meta layer and arbiter."""
        off = {"meta.enabled": False, "arbiter.enabled": False} if "judge" in self.run.own_layers else {}
        spans = [(slice(0, self.n), self.run.params)] if off else self.spans
        return [(slice(*rows.indices(self.n)), params.with_values(off)) for rows, params in spans]

    def _fresh(self) -> TradeState:
        before = self.run.result.bars[: self.rows.start]
        fresh = replace(TradeState.fresh(self.run.params, self.n_symbols), traded=last_traded(before.close, before.volume))
        fresh.account["n_bars"] = self.rows.start
        return fresh

    def _mean(self, equity: F8) -> float:
        at = np.append(self.run.params.broker.initial_cash, equity[self.ends])
        return math.fsum(growth(at[1:], at[:-1]).tolist()) / len(self.ends)

    @cached_property
    def _room(self) -> Votes:
        votes = self.votes
        probs = None if votes.probs is None else np.empty_like(votes.probs)
        return Votes(np.empty_like(votes.action), np.empty_like(votes.confidence), probs, votes.names, votes.maps)

    def _moved(self, source: NDArray[np.int64]) -> Votes:
        """Take the votes of other rows, in arrays that are made once: the probabilities of a year of hours are 50 MB."""
        room, cells = self._room, (source * self.n_symbols + np.arange(self.n_symbols)).reshape(-1)
        for name in ("action", "confidence", "probs"):
            if (plane := getattr(self.votes, name)) is not None:
                shape = len(plane), self.n_cells, *plane.shape[3:]
                np.take(plane.reshape(shape), cells, axis=1, out=getattr(room, name).reshape(shape), mode="wrap")
        return room

    def _answers(self, meta: MetaSource, votes: Votes) -> F8:
        """Ask the learned meta layer about every cell, from the first row on."""
        horizon = hit_bars(meta)
        hits = Hits.fresh(horizon, self.n_symbols).advance(leans_of(votes), self.bars.close) if horizon else None
        before = np.full(self.n_symbols, np.nan)
        return meta_probs(meta, votes, self.planes, before, self.bars.close_time, hits)


def _apart(about: dict[str, Any]) -> str:
    horizon, memory = several(about["horizon_days"], "days"), several(about["memory_days"], "days")
    return f"horizon {horizon}, memory of the predictions {memory}"


def _too_many(n_cells: int) -> str:
    need = f"{LEAST} placebos of {n_cells:,} cells are more than the {BUDGET:,} cells that every run is given"
    return f"{need}; Run.placebo(draws={LEAST}) makes them"


def _result(mean: float, found: list[float], total: int, how: str, what: str) -> dict[str, Any]:
    n, reached = len(found), sum(each >= mean for each in found)
    p, floor = (1 + reached) / (1 + n), 1 / (1 + n)
    of = f"all {n} distinct {what}" if total == n else f"{n} of {f'{total:,}' if total < MANY else 'more than a million'} distinct {what}"
    sentence = f"{how}, the book earned at least as much in {reached} of {n}: p = {p:.3f} ({of}, so never below {floor:.3f})."
    return {"p": p, "refused": None, "draws": found, "n_distinct": min(total, MANY), "floor": floor, "sentence": sentence}
