"""What would a market with a known answer look like? Seeded worlds; the same seed gives the same bits, a longer run the same beginning."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from qtcore.types import F8, NS_PER_HOUR, Bars
from research.data.clock import parse_interval
from research.data.schema import VALUES, bars_of
from research.errors import UserError

START = 1_672_531_200_000_000_000  # 2023-01-01 UTC
BLOCK = 1024  # bars drawn at once, always whole: how many are asked for changes no bit of the ones before
STEPS = 8  # moves inside a bar: its high and low are seen on the way
Block = tuple[F8, F8, F8, F8, F8]  # open, high, low, close, volume [b, S]


@dataclass(frozen=True)
class World:
    """A simulated market: what it is, what an honest test must find in it, and its generator of blocks."""

    name: str
    what: str
    answer: str
    blocks: Callable[..., Iterator[Block]]


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
    known = list(inspect.signature(world.blocks).parameters)[3:]
    for key in params:
        if key not in known:
            raise UserError(f"parameter of {name} must be one of {', '.join(known) or 'none'}, was {key!r}")
    ns = parse_interval(interval)
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
    params: dict[str, Any] = {}
    for pair in filter(None, query.split("&")):
        key, sign, value = pair.partition("=")
        if not sign:
            raise UserError(f"simulated:{name} must be followed by ?key=value&key=value, was {pair!r}")
        params[key] = value if key == "interval" else _number(key, value)
    return simulate(name, **params)


def _number(key: str, text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            raise UserError(f"{key} must be a number, was {text!r}") from None


def random_walk(rng: np.random.Generator, n_symbols: int, ns: int, volatility: float = 0.006, correlation: float = 0.5) -> Iterator[Block]:
    """Fair prices: moves are symmetric, so the expected price is the present one at every bar, whatever the past.

    volatility: mean standard deviation of an hour's return, scaled with the root of the interval; it clusters as GARCH(1,1) with
    alpha 0.08, beta 0.90, kept within a fifth and five times its mean. correlation: of the moves of any two symbols, through one factor.
    """
    target = (volatility * (ns / NS_PER_HOUR) ** 0.5) ** 2
    variance = np.full(n_symbols, target)
    price = 100.0 * np.arange(1, n_symbols + 1)
    while True:
        moves = _moves(rng, n_symbols, correlation)
        gap, noise = rng.standard_normal((BLOCK, n_symbols)), rng.random((BLOCK, n_symbols))
        shock = moves.sum(axis=2) / STEPS**0.5
        sigma = np.empty((BLOCK, n_symbols))
        for t in range(BLOCK):
            sigma[t] = np.sqrt(variance)
            variance = 0.02 * target + variance * (0.08 * shock[t] * shock[t] + 0.90)
            variance = np.minimum(np.maximum(variance, 0.04 * target), 25.0 * target)
        drift = np.zeros((BLOCK, n_symbols))
        yield _candles(price, moves, gap, sigma, drift, 1_000.0 * sigma / target**0.5 * (0.3 + np.abs(shock)) * (0.5 + noise))


def _moves(rng: np.random.Generator, n_symbols: int, correlation: float) -> F8:
    """Draw the standard moves inside the bars of a block [b, S, steps], with one common factor."""
    if not 0.0 <= correlation <= 1.0:
        raise UserError(f"correlation must be in [0, 1], was {correlation}")
    draws = rng.standard_normal((BLOCK, n_symbols + 1, STEPS))
    return correlation**0.5 * draws[:, :1] + (1.0 - correlation) ** 0.5 * draws[:, 1:]


def _candles(price: F8, moves: F8, gap: F8, sigma: F8, drift: F8, volume: F8) -> Block:
    """Walk the prices through a block; `price` [S] is the last close, updated in place. A tenth of a bar's deviation opens a gap."""
    factors = np.empty((len(moves), moves.shape[1], STEPS + 1))
    factors[:, :, 0] = 1.0 + 0.1 * sigma * gap
    factors[:, :, 1:] = 1.0 + (sigma[:, :, None] * moves / STEPS**0.5 + drift[:, :, None] / STEPS)
    chain = np.moveaxis(factors, 1, 2).reshape(-1, moves.shape[1])
    chain[0] *= price
    path = np.moveaxis(np.cumprod(chain, axis=0).reshape(len(moves), STEPS + 1, -1), 1, 2)
    price[:] = path[-1, :, -1]
    return path[:, :, 0], path.max(axis=2), path.min(axis=2), path[:, :, -1], volume


WORLDS: dict[str, World] = {
    w.name: w
    for w in (
        World(
            "random_walk", "fair prices with clustered volatility and correlated symbols", "no edge: direction accuracy 1/2", random_walk
        ),
    )
}
