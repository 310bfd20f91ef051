"""Simulated markets with a known answer: seeded worlds. The same seed gives the same bits, a longer run the same beginning."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qtcore.types import Bars
from research.data import worlds
from research.data.clock import interval_text, parse_interval
from research.data.grid import check_memory
from research.data.rows import bars_of
from research.data.schema import VALUES
from research.errors import DataError

MOST_MADE = 5_000_000  # cells that are simulated to compare bars with their origin, beyond twenty times their own
START = 946_684_800_000_000_000  # 2000-01-01 UTC: room for many bars before the present


@dataclass(frozen=True)
class World:
    """A simulated market: what it is, what an honest test must find in it, and its generator of blocks."""

    name: str
    what: str
    answer: str
    blocks: Callable[..., Iterator[worlds.Block]]


def simulate(name: str, seed: int = 0, n_bars: int = 6_000, n_symbols: int = 5, interval: str | int = "1h", **params: Any) -> Bars:
    """Make `n_bars` bars of `n_symbols` symbols of the world `name`; `params` are those of its generator. Raises UserError.

    >>> simulate("random_walk", seed=1, n_bars=3, n_symbols=1).symbols
    ('SIM01',)
    """
    if isinstance(n_bars, int) and isinstance(n_symbols, int):
        check_memory(8 * len(VALUES) * n_bars * n_symbols, f"{n_bars:,} rows x {n_symbols:,} symbols")
    blocks = list(simulate_blocks(name, seed, n_bars, n_symbols, interval, **params))
    if len(blocks) == 1:
        return blocks[0]
    times = np.concatenate([b.open_time for b in blocks])
    planes: dict[str, Any] = {name: np.concatenate([getattr(b, name) for b in blocks]) for name in VALUES}
    return replace(blocks[0], open_time=times, close_time=times + blocks[0].interval, **planes)


def simulate_blocks(
    name: str, seed: int = 0, n_bars: int = 6_000, n_symbols: int = 5, interval: str | int = "1h", **params: Any
) -> Iterator[Bars]:
    """Yield the bars of `simulate` in blocks, for histories that do not fit in memory."""
    if name not in WORLDS:
        raise DataError(f"world must be one of {', '.join(WORLDS)}, was {name!r}; see qt data simulate --list")
    for key, value, low in (("n_bars (--bars)", n_bars, 2), ("n_symbols (--symbols)", n_symbols, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or value < low:
            raise DataError(f"{key} must be an int of at least {low}, was {value!r}")
    world = WORLDS[name]
    known = parameters(world)
    for key in params:
        if key not in known:
            raise DataError(f"parameter of {name} must be one of {', '.join(known) or 'none'}, was {key!r}")
        if isinstance(known[key], int) and not isinstance(params[key], int):
            raise DataError(f"{key} must be an int, was {params[key]!r}")
    ns = parse_interval(interval)
    if n_bars * ns > 2**63 - 1 - START:
        raise DataError(f"simulated bars must end before 2262, was {n_bars:,} of {interval}; ask for fewer or shorter ones")
    check_memory(8 * 2 * len(VALUES) * worlds.BLOCK * n_symbols, f"{worlds.BLOCK:,} rows x {n_symbols:,} symbols")
    shape = {"seed": seed, "n_bars": n_bars, "n_symbols": n_symbols, "interval": interval_text(ns)}
    origin = f"simulated:{name}?" + "&".join(f"{key}={value}" for key, value in (shape | params).items())
    symbols = tuple(f"SIM{i + 1:0{max(2, len(str(n_symbols)))}d}" for i in range(n_symbols))
    rng = np.random.Generator(np.random.PCG64(seed))
    done = 0
    for planes in world.blocks(rng, n_symbols, ns, **params):
        b = min(len(planes[0]), n_bars - done)
        open_time = START + ns * np.arange(done, done + b, dtype=np.int64)
        made = bars_of((open_time, open_time + ns), [np.ascontiguousarray(p[:b]) for p in planes], symbols, ns)
        yield replace(made, origin=origin)
        done += b
        if done == n_bars:
            return


def simulate_text(text: str) -> Bars:
    """Read `NAME?key=value&key=value` as on the command line. Raises UserError."""
    name, _, query = text.partition("?")
    return simulate(name, **parse_params([pair for pair in query.split("&") if pair], name))


def made_again(bars: Bars) -> bool:
    """Say whether the world that `bars.origin` names gives these candles again, each price and volume to the bit.

    Rows and symbols may be a part of the world's. A name alone says nothing: with other candles under it the answer is no, and it is no
    where the world would be far larger than the bars (`MOST_MADE`).
    """
    kind, _, text = bars.origin.partition(":")
    name, _, query = text.partition("?")
    try:
        params = parse_params(query.split("&"), name)
        row = (bars.open_time - START) // bars.interval
        n_made = min(int(row[-1]) + 1, int(params.pop("n_bars", 0)))
        n_symbols = int(params.get("n_symbols", 0))
        if kind != "simulated" or row[0] < 0 or row[-1] >= n_made or n_made * n_symbols > MOST_MADE + 20 * bars.close.size:
            return False
        blocks = simulate_blocks(name, n_bars=n_made, **params)
        return all(_holds(bars, row, block) for block in blocks)
    except (TypeError, ValueError, OverflowError):  # a claim that is no recipe
        return False


def _holds(bars: Bars, row: np.ndarray, made: Bars) -> bool:
    """Say whether those of `bars` whose rows of the world are `row` [n], increasing, and that lie in the block `made` are that block's."""
    first = (made.open_time[0] - START) // made.interval
    here = slice(*np.searchsorted(row, [first, first + made.n]))
    at, part = row[here] - first, bars[here]
    is_on_grid = bars.interval == made.interval and np.array_equal(part.open_time, made.open_time[at])
    if not is_on_grid or not set(bars.symbols) <= set(made.symbols):
        return False
    cells = np.ix_(at, [made.symbols.index(name) for name in bars.symbols])
    return all(np.array_equal(getattr(part, name), getattr(made, name)[cells], equal_nan=True) for name in VALUES)


def parse_params(pairs: Sequence[str], name: str) -> dict[str, Any]:
    """Turn `key=value` texts into arguments of `simulate`. Raises UserError."""
    params: dict[str, Any] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign:
            raise DataError(f"parameter of {name} must be written key=value, was {pair!r}")
        params[key] = value if key == "interval" else _number(key, value)
    return params


def parameters(world: World) -> dict[str, float]:
    """Return a world's own parameters and their defaults."""
    return {key: p.default for key, p in list(inspect.signature(world.blocks).parameters.items())[3:]}


def describe_worlds() -> list[dict[str, Any]]:
    """List every world: name, what it is, its known answer, its parameters with defaults."""
    return [{"name": w.name, "what": w.what, "answer": w.answer, "parameters": parameters(w)} for w in WORLDS.values()]


def _number(key: str, text: str) -> int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise DataError(f"{key} must be a number, was {text!r}")


WORLDS: dict[str, World] = {
    world.name: world
    for world in (
        World(
            "random_walk",
            "fair prices with clustered volatility and correlated symbols",
            "no edge: no rule earns before costs, direction accuracy 1/2; activity (HOLD against a move) is predictable",
            worlds.random_walk,
        ),
        World(
            "planted_edge",
            "fair prices, but in visible episodes they drift: up while the volume grows, down while it shrinks",
            "an edge of known size: direction accuracy 0.60 (parameter accuracy) over 5 bars, given a move of 1.5 %",
            worlds.planted_edge,
        ),
        World(
            "reversion",
            "prices that come back from where their last moves took them, with clustered volatility",
            "an edge in every bar: against the last moves, direction accuracy 0.69 (parameter pull) over 5 bars, given a move of 1.5 %",
            worlds.reversion,
        ),
        World(
            "macd",
            "prices that follow their MACD: up while it lies above its signal line, down while below, with clustered volatility",
            "an edge in every bar that the arbiter sees: direction accuracy 0.62 (parameter pull) over 5 bars, given a move of 1.5 %",
            worlds.macd,
        ),
        World(
            "relative",
            "prices that come back to one another in a fair market: who ran ahead of the others falls behind them",
            "an edge between symbols alone: rank correlation 0.05 (parameter ic) with the next bar, nothing of the market's direction",
            worlds.relative,
        ),
        World(
            "constant", "prices and volume that never change", "no move: every label is HOLD, every trade loses its costs", worlds.constant
        ),
        World("trend", "prices that gain 0.1 % a bar", "direction accuracy 1 by always saying BUY: the same as holding", worlds.trend),
        World(
            "jumps",
            "quiet fair prices that now and then open 10 % away",
            "no edge; stops fill at the open, far beyond their level",
            worlds.jumps,
        ),
        World(
            "gaps",
            "the random walk with single holes, outages and a late listing",
            "no edge; no fill and no feature at a hole",
            worlds.gaps,
        ),
    )
}
