"""Would the suite notice? Seeded faults of the kernels, each one small and plausible, and the checks that must notice it.

A mutant is (name, file, exact text, text instead). `check` runs interpreted in the process that imports the mutated copy: the naive chain
against the kernels, cut and uncut, in every variant of the switches, hit rates and features against their twins. It is `python -m
tests.support.mutants` (`features` as argument: these first); exit code 1 says "noticed".
"""

import sys

import numpy as np

from tests.support import PUBLISHED

MUTANTS: tuple[tuple[str, str, str, str], ...] = (
    (
        "ties go to SELL",
        "ensemble.py",
        "return 2 if votes[2] == top else (0 if votes[0] == top else 1), False",
        "return 0 if votes[0] == top else (2 if votes[2] == top else 1), False",
    ),
    ("a tie is no tie", "ensemble.py", "top - second <= 1e-12:\n        return 1, True", "top - second < 0.0:\n        return 1, True"),
    ("strong needs more than three quarters", "ensemble.py", "if n_winners >= 0.75 * n_voters:", "if n_winners > 0.75 * n_voters:"),
    ("confidence is not capped", "ensemble.py", "capped = capped if capped < 0.95 else 0.95", "capped = capped if capped < 9.95 else 9.95"),
    ("the fifth model is forgotten", "slots.py", "return total + amounts[4] if actions[4] == action else total", "return total"),
    ("a split vote is overlooked", "meta/policy.py", "if buy == 2 and sell == 2:", "if buy == 2 and sell == 3:"),
    ("an undecided market is trusted", "meta/policy.py", "undecided = entropy > ", "undecided = entropy < "),
    ("the guard wants everyone", "meta/predictor.py", "4 * most >= 3 * n", "4 * most >= 4 * n"),
    ("whoever is against a bet backs it", "meta/hits.py", "(1.0 - rate if agrees < 0.0", "(rate if agrees < 0.0"),
    ("a result counts a bar late", "meta/hits.py", "else lean[m, t - h, s]", "else lean[m, t - h - 1, s]"),
    ("momentum at its threshold counts", "arbiter.py", "speed if abs(momentum) > 0.02 else", "speed if abs(momentum) >= 0.02 else"),
    ("volume weighs as much as momentum", "arbiter.py", "signals[3] * 0.15", "signals[3] * 0.25"),
    ("a HOLD passes the gate", "arbiter.py", "return (confidence >= gate) & (action != 1)", "return confidence >= gate"),
    ("the least confidence is refused", "governor.py", "reason if confidence >= min_confidence", "reason if confidence > min_confidence"),
    ("sizes are not clamped", "governor.py", "return share if share < max_position else max_position", "return share"),
    ("the new position is not counted", "governor.py", "planned = exposure + notional if is_projected else exposure", "planned = exposure"),
    ("a loss one cooldown ago blocks", "governor.py", "if last_loss_time > since else", "if last_loss_time >= since else"),
    ("one trade more a day", "governor.py", "if trades_today >= max_daily_trades else", "if trades_today > max_daily_trades else"),
    ("days never end", "governor.py", 'account["trades_today"] = 0', 'account["trades_today"] += 0'),
    ("the peak follows equity down", "portfolio.py", 'if base > account["peak"]:', 'if base != account["peak"]:'),
    ("the entry fee is dropped", "portfolio.py", "return (gross - fee) - entry_fee", "return gross - fee"),
    ("closed trades overwrite each other", "portfolio.py", 'account["n_closed"] += 1', 'account["n_closed"] = 1'),
    ("debts are kept", "portfolio.py", 'account["balance"] = 0.0', 'account["balance"] += 0.0'),
    ("a ruined account trades on", "chain/trade.py", 'veto if account["equity"] > 0.0 else', 'veto if account["equity"] > -1.0 else'),
    ("the debt stays in the cells", "portfolio.py", "pnl[s] *= (before + won) / lost", "pnl[s] *= 1.0"),
    ("nobody is liquidated", "portfolio.py", "return (equity <= 0.0) & (before > 0.0)", "return (equity <= -1e99) & (before > 0.0)"),
    ("slippage works for us", "broker.py", "reference * (1.0 + side * slippage_rate)", "reference * (1.0 - side * slippage_rate)"),
    ("a gap is no stop", "broker.py", "return (price - stop_price) * qty < 0.0", "return (price - stop_price) * qty < -1e300"),
    ("shorts have no stop", "broker.py", "(qty < 0.0) & (high >= stop_price)", "(qty < 0.0) & (low >= stop_price)"),
    ("longs receive funding", "broker.py", "received = -((qty * close) * rate)", "received = (qty * close) * rate"),
    ("approvals reserve nothing", "chain/trade.py", 'account["exposure"] += abs(notional)', 'account["exposure"] += 0.0'),
    (
        "positions live a bar longer",
        "chain/trade.py",
        "own_bar = funding.shape[0] > 0, (0 if is_close_fill else 1)",
        "own_bar = funding.shape[0] > 0, (0 if is_close_fill else 0)",
    ),
    ("an order that should wait does not", "chain/trade.py", "waits = WAITS if", "waits = 0 if"),
    ("the worst price is the best", "broker.py", "return high if side > 0.0 else low", "return low if side > 0.0 else high"),
    ("orders move prices for us", "broker.py", "move = impact * math.sqrt(", "move = -impact * math.sqrt("),
    (
        "the least confident goes first",
        "chain/trade.py",
        "keys[candidates[j - 1]] < keys[s]",
        "keys[candidates[j - 1]] > keys[s]",
    ),
    (
        "the signal line is too fast",
        "features/recipes.py",
        "self.macd(), k=2.0 / (9 + 1))",
        "self.macd(), k=2.0 / 9)",
    ),
    ("oversold begins at 35", "features/primitives.py", "0.0 if x < 30.0 else", "0.0 if x < 35.0 else"),
    ("a rank does not count itself", "features/regime.py", "if values[i] <= new else", "if values[i] < new else"),
    ("gaps are no part of the true range", "features/primitives.py", "x = down if down > x else x", "x = down if down > 9e9 else x"),
    ("a half full window is good enough", "features/holes.py", "(4 * window + 4) // 5", "(4 * window + 4) // 10"),
    ("holes before a cut are forgotten", "chain/trade.py", "n_bars - n + t", "n_bars - 1"),
)

N_BARS = 130


def check_features() -> None:
    """Raise AssertionError where a feature differs from its twin, or a cut changes a bit."""
    from qtcore.features import FEATURES, FeatureBank
    from tests.conftest import assert_same_bits, awkward_bars
    from tests.naive.features import advance

    bars, params = awkward_bars(260, 5, 2), PUBLISHED
    names = tuple(FEATURES)
    planes = FeatureBank(params, bars.symbols, bars.interval, names).compute(bars)
    with np.errstate(all="ignore"):
        plain = advance(bars, params.flat())
    for name in names:
        np.testing.assert_allclose(planes[name], plain[name], rtol=1e-9, atol=1e-14, err_msg=name)
    bank = FeatureBank(params, bars.symbols, bars.interval, names)
    parts = [bank.compute(bars[start : start + 37]).values for start in range(0, bars.n, 37)]
    assert_same_bits(np.concatenate(parts, axis=1), planes.values, "features in blocks")


def check_hits() -> None:
    """Raise AssertionError where what hit rates say of a bet differs from its twin."""
    from qtcore.meta.hits import HIT_WEIGHT, Hits
    from tests.naive import opinion
    from tests.qtcore.test_hits import S, world

    lean, close = world(n=N_BARS)
    hits = Hits.fresh(5, S)
    parts = [hits.advance(lean[:, start : start + 13], close[start : start + 13]) for start in range(0, N_BARS, 13)]
    for s, got in enumerate(np.moveaxis(np.concatenate(parts, axis=1), 2, 0)):
        assert got.tolist() == opinion.backing(lean[:, :, s].tolist(), close[:, s].tolist(), 5, HIT_WEIGHT), f"backing of bets, symbol {s}"


def check() -> None:
    """Raise AssertionError where chain and kernels disagree, or a cut changes a bit."""
    from qtcore.chain.trade import TradeState, run_trade
    from qtcore.types import DECISION_COLUMNS
    from tests.conftest import assert_same_bits
    from tests.qtcore import test_naive_chain as naive
    from tests.qtcore.test_trade import assert_same_as_naive, run_naive

    for name, (values, rest) in naive.VARIANTS.items():
        world = naive.random_world(values, seed=len(name), n=N_BARS, **rest)
        decisions, result, state = naive.kernels(world)
        flat = world.params.flat()
        opinion = naive.naive_opinion(world.votes, world.arbiter, world.regime, flat, world.meta)
        for column in DECISION_COLUMNS:
            assert_same_bits(opinion[column], getattr(decisions, column), f"{name}: {column}")
        assert_same_as_naive(result, state, *run_naive(world.bars, opinion["raw_action"], opinion["raw_confidence"], world.params))
        carried = TradeState.fresh(world.params, naive.S)
        action, confidence = decisions.raw_action, decisions.raw_confidence
        parts = []
        for start in range(0, N_BARS, 13):
            rows = slice(start, start + 13)
            cut = np.ascontiguousarray
            parts.append(run_trade(world.bars[rows], cut(action[rows]), cut(confidence[rows]), world.params, carried))
        assert_same_bits(np.concatenate([p.equity for p in parts]), result.equity, f"{name}: equity in blocks")
        assert_same_bits(carried.positions.view(np.uint8), state.positions.view(np.uint8), f"{name}: positions after blocks")


if __name__ == "__main__":
    try:
        check_hits()
        first, second = (check_features, check) if "features" in sys.argv else (check, check_features)
        first()
        second()
    except Exception as found:  # a mutant may also crash: noticed all the same
        print(f"{type(found).__name__}: {' '.join(str(found).split())}")
        sys.exit(1)
