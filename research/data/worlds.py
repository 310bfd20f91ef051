"""Simulation models: how each simulated market moves. Generators of blocks of candles; `simulate.py` lists them with their known answers.

A generator takes (rng, number of symbols, interval in ns, its parameters) and yields blocks for ever. It draws whole blocks, so how many
bars are asked for changes no bit of the ones before. Only + - * / and square roots are used.

Prices move all the time, as a Brownian motion does, and a bar's high and low are its own: a stop that is filled at its level is then worth
as much as it costs. Highs and lows of a few steps only would give every stop the rest of the step for nothing.
"""

import math
from collections.abc import Iterator

import numpy as np

from qtcore.types import F8, NS_PER_HOUR
from research.errors import DataError

BLOCK = 1024  # bars drawn at once
STEPS = 8  # moves inside a bar
GROWTH, PULL, NOISE = 0.08, 0.02, 0.015  # of the planted world's volume, a bar
GAP = 0.1  # share of a bar's deviation by which it opens away from the last close
PLANTED_VOLATILITY, EPISODE = 0.005, 12  # deviation of a bar's return; bars that an episode lasts in the mean
MEMORY, FRESH = 0.8, 0.6  # of the reverting world's stretch, a bar, and the share of a new move that keeps its deviation near 1
SEEN = 0.04  # a change of volume beyond this share is the planted state's, never noise
TOO_WILD = "simulated prices must stay above 0, was not so; lower the volatility, the drift or the size of the jumps"
Block = tuple[F8, F8, F8, F8, F8]  # open, high, low, close, volume [BLOCK, S]


def random_walk(rng: np.random.Generator, n_symbols: int, ns: int, volatility: float = 0.006, correlation: float = 0.5) -> Iterator[Block]:
    """Fair prices: moves are symmetric, so the expected price is the present one at every bar, whatever the past.

    volatility: mean standard deviation of an hour's return, scaled with the root of the interval; it clusters as GARCH(1,1) with
    alpha 0.08, beta 0.90, kept within a fifth and five times its mean. correlation: of the moves of any two symbols, through one factor.
    Volume goes with the volatility and the size of the move.
    """
    target = _variance(volatility, ns)
    variance = np.full(n_symbols, target)
    price = first_prices(n_symbols)
    while True:
        moves, gap, noise = draw(rng, n_symbols, correlation)
        shock = moves.sum(axis=2) / STEPS**0.5
        sigma = np.empty((BLOCK, n_symbols))
        for t in range(BLOCK):
            sigma[t] = np.sqrt(variance)
            variance = _clustered(variance, shock[t], target)
        volume = 1_000.0 * sigma / target**0.5 * (0.3 + np.abs(shock)) * (0.5 + noise)
        yield candles(rng, price, moves, gap, sigma, np.zeros((BLOCK, n_symbols)), volume)


def reversion(rng: np.random.Generator, n_symbols: int, ns: int, pull: float = 0.25, volatility: float = 0.007) -> Iterator[Block]:
    """Prices that come back: a bar moves against the bars before it, on top of fair moves whose volatility clusters as in `random_walk`.

    Each symbol is stretched by its last moves, in deviations of their bars' returns: 0.8 of the stretch is left a bar later, and 0.6 of
    the bar's own move comes on top. The next bar's expected return is -`pull` deviations for a stretch of 1, and nothing else can be known.
    volatility: mean deviation of an hour's fair moves, scaled with the root of the interval. Volume goes with it and with the size of the
    move. Symbols move by themselves.
    """
    if not 0.0 <= pull <= 1.0:
        raise DataError(f"pull must be in [0, 1], was {pull:g}")
    target = _variance(volatility, ns)
    variance, stretch, price = np.full(n_symbols, target), np.zeros(n_symbols), first_prices(n_symbols)
    while True:
        moves, gap, noise = draw(rng, n_symbols, 0.0)
        shock = moves.sum(axis=2) / STEPS**0.5
        sigma, back = np.empty((BLOCK, n_symbols)), np.empty((BLOCK, n_symbols))
        for t in range(BLOCK):
            sigma[t], back[t] = np.sqrt(variance), -pull * stretch
            stretch = MEMORY * stretch + FRESH * (back[t] + shock[t])
            variance = _clustered(variance, shock[t], target)
        volume = 1_000.0 * sigma / target**0.5 * (0.3 + np.abs(shock)) * (0.5 + noise)
        yield candles(rng, price, moves, gap, sigma, sigma * back, volume)


def macd(rng: np.random.Generator, n_symbols: int, ns: int, pull: float = 0.10, volatility: float = 0.007) -> Iterator[Block]:
    """Prices that follow an indicator everybody knows: up while their MACD (12, 26, 9) lies above its signal line, down while below.

    The next bar's expected return is `pull` deviations to that side, on top of fair moves whose volatility clusters as in `random_walk`,
    and nothing else can be known. The MACD is that of the sum of the returns. volatility: mean deviation of an hour's fair moves, scaled
    with the root of the interval. Volume goes with it and with the size of the move. Symbols move by themselves.
    """
    if not 0.0 <= pull <= 1.0:
        raise DataError(f"pull must be in [0, 1], was {pull:g}")
    target = _variance(volatility, ns)
    variance, price = np.full(n_symbols, target), first_prices(n_symbols)
    level, fast, slow, line, side = np.zeros((5, n_symbols))
    while True:
        moves, gap, noise = draw(rng, n_symbols, 0.0)
        shock = moves.sum(axis=2) / STEPS**0.5
        sigma, led = np.empty((BLOCK, n_symbols)), np.empty((BLOCK, n_symbols))
        for t in range(BLOCK):
            sigma[t], led[t] = np.sqrt(variance), pull * side
            level = level + sigma[t] * (led[t] + shock[t])
            fast, slow = fast + (level - fast) * 2.0 / 13.0, slow + (level - slow) * 2.0 / 27.0
            line = line + (fast - slow - line) * 2.0 / 10.0
            side = np.sign(fast - slow - line)
            variance = _clustered(variance, shock[t], target)
        volume = 1_000.0 * sigma / target**0.5 * (0.3 + np.abs(shock)) * (0.5 + noise)
        yield candles(rng, price, moves, gap, sigma, sigma * led, volume)


def relative(
    rng: np.random.Generator,
    n_symbols: int,
    ns: int,
    ic: float = 0.05,
    memory: float = 0.9,
    correlation: float = 0.5,
    volatility: float = 0.006,
) -> Iterator[Block]:
    """Prices that come back to one another: who ran ahead of the others falls behind them, and the market itself is fair.

    Each symbol is stretched by its moves less the mean of all, in deviations; `memory` of the stretch is left a bar later. The next bar's
    expected move is against it, so that its correlation over symbols with what a symbol does beyond the mean is -`ic`, its information
    coefficient, and nothing else can be known. correlation, volatility, volume: as in `random_walk`. Needs two symbols.
    """
    if not 0.0 <= ic <= 0.5 or not 0.0 <= memory < 1.0 or n_symbols < 2:
        raise DataError(
            f"ic must be in [0, 0.5], memory in [0, 1) and symbols 2 or more, was ic {ic:g}, memory {memory:g}, {n_symbols} symbols"
        )
    target = _variance(volatility, ns)
    variance, stretch, price = np.full(n_symbols, target), np.zeros(n_symbols), first_prices(n_symbols)
    own = math.sqrt((1.0 - correlation) * (1.0 - 1.0 / n_symbols))  # deviation of a move beyond the mean
    fresh, pull = math.sqrt(1.0 - memory**2), ic
    for _ in range(100):  # what pulls the stretch back makes it smaller, so that it has to pull more
        pull = ic * math.sqrt(1.0 - (memory - fresh * pull) ** 2) / fresh
    while True:
        moves, gap, noise = draw(rng, n_symbols, correlation)
        shock = moves.sum(axis=2) / STEPS**0.5
        sigma, led = np.empty((BLOCK, n_symbols)), np.empty((BLOCK, n_symbols))
        for t in range(BLOCK):
            sigma[t], led[t] = np.sqrt(variance), -pull * own * stretch
            moved = led[t] + shock[t]
            stretch = memory * stretch + fresh * (moved - moved.mean()) / max(own, 1e-12)
            variance = _clustered(variance, shock[t], target)
        volume = 1_000.0 * sigma / target**0.5 * (0.3 + np.abs(shock)) * (0.5 + noise)
        yield candles(rng, price, moves, gap, sigma, sigma * led, volume)


def planted_edge(
    rng: np.random.Generator,
    n_symbols: int,
    ns: int,
    accuracy: float = 0.60,
    horizon: int = 5,
    move: float = 0.015,
    drift: float = 0.006,
) -> Iterator[Block]:
    """Fair prices but for episodes that the volume gives away: then they drift, up while it grows, down while it shrinks.

    Each symbol has a state -1, 0 or +1, a Markov chain: episodes of -1 and +1 are equally frequent and last 12 bars in the mean. The
    volume of bar t shows the state of bar t: it grows or shrinks by 8 %, else it stays within 4 % of the bar before. The state of bar t
    moves the price in bar t+1 by `drift`, on top of symmetric moves of 0.5 % a bar. The state is all that the past tells of the future,
    so the best rule there is says BUY at +1, SELL at -1 and tosses a coin at 0; how often its side is right, given that the price moves
    by more than `move` within `horizon` bars, is `accuracy`. It fixes the share of bars in an episode (`planted_share`).
    """
    del ns  # its moves are per bar, whatever the bar's length
    share = planted_share(accuracy, horizon, move, drift)
    leave, enter = _switches(share)
    state, level, price = np.zeros(n_symbols), np.full(n_symbols, 1_000.0), first_prices(n_symbols)
    while True:
        moves, gap, noise = draw(rng, n_symbols, 0.0)
        turn, side = rng.random((BLOCK, n_symbols)), rng.random((BLOCK, n_symbols))
        pushed, volume = np.empty((BLOCK, n_symbols)), np.empty((BLOCK, n_symbols))
        for t in range(BLOCK):
            pushed[t] = state
            begun = np.where(side[t] < 0.5, -1.0, 1.0)
            state = np.where(state == 0.0, np.where(turn[t] < enter, begun, 0.0), np.where(turn[t] < leave, 0.0, state))
            pull = np.where(level > 1_000.0, 1.0 - PULL, 1.0 + PULL)
            level = level * (1.0 + GROWTH * state) * pull * (1.0 + NOISE * (2.0 * noise[t] - 1.0))
            volume[t] = level
        yield candles(rng, price, moves, gap, np.full((BLOCK, n_symbols), PLANTED_VOLATILITY), drift * pushed, volume)


def planted_signal(volume: F8) -> F8:
    """Read the planted state off the volume [n, S]: +1, -1 or 0 at each bar, from that bar and the one before; 0 at the first."""
    signal = np.zeros(volume.shape)
    change = volume[1:] / volume[:-1] - 1.0
    signal[1:] = np.where(change > SEEN, 1.0, np.where(change < -SEEN, -1.0, 0.0))
    return signal


def planted_share(accuracy: float, horizon: int = 5, move: float = 0.015, drift: float = 0.006) -> float:
    """Return the share of bars in an episode at which the best rule has this direction accuracy. Raises UserError if none has.

    >>> round(planted_share(0.60), 3)
    0.057
    """
    if not (horizon >= 1 and 0.0 < move < 1.0 and 0.0 <= drift < 0.05):
        raise DataError(f"planted_edge needs horizon >= 1, move in (0, 1), drift in [0, 0.05), was {horizon}, {move:g}, {drift:g}")
    low, high = 0.0, 0.9
    best = planted_accuracy(high, horizon, move, drift)
    if not 0.5 <= accuracy <= best:
        raise DataError(f"accuracy must be in [0.5, {best:.3f}] for a drift of {drift:g} a bar, was {accuracy:g}")
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if planted_accuracy(middle, horizon, move, drift) < accuracy else (low, middle)
    return low


def planted_accuracy(share: float, horizon: int, move: float, drift: float) -> float:
    """Return the direction accuracy of the best rule, given a move, when this share of bars is in an episode.

    Exact over the paths of the state; the return over a path is taken as log-normal.
    """
    leave, enter = _switches(share)
    right = moved = 0.0
    for state, weight in ((1, share), (0, 1.0 - share)):
        for pushes, chance in _pushes(state, horizon, leave, enter).items():
            up, down = _tails(pushes * drift, horizon, move)
            moved += weight * chance * (up + down)
            right += weight * chance * (up if state else 0.5 * (up + down))
    return right / moved


def _switches(share: float) -> tuple[float, float]:
    """Chances a bar to leave an episode and to enter one, so that `share` of the bars is in one."""
    return 1.0 / EPISODE, share / (1.0 - share) / EPISODE


def _pushes(state: int, horizon: int, leave: float, enter: float) -> dict[int, float]:
    """Distribution of the sum of the states of `horizon` bars, the first being `state`."""
    paths = {(state, state): 1.0}
    for _ in range(horizon - 1):
        after: dict[tuple[int, int], float] = {}
        for (now, total), chance in paths.items():
            turns = ((-1, enter / 2), (0, 1.0 - enter), (1, enter / 2)) if now == 0 else ((now, 1.0 - leave), (0, leave))
            for then, p in turns:
                key = then, total + then
                after[key] = after.get(key, 0.0) + chance * p
        paths = after
    sums: dict[int, float] = {}
    for (_, total), chance in paths.items():
        sums[total] = sums.get(total, 0.0) + chance
    return sums


def _tails(mean: float, horizon: int, move: float) -> tuple[float, float]:
    """Chances that the price ends above 1 + move and below 1 - move."""
    variance = horizon * PLANTED_VOLATILITY**2 * (1.0 + GAP * GAP)
    centre, width = mean - 0.5 * variance, (2.0 * variance) ** 0.5
    up = 0.5 * math.erfc((math.log(1.0 + move) - centre) / width)
    return up, 0.5 * math.erfc((centre - math.log(1.0 - move)) / width)


def constant(rng: np.random.Generator, n_symbols: int, ns: int) -> Iterator[Block]:
    """Prices and volume that never change."""
    del rng, ns
    price = np.broadcast_to(first_prices(n_symbols), (BLOCK, n_symbols))
    while True:
        yield price, price, price, price, np.full((BLOCK, n_symbols), 1_000.0)


def trend(rng: np.random.Generator, n_symbols: int, ns: int, drift: float = 0.001, volatility: float = 0.0) -> Iterator[Block]:
    """Prices that gain `drift` a bar (a fraction, compounded in 8 steps), with symmetric moves of `volatility`; no gaps between bars."""
    del ns
    price = first_prices(n_symbols)
    while True:
        moves, gap, noise = draw(rng, n_symbols, 0.0)
        shape = (BLOCK, n_symbols)
        yield candles(rng, price, moves, 0.0 * gap, np.full(shape, volatility), np.full(shape, drift), 1_000.0 * (0.5 + noise))


def jumps(rng: np.random.Generator, n_symbols: int, ns: int, size: float = 0.10, every: int = 200) -> Iterator[Block]:
    """Quiet fair prices that open `size` above or below the last close, each symbol once in `every` bars in the mean."""
    volatility = _variance(0.003, ns) ** 0.5
    price = first_prices(n_symbols)
    while True:
        moves, gap, noise = draw(rng, n_symbols, 0.0)
        hit, side = rng.random((BLOCK, n_symbols)) < 1.0 / every, rng.random((BLOCK, n_symbols)) < 0.5
        sigma = np.full((BLOCK, n_symbols), volatility)
        leap = np.where(hit, np.where(side, size, -size), 0.0) / (GAP * volatility)
        yield candles(rng, price, moves, gap + leap, sigma, np.zeros_like(sigma), 1_000.0 * (0.5 + noise))


def gaps(rng: np.random.Generator, n_symbols: int, ns: int, holes: float = 0.01, outage: int = 500, listing: int = 200) -> Iterator[Block]:
    """Blank cells of the random walk: a share `holes`, 3 whole rows in every `outage`, and the last symbol before the row `listing`."""
    first = 0
    for planes in random_walk(rng, n_symbols, ns):
        hole = rng.random((BLOCK, n_symbols)) < holes
        at = first + np.arange(BLOCK)
        hole |= ((at % outage >= outage - 3) & (at >= outage - 3))[:, None]
        if n_symbols > 1:
            hole[at < listing, -1] = True
        hole[at == 0, 0] = False  # the first row is no hole, so that the world begins where it says
        open_, high, low, close, volume = (np.where(hole, np.nan, plane) for plane in planes)
        first += BLOCK
        yield open_, high, low, close, volume


def first_prices(n_symbols: int) -> F8:
    """Return the prices before the first bar: 100, 200, 300, ..."""
    prices: F8 = np.cumsum(np.full(n_symbols, 100.0))
    return prices


def draw(rng: np.random.Generator, n_symbols: int, correlation: float) -> tuple[F8, F8, F8]:
    """Draw a block's standard moves inside the bars [b, S, steps] with one common factor, its gaps and its noise in [0, 1) [b, S]."""
    if not 0.0 <= correlation <= 1.0:
        raise DataError(f"correlation must be in [0, 1], was {correlation:g}")
    normal = rng.standard_normal((BLOCK, n_symbols + 1, STEPS))
    moves: F8 = math.sqrt(correlation) * normal[:, :1] + math.sqrt(1.0 - correlation) * normal[:, 1:]
    return moves, rng.standard_normal((BLOCK, n_symbols)), rng.random((BLOCK, n_symbols))


def candles(rng: np.random.Generator, price: F8, moves: F8, gap: F8, sigma: F8, drift: F8, volume: F8) -> Block:
    """Walk the prices through a block. price [S]: the last close, updated in place; sigma, drift [b, S]: of the bar's return.

    The highest price between two steps a and b of deviation s is (a + b + sqrt((b - a)^2 + 2 s^2 E)) / 2 with E exponential, the lowest
    its mirror image: the extremes of a Brownian bridge (Glasserman, Monte Carlo Methods in Financial Engineering, 2004, section 6.4).
    """
    n, n_symbols = sigma.shape
    factors = np.empty((n, STEPS + 1, n_symbols))
    factors[:, 0] = 1.0 + GAP * sigma * gap
    factors[:, 1:] = 1.0 + (sigma[:, :, None] * moves / STEPS**0.5 + drift[:, :, None] / STEPS).transpose(0, 2, 1)
    factors[0, 0] *= price
    path = np.asarray(np.cumprod(factors.reshape(-1, n_symbols), axis=0), np.float64).reshape(factors.shape)
    if not np.all(path[-1] > 0.0):
        raise DataError(TOO_WILD)
    price[:] = path[-1, -1]
    a, b = path[:, :-1], path[:, 1:]
    spread = 2.0 / STEPS * (a * sigma[:, None, :]) ** 2
    up, down = rng.standard_exponential((2, n, STEPS, n_symbols))
    high: F8 = np.maximum(0.5 * (a + b + np.sqrt((b - a) ** 2 + spread * up)), np.maximum(a, b)).max(axis=1)  # rounding must not
    low: F8 = np.minimum(0.5 * (a + b - np.sqrt((b - a) ** 2 + spread * down)), np.minimum(a, b)).min(axis=1)  # cut off the steps
    if not np.all(low > 0.0):
        raise DataError(TOO_WILD)
    return path[:, 0], high, low, path[:, -1], volume


def _clustered(variance: F8, shock: F8, target: float) -> F8:
    """Move a GARCH(1,1) variance [S] by the last standard moves, within 0.04 and 25 times its mean."""
    moved = 0.02 * target + variance * (0.08 * shock * shock + 0.90)
    return np.minimum(np.maximum(moved, 0.04 * target), 25.0 * target)


def _variance(volatility: float, ns: int) -> float:
    if not 0.0 < volatility <= 0.05:
        raise DataError(f"volatility must be in (0, 0.05] an hour, was {volatility:g}")
    return volatility**2 * (ns / NS_PER_HOUR)
