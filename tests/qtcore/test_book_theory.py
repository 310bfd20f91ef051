"""Does a book of known forecasts earn what the fundamental law says (Grinold 1989; Clarke, de Silva, Thorley 2002)?"""

import math

import numpy as np
import pytest

from qtcore.chain.trade import TradeState, run_trade
from qtcore.types import NS_PER_HOUR, Bars
from tests.conftest import START
from tests.support.books import book_params

WORLDS, BARS, A_YEAR = 40, 1_500, 365.25 * 24.0


def world(ic: float, n_symbols: int, seed: int) -> tuple[Bars, np.ndarray, np.ndarray]:
    """Bars that open at the last close, and forecast and variance of the next bar: moves are `ic` of a state that lasts, the rest noise."""
    rng, shape = np.random.default_rng([seed, n_symbols]), (BARS, n_symbols)
    sigma, state = rng.uniform(0.003, 0.012, n_symbols), rng.standard_normal(shape)
    for t in range(1, BARS):
        state[t] = 0.9 * state[t - 1] + math.sqrt(1.0 - 0.81) * state[t]
    state -= state.mean(axis=1, keepdims=True)
    moves = sigma * rng.standard_normal(shape)
    moves[1:] += sigma * ic * state[:-1]
    close = 100.0 * np.cumprod(1.0 + moves, axis=0)
    open_ = np.vstack([close[:1], close[:-1]])
    high, low = np.maximum(open_, close), np.minimum(open_, close)
    time = START + NS_PER_HOUR * np.arange(BARS, dtype=np.int64)
    bars = Bars(time, time + NS_PER_HOUR, open_, high, low, close, np.ones(shape), tuple(f"S{i}" for i in range(n_symbols)), NS_PER_HOUR)
    return bars, ic * sigma * state, np.broadcast_to(sigma**2, shape).copy()


@pytest.mark.parametrize("n_symbols", [20, 50])
@pytest.mark.parametrize("ic", [0.02, 0.05, 0.10])
def test_the_gross_sharpe_ratio_is_that_of_the_fundamental_law(ic, n_symbols):
    free = {"broker.fee_rate": 0.0, "broker.slippage_rate": 0.0, "governor.band": 0.0, "governor.neutral": "dollar"}
    loose = {"governor.kelly_fraction": 0.02, "governor.max_position": 1.0, "governor.max_exposure": 10.0, "governor.stop_loss": 1.0}
    params = book_params(**free, **loose, **{"governor.max_daily_trades": 100_000, "broker.max_holding_bars": 1})
    found, law = [], []
    for seed in range(WORLDS):
        bars, forecast, risk = world(ic, n_symbols, seed)
        money = np.abs(forecast), np.abs(forecast), risk, forecast, *[np.empty((0, 0))] * 2
        opinion = np.ones(forecast.shape, np.int8), np.full(forecast.shape, 0.9)
        state = TradeState.fresh(params, n_symbols)
        equity = run_trade(bars, *opinion, params, state, money=money).equity
        net = np.diff(equity) / equity[:-1]
        found.append(net.mean() / net.std() * math.sqrt(A_YEAR))
        aims = forecast / risk - (forecast / risk).mean(axis=1, keepdims=True)  # what a neutral book wants, in shares of its risk
        wished, held = forecast / np.sqrt(risk), aims * np.sqrt(risk)
        transfer = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(wished[::50], held[::50])])
        law.append(ic * math.sqrt((n_symbols - 1) * A_YEAR) * transfer)
    assert np.mean(found) == pytest.approx(np.mean(law), rel=0.25)
    assert np.mean(found) > 0.0
