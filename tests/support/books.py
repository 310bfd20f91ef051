"""Worlds of a cross-sectional book: bars with what hurts, and forecasts, risks and betas of every cell, some of them unknown."""

from types import SimpleNamespace

import numpy as np

from qtcore.chain.trade import TradeState, run_trade
from qtcore.params import Params
from qtcore.types import NS_PER_HOUR, Bars
from tests.conftest import START, awkward_bars
from tests.support import PUBLISHED
from tests.support.priced import PRICED

BOOK = PRICED | {"governor.book": "cross_section", "governor.max_daily_trades": 10_000, "governor.max_exposure": 2.0}

KINDS = {
    "plain": {},
    "dollar": {"governor.neutral": "dollar"},
    "beta": {"governor.neutral": "beta", "governor.band": 0.3},
    "both": {"governor.neutral": "dollar_beta", "governor.kelly_fraction": 0.01},
    "every bar": {"governor.band": 0.0},
    "daily": {"governor.rebalance_bars": 24, "governor.band": 0.0},
    "calm": {"governor.target_volatility": 0.05, "governor.stop_loss": 0.005, "governor.cooldown_minutes": 180},
    "small": {"governor.max_exposure": 0.1, "governor.max_position": 0.2, "governor.neutral": "dollar", "governor.band": 3.0},
    "few": {"governor.max_daily_trades": 4},
    "long": {"broker.allow_short": False, "governor.band": 0.1},
    "halted": {"governor.max_drawdown": 0.01, "governor.drawdown_reset": "daily"},
    "balance": {"governor.drawdown_basis": "balance", "governor.max_drawdown": 0.05},
    "last 50": {"governor.cooldown_scope": "last_50", "governor.cooldown_minutes": 600},
    "killed": {"governor.emergency_stop": True},
    "close": {"broker.fill": "close", "governor.neutral": "dollar"},
    "next_close": {"broker.fill": "next_close"},
    "later": {"broker.fill": "one_bar_later", "governor.stop_loss": 0.004},
    "worst": {"broker.fill": "worst", "broker.impact": 0.2, "broker.delist_after": 2, "governor.stop_loss": 0.5},
    "ruined": {"governor.max_position": 1.0, "governor.max_exposure": 10.0, "governor.kelly_fraction": 1.0, "governor.stop_loss": 1.0}
    | {"governor.max_drawdown": 1.0, "broker.slippage_rate": 0.05, "governor.band": 0.0},
}


def book_params(**values: object) -> Params:
    """Parameters of a book in a market of opinions with a price."""
    return PUBLISHED.with_values(BOOK | values)


def slow_noise(rng: np.random.Generator, shape: tuple[int, int], keeps: float) -> np.ndarray:
    """Normal noise that keeps the share `keeps` of itself from bar to bar."""
    out = rng.normal(0.0, 1.0, shape)
    for t in range(1, shape[0]):
        out[t] = keeps * out[t - 1] + np.sqrt(1.0 - keeps**2) * out[t]
    return out


def book_world(n: int, n_symbols: int, seed: int = 0, size: float = 0.002, unknown: float = 0.02) -> SimpleNamespace:
    """Bars, opinion and money of n bars. size: of a usual forecast; unknown: share of cells without one, and without a risk."""
    rng, shape = np.random.default_rng([seed, 5]), (n, n_symbols)
    forecast, risk = size * slow_noise(rng, shape, 0.8), rng.uniform(0.5e-4, 4e-4, shape)
    forecast[rng.random(shape) < unknown] = np.nan
    risk[rng.random(shape) < unknown] = np.nan
    beta = 1.0 + 0.5 * slow_noise(rng, shape, 0.99)
    beta[rng.random(shape) < unknown] = np.nan
    action, confidence = rng.integers(0, 3, shape).astype(np.int8), rng.uniform(0.3, 1.0, shape)
    money = np.abs(forecast), np.abs(forecast) - 0.001, risk, forecast, beta, np.empty((0, 0))
    return SimpleNamespace(bars=awkward_bars(n, seed, n_symbols), said=(action, confidence), money=money)


def run_book(w: SimpleNamespace, params: Params, cuts: tuple[int, ...] = ()) -> tuple[dict[str, np.ndarray], TradeState]:
    """Trade a world in blocks that end at `cuts`: every output, and the state after the last bar."""
    state, parts = TradeState.fresh(params, len(w.bars.symbols)), []
    for a, b in zip((0, *cuts), (*cuts, w.bars.n)):
        rows = slice(a, b)
        said, money = (tuple(plane[rows] for plane in planes) for planes in (w.said, w.money))
        parts.append(vars(run_trade(w.bars[rows], *said, params, state, money=money)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, state


HOLDS = 5  # bars that a forecast looks ahead


def planted_book(seed: int, ic: float, keeps: float = 0.9, n: int = 3_000, n_symbols: int = 20) -> SimpleNamespace:
    """A market in which forecasts are right: AR(1) signals that keep the share `keeps` a bar explain the next return, correlation `ic`.

    The forecast is what the signal earns over the horizon of `HOLDS` bars on average. Prices jump at no open.
    """
    rng, shape = np.random.default_rng([seed, 11]), (n, n_symbols)
    signal, volatility = slow_noise(rng, shape, keeps), rng.uniform(0.004, 0.012, n_symbols)
    noise = rng.normal(0.0, np.sqrt(1.0 - ic**2), shape)
    moves = np.zeros(shape)
    moves[2:] = volatility * (ic * signal[:-2] + noise[2:])  # what the close of t tells is traded at the next open, and moves in t + 2
    close = 100.0 * np.exp(np.cumsum(moves - 0.5 * volatility**2, axis=0))
    open_ = np.vstack([close[:1], close[:-1]])
    high, low = np.maximum(open_, close), np.minimum(open_, close)
    open_time = START + NS_PER_HOUR * np.arange(n, dtype=np.int64)
    symbols = tuple(f"S{s:02d}" for s in range(n_symbols))
    bars = Bars(open_time, open_time + NS_PER_HOUR, open_, high, low, close, np.ones(shape), symbols, NS_PER_HOUR)
    forecast = np.ascontiguousarray(volatility * ic * signal * (1.0 - keeps**HOLDS) / (1.0 - keeps))
    risk = np.ascontiguousarray(np.broadcast_to(HOLDS * volatility**2, shape))
    said = np.ones(shape, np.int8), np.ones(shape)
    money = np.abs(forecast), np.abs(forecast), risk, forecast, np.ones(shape), np.empty((0, 0))
    return SimpleNamespace(bars=bars, said=said, money=money)
