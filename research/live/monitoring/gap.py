"""Live-backtest gap: the journal's inputs go through the engine again, in blocks; every bit must come out as journalled.

What remains is what the market did to the inputs. With a reference of the same bars (candles as they are known today) the difference of the
PnL to a backtest on the reference is split in steps, each changing one thing from what live saw to what the reference says: candles that
live never got, candles that were revised, candles that have gone. Before that stands what the broker did otherwise than the engine booked:
other prices, other fees, orders filled later. All parts add up to the whole.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qtcore import Bars, Engine, Params, Result, Votes
from qtcore.meta import MetaSource
from qtcore.types import F8
from research.errors import ConfigError, UserError
from research.live.journal.journal import VERSIONS, versions_of
from research.live.journal.reading import Reading
from research.live.monitoring.journal_source import JournalSource
from research.live.session.reload import LAYERS, meta_of
from research.live.storage.cells import FILLS, DamagedError, is_priced_of, is_replay_of
from research.live.storage.codec import (
    PRICES,
    cell_columns,
    cell_names,
    joined,
    maps_of,
    unpack_bar,
    unpack_state,
    unpack_votes,
    vote_names,
)
from research.live.storage.files import damaged, guarded
from research.training.models.layers import check_layers, in_use

BLOCK = 512  # bars that are run at once
EXECUTION = ("order_id", "symbol", "time", "is_entry", "qty", "price", "fee", "funding")
BROKER = ("fills", "fees", "latency")  # parts of the difference that the broker makes


class Execution(NamedTuple):
    """One fill in the books of the engine or the broker; the columns of `EXECUTION`."""

    order_id: str
    symbol: int
    time: int
    is_entry: int
    qty: float
    price: float
    fee: float
    funding: float


@dataclass(frozen=True)
class Inputs:
    """What a journal was fed: bars, votes, parameters and models; the equity that came out; the state before the first bar."""

    bars: Bars
    votes: Votes
    params: list[tuple[int, Params]]  # (first row, parameters)
    equity: F8
    state: dict[str, Any]
    models: list[tuple[int, dict[str, Any]]]  # (first row, what the journal says of the models)
    maps: dict[int, NDArray | None]  # by first row, what their opinions are worth


@dataclass(frozen=True)
class Heard:
    """Stands for models whose votes are journalled: it only names the features and rows that a state carries for them."""

    feature_names: tuple[str, ...]
    lookback: int
    horizon: int = 0

    def serve(self, inputs: Any, close_time: Any) -> F8:
        """Refuse: nobody asks."""
        raise AssertionError("votes are journalled")


def read_inputs(source: JournalSource) -> Inputs:
    """Read everything that a journal was fed. Raises UserError for an empty one."""
    symbols, interval, n_symbols = source.symbols, int(source.about["interval"]), len(source.symbols)
    rows = source.rows("SELECT bar, open_time, close_time, candles, probs, version, equity FROM bars ORDER BY bar")
    if not rows:
        raise UserError(f"journal must hold at least one bar, was empty: {source.path}")
    begun = source.rows("SELECT bar, state AS snapshot, hash FROM snapshots ORDER BY bar LIMIT 1")
    if not begun or begun[0][0] != rows[0][0] - 1:
        raise UserError(f"journal must hold the state before its first bar, was without: {source.path}")
    _, start, name = begun[0]
    if hashlib.sha256(start).hexdigest() != name:
        raise damaged(source.path, f"the state before bar {rows[0][0]} is not what was written")
    cells = source.rows(f"SELECT {', '.join(vote_names(source.voters))} FROM decisions ORDER BY cell")
    with guarded(source.path):
        bars = [unpack_bar(candles, o, c, symbols, interval) for _, o, c, candles, *_ in rows]
        votes = [unpack_votes(cells[k * n_symbols : (k + 1) * n_symbols], row[4], n_symbols, source.voters) for k, row in enumerate(rows)]
        versions = versions_of(source.rows(VERSIONS))
        if unknown := {row[5] for row in rows} - set(versions):
            raise DamagedError(f"bars of the version {min(unknown)}, which is not there")
        spans = [(k, *versions[row[5]]) for k, row in enumerate(rows) if k == 0 or row[5] != rows[k - 1][5]]
        maps = {k: maps_of(models) for k, _, models in spans}
    params, models = [(k, params) for k, params, _ in spans], [(k, models) for k, _, models in spans]
    return Inputs(joined(bars), joined_votes(votes), params, np.array([row[6] for row in rows]), unpack_state(start), models, maps)


def joined_votes(parts: list[Votes]) -> Votes:
    """Put blocks of votes behind one another; where some gave no probabilities, NaN stands for them."""
    width, probs = max((p.probs.shape[3] for p in parts if p.probs is not None), default=0), None
    if width:
        nothing = [np.full((*p.action.shape, width), np.nan) if p.probs is None else p.probs for p in parts]
        probs = np.concatenate(nothing, axis=1)
    said = [np.concatenate([getattr(p, name) for p in parts], axis=1) for name in ("action", "confidence")]
    return replace(parts[0], action=said[0], confidence=said[1], probs=probs)


def engine_of(inputs: Inputs, meta: MetaSource | None = None) -> Engine:
    """Return an engine that stands before the first bar.

    Raises UserError where its meta layer is not where the journal says, or its file of layers is not in use.
    """
    names, kept = inputs.models[0][1].get("features"), inputs.state["models.rows"]
    heard = None if names is None else Heard(tuple(names), len(kept) + 1)
    known = inputs.models[0][1].get(LAYERS)
    check_layers(known, "the journal")
    own = {} if known is None else in_use().chain | {"custom": in_use().features}
    engine = Engine(inputs.params[0][1], models=heard, meta_model=meta or meta_of(inputs.models[0][1], None), **own)
    engine.restore(inputs.state, inputs.bars.symbols, inputs.bars.interval)
    return engine


def results(engine: Engine, inputs: Inputs, bars: Bars | None = None, meta: MetaSource | None = None) -> Iterator[Result]:
    """Run the inputs, or other bars in their place, in blocks. meta: the meta layer of all bars, else the one that each version names."""
    bars = bars or inputs.bars
    metas = {row: meta_of(models, None) for row, models in inputs.models} if meta is None else {0: meta}
    at, maps = dict(inputs.params), inputs.maps[0]
    for a, b in pairwise(sorted({*range(0, bars.n, BLOCK), *at, bars.n})):
        engine.params, engine.meta_model = at.get(a, engine.params), metas.get(a, engine.meta_model)
        maps = inputs.maps.get(a, maps)
        yield engine.run(bars[a:b], replace(inputs.votes[a:b], maps=maps))


def replayed(inputs: Inputs, bars: Bars | None = None, meta: MetaSource | None = None) -> tuple[F8, list[list[list[Any]]]]:
    """Run the inputs, or other bars in their place. Returns equity [n] and the decision columns of every bar."""
    parts = [(result.equity, cell_columns(result)) for result in results(engine_of(inputs, meta), inputs, bars, meta)]
    return np.concatenate([equity for equity, _ in parts]), [cells for _, cells in parts]


def live_gap(journal: Path, reference: Bars | None = None, meta: MetaSource | None = None) -> dict[str, Any]:
    """Compare a journal with the backtest on its own inputs, and with one on `reference`.

    meta: the learned model of the meta layer that live served, where it is no longer where the journal says. Returns `bars`, `identical`,
    `first_difference` (in words, or None) and with a reference `pnl`: `live`, `reference`, `difference` and the `parts` that add up to it,
    quote currency.
    """
    source = JournalSource(journal)
    inputs = read_inputs(source)
    equity, cells = replayed(inputs, meta=meta)
    found = first_difference(source, inputs, equity, cells)
    report: dict[str, Any] = {"journal": str(journal), "bars": inputs.bars.n, "identical": found is None, "first_difference": found}
    mismatches = source.event_counts()["mismatch"]
    report["broker_mismatches"] = mismatches
    report["broker"] = broker = broker_parts(source, inputs.bars)
    latency = source.latency()
    report["latency_seconds"] = None if latency is None else {"median": latency[0], "p99": latency[1]}
    report["late_bars"] = late_bars(source)
    if reference is not None:
        report["pnl"] = split(inputs, equity, on_grid(inputs.bars, reference), broker or {}, meta)
    return report


def first_difference(source: JournalSource, inputs: Inputs, equity: F8, cells: list[list[list[Any]]]) -> str | None:
    """Name the first bar, symbol and column that the replay decides otherwise; None where every bit is the same."""
    names = cell_names(source.voters, is_priced_of(source.about))
    rows = source.rows(f"SELECT symbol, {', '.join(names)} FROM decisions ORDER BY cell")
    again = (values for block in cells for values in zip(*block))
    for k, (row, values) in enumerate(zip(rows, again)):
        for name, was, now in zip(names, row[1:], values):
            if was != now and not (was is None and now != now):
                time = np.datetime64(int(inputs.bars.close_time[k // len(inputs.bars.symbols)]), "ns").astype("M8[s]")
                return f"{row[0]} at {time}Z: {name} was {was!r} live, {now!r} in the replay"
    if differs := np.flatnonzero(equity != inputs.equity).tolist():
        k = differs[0]
        return f"bar {k}: equity was {inputs.equity[k]!r} live, {equity[k]!r} in the replay"
    return None


def on_grid(bars: Bars, reference: Bars) -> Bars:
    """Put reference candles on the bars that live decided. Raises UserError where nothing matches."""
    _, here, there = np.intersect1d(bars.open_time, reference.open_time, assume_unique=True, return_indices=True)
    missing = sorted(set(bars.symbols) - set(reference.symbols))
    if len(here) == 0 or missing:
        what = "no bar of it is in the journal" if len(here) == 0 else f"{', '.join(missing)} are not in it"
        raise ConfigError(f"--reference must hold the journal's bars and symbols, but {what}; take the same market and period")
    columns = [reference.symbols.index(name) for name in bars.symbols]
    planes: dict[str, Any] = {}
    for name in PRICES:
        plane = np.full(bars.close.shape, np.nan)
        plane[here] = getattr(reference, name)[there][:, columns]
        planes[name] = plane
    return Bars(bars.open_time, bars.close_time, **planes, symbols=bars.symbols, interval=bars.interval, funding=bars.funding)


def split(inputs: Inputs, equity: F8, reference: Bars, broker: Mapping[str, float], meta: MetaSource | None = None) -> dict[str, Any]:
    """Split the PnL difference: what the broker did otherwise, then the candles that live missed are put in, those revised, those gone.

    `decisions` is what the journal's own inputs do not give again, 0.0 for a journal that is its own backtest.
    """
    live, first = inputs.bars, float(inputs.state["account.account"]["equity"][0])
    missed = np.isnan(live.close) & ~np.isnan(reference.close)
    absent = ~np.isnan(live.close) & np.isnan(reference.close)
    with_missed = _mixed(live, reference, missed)
    with_revised = _mixed(live, reference, ~absent)
    steps = [float(replayed(inputs, bars, meta)[0][-1]) for bars in (with_missed, with_revised, reference)]
    replay, journalled = float(equity[-1]), float(inputs.equity[-1])
    changed = np.zeros_like(missed)
    for name in PRICES:
        a, b = getattr(live, name), getattr(reference, name)
        changed |= ~(np.isnan(a) | np.isnan(b)) & (a != b)
    live_pnl = journalled + sum(broker.values())
    return {
        "live": live_pnl - first,
        "reference": steps[2] - first,
        "difference": live_pnl - steps[2],
        "parts": {
            **{name: broker.get(name, 0.0) for name in BROKER},
            "decisions": journalled - replay,
            "missing_candles": replay - steps[0],
            "revised_candles": steps[0] - steps[1],
            "candles_gone": steps[1] - steps[2],
        },
        "counts": {"missing": int(missed.sum()), "revised": int(changed.sum()), "gone": int(absent.sum())},
    }


def _mixed(live: Bars, reference: Bars, take: Any) -> Bars:
    planes = {name: np.where(take, getattr(reference, name), getattr(live, name)) for name in PRICES}
    return Bars(live.open_time, live.close_time, **planes, symbols=live.symbols, interval=live.interval, funding=live.funding)


def broker_parts(source: JournalSource, bars: Bars) -> dict[str, float] | None:
    """Split what the broker's account has more or less than the engine's, quote currency; None where the account's file is not there.

    Trades are matched by the id of their entry. `fees`: another rate on the broker's own notional. `latency`: trades with an order that was
    filled later than in the engine's books. `fills`: other prices, lost and additional trades.
    """
    path = source.path.with_name(f"{source.path.name}.paper")
    if not path.exists():
        return None
    query = f"SELECT {', '.join(EXECUTION)} FROM fills ORDER BY seq"
    mine = _trades(source.rows(query, fields=FILLS))
    with closing(Reading(path)) as account:
        theirs = _trades(rows := account.rows(query, fields=FILLS))
    if foreign := [row[1] for row in rows if row[1] >= len(source.symbols)]:
        raise damaged(path, f"a fill of symbol {foreign[0]}")
    marks = [column[~np.isnan(column)][-1] if not np.isnan(column).all() else 0.0 for column in bars.close.T]
    parts = dict.fromkeys(BROKER, 0.0)
    for key in sorted({*mine, *theirs}):
        a, b = mine.get(key, []), theirs.get(key, [])
        if a != b:
            rate = a[0].fee / abs(a[0].qty * a[0].price) if a else None
            fees = 0.0 if rate is None else sum(rate * abs(fill.qty * fill.price) - fill.fee for fill in b)
            booked = {fill.order_id: fill.time for fill in a if fill.order_id}
            is_late = any(fill.time > booked.get(fill.order_id, fill.time) for fill in b)
            parts["fees"] += fees
            parts["latency" if is_late else "fills"] += _worth(b, marks) - _worth(a, marks) - fees
    return parts


def _trades(rows: list[tuple[Any, ...]]) -> dict[str, list[Execution]]:
    """Group fills into trades, named by the order of their entry."""
    found: dict[str, list[Execution]] = {}
    current: dict[int, str] = {}
    for row in rows:
        fill = Execution(row[0] or "", *row[1:])
        if fill.is_entry:
            current[fill.symbol] = fill.order_id or f"{fill.symbol} {fill.time}"
        found.setdefault(current.get(fill.symbol, ""), []).append(fill)
    return found


def _worth(trade: list[Execution], marks: list[float]) -> float:
    """Money that a trade brought so far, what is still held at the last close; funding stands with the exit."""
    paid = sum(fill.qty * fill.price + fill.fee - (0.0 if fill.is_entry else fill.funding) for fill in trade)
    return sum(fill.qty * marks[fill.symbol] for fill in trade) - paid


def late_bars(source: JournalSource) -> int:
    """Count the bars of a live feed that were decided after the next one had closed: nobody could have traded where they are booked."""
    if is_replay_of(source.about):
        return 0
    query = "SELECT COUNT(*) AS n FROM bars WHERE received + COALESCE(latency, 0) > close_time + ?"
    return int(source.rows(query, source.interval)[0][0])
