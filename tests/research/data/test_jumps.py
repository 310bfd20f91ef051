"""Is a jump named by the candle and its past alone, the same one by one, in blocks, in a file and in a stream?"""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.data import load
from research.data.jumps import JUMP, LEAST, REMEMBERED, USUAL_MOVES, Moves
from research.data.quality import quality
from tests.conftest import START

HOUR = 3_600_000_000_000


def closes(seed: int, n: int = 400, n_symbols: int = 3) -> np.ndarray:
    """Random walks with jumps, holes, a dead stretch and a late listing."""
    rng = np.random.default_rng(seed)
    move = rng.normal(0.0, 0.004, (n, n_symbols)) + np.where(rng.random((n, n_symbols)) < 0.02, rng.normal(0.0, 0.8, (n, n_symbols)), 0.0)
    close = 100.0 * np.exp(np.cumsum(move, axis=0))
    close[50:90, 0] = close[50, 0]
    close[rng.random(close.shape) < 0.05] = np.nan
    close[:30, -1] = np.nan
    return close


def naive(close: np.ndarray) -> np.ndarray:
    """The same, one symbol after the other, from the words of the rule."""
    out = np.zeros(close.shape, bool)
    for s in range(close.shape[1]):
        moves: list[float] = []
        last = None
        for t, price in enumerate(close[:, s].tolist()):
            if price != price:
                continue
            if last is not None:
                move = max(price / last, last / price) - 1.0
                past = sorted(moves[-REMEMBERED:])
                k = len(past)
                if k >= LEAST:
                    usual = past[k // 2] if k % 2 else (past[k // 2 - 1] + past[k // 2]) / 2.0
                    out[t, s] = move > max(JUMP, USUAL_MOVES * usual)
                moves.append(move)
            last = price
    return out


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), cuts=st.lists(st.integers(0, 400), max_size=6).map(sorted), by_row=st.booleans())
def test_any_cut_names_the_same_jumps(seed, cuts, by_row):
    close = closes(seed)
    moves, got = Moves(close.shape[1]), []
    for a, b in zip([0, *cuts], [*cuts, len(close)]):
        part = close[a:b]
        if by_row and (a + b) % 2:
            got += [moves.step(row) for row in part]
            continue
        code = np.repeat(np.arange(close.shape[1], dtype=np.int32), b - a)
        got += list(moves.block(code, part.T.reshape(-1)).reshape(close.shape[1], b - a).T)
    np.testing.assert_array_equal(np.array(got), naive(close))
    assert naive(close).sum() > 3


def table(close: np.ndarray) -> pd.DataFrame:
    n = len(close)
    rows = {"timestamp": START + HOUR * np.arange(n), "symbol": "AAA", "volume": 1.0}
    return pd.DataFrame(rows | dict.fromkeys(("open", "high", "low", "close"), close))


@pytest.mark.parametrize("factor", [1000.0, 0.1])
def test_what_comes_later_does_not_change_what_is_a_jump(factor):
    """The usual move of a file that grows wild later would hide the jump."""
    close = 100.0 + np.sin(np.arange(300.0))
    close[60:] *= factor
    wild = np.concatenate([close, np.where(np.arange(2_000) % 2 == 0, 50.0, 150.0)])
    for values in (close, wild):
        issues = {i.problem: i for i in load(table(values)).report.issues}
        assert (issues["jump"].symbol, issues["jump"].first, issues["jump"].action) == ("AAA", START + 60 * HOUR, "told")
        assert quality(table(values)).table().loc["AAA", "jump"] == issues["jump"].count
    assert {i.problem: i.count for i in load(table(close)).report.issues} == {"jump": 1}


def test_a_masked_candle_is_no_close():
    """A zero price is a hole: neither it nor the next close jumps."""
    close = 100.0 + np.sin(np.arange(100.0))
    close[50] = 0.0
    assert [i.problem for i in load(table(close)).report.issues] == ["not_positive"]
