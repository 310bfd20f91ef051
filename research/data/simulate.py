"""What would a market with a known answer look like? Seeded worlds; the same seed gives the same bits, a longer run the same beginning."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qtcore.types import Bars
from research.data import worlds
from research.data.clock import parse_interval
from research.data.schema import VALUES, bars_of
from research.errors import UserError

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
    blocks = list(simulate_blocks(name, seed, n_bars, n_symbols, interval, **params))
    if len(blocks) == 1:
        return blocks[0]
    times = np.concatenate([b.open_time for b in blocks])
    return bars_of(
        (times, times + blocks[0].interval),
        [np.concatenate([getattr(b, name) for b in blocks]) for name in VALUES],
        blocks[0].symbols,
        blocks[0].interval,
    )


def simulate_blocks(
    name: str, seed: int = 0, n_bars: int = 6_000, n_symbols: int = 5, interval: str | int = "1h", **params: Any
) -> Iterator[Bars]:
    """Yield the bars of `simulate` in blocks, for histories that do not fit in memory."""
    if name not in WORLDS:
        raise UserError(f"world must be one of {', '.join(WORLDS)}, was {name!r}; see qt data simulate --list")
    for key, value, low in (("n_bars", n_bars, 2), ("n_symbols", n_symbols, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or value < low:
            raise UserError(f"{key} must be an int of at least {low}, was {value!r}")
    world = WORLDS[name]
    known = parameters(world)
    for key in params:
        if key not in known:
            raise UserError(f"parameter of {name} must be one of {', '.join(known) or 'none'}, was {key!r}")
        if isinstance(known[key], int) and not isinstance(params[key], int):
            raise UserError(f"{key} must be an int, was {params[key]!r}")
    ns = parse_interval(interval)
    if n_bars * ns > 2**63 - 1 - START:
        raise UserError(f"simulated bars must end before 2262, was {n_bars:,} of {interval}; ask for fewer or shorter ones")
    symbols = tuple(f"SIM{i + 1:0{max(2, len(str(n_symbols)))}d}" for i in range(n_symbols))
    rng = np.random.Generator(np.random.PCG64(seed))
    done = 0
    for planes in world.blocks(rng, n_symbols, ns, **params):
        b = min(len(planes[0]), n_bars - done)
        open_time = START + ns * np.arange(done, done + b, dtype=np.int64)
        yield bars_of((open_time, open_time + ns), [np.ascontiguousarray(p[:b]) for p in planes], symbols, ns)
        done += b
        if done == n_bars:
            return


def simulate_text(text: str) -> Bars:
    """Read `NAME?key=value&key=value` as on the command line. Raises UserError."""
    name, _, query = text.partition("?")
    return simulate(name, **parse_params([pair for pair in query.split("&") if pair], name))


def parse_params(pairs: Sequence[str], name: str) -> dict[str, Any]:
    """Turn `key=value` texts into arguments of `simulate`. Raises UserError."""
    params: dict[str, Any] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign:
            raise UserError(f"parameter of {name} must be written key=value, was {pair!r}")
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
    raise UserError(f"{key} must be a number, was {text!r}")


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
