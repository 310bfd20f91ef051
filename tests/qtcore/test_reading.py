"""Is a parameter read where its declaration says, and nowhere else? Every one is changed under many others, and runs are compared."""

from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest

from qtcore.chain.decide import decide
from qtcore.chain.trade import TradeState, run_trade
from qtcore.declare import value_text
from qtcore.features import FeatureBank
from qtcore.params import Params
from qtcore.reading import WHEN, is_read, unread
from qtcore.rules import Reason
from tests.qtcore.test_lanes import SPECS, USUAL, changed, others
from tests.support import PUBLISHED
from tests.support.priced import PRICED, priced_world

N_SYMBOLS = 40  # of which 50 trades are closed within a cooldown
HELD = {"broker.max_holding_bars": 5, "governor.min_confidence": 0.4}
BASES = {
    "published": {},
    "without meta layer": {"meta.enabled": False},
    "without arbiter": {"arbiter.enabled": False},
    "learned": {"meta.variant": "learned"},
    "on scores": {"meta.policy_base": "score", "meta.missing_fill": "hold_half"},
    "override": {"meta.mode": "override"},
    "v5": {"meta.mode": "v5", "arbiter.enabled": False},
    "by confidence": {"governor.sizing_mode": "kelly_confidence", "governor.order": "by_confidence"},
    "empirical": {"governor.sizing_mode": "kelly_empirical", "governor.cooldown_scope": "last_50"},
    "without cooldown": {"governor.cooldown_minutes": 0, "broker.fill": "close"},
    "priced": PRICED,
    "priced, of votes": PRICED | {"ensemble.rule": "vote"},
    "priced, alone": PRICED | {"meta.enabled": False, "arbiter.enabled": False},
    "priced, sized by odds": PRICED | {"governor.sizing_mode": "kelly_win_rate", "governor.order": "symbols"},
    "book": PRICED | {"governor.book": "cross_section", "governor.target_volatility": 0.5},
    "book, of votes": PRICED
    | {"ensemble.rule": "vote", "governor.book": "cross_section", "governor.rebalance_bars": 3, "governor.target_volatility": 0.1},
    "priced, empirical": PRICED | {"governor.sizing_mode": "kelly_empirical"},
}
ACCOUNTS = (  # under which other limits bind
    {"governor.max_daily_trades": 100, "governor.max_exposure": 5.0, "governor.max_drawdown": 1.0},
    {"governor.max_daily_trades": 100, "governor.max_exposure": 0.1, "governor.max_drawdown": 0.01},
    {"governor.max_daily_trades": 3, "governor.kelly_fraction": 0.02},
    {"governor.cooldown_minutes": 3_000, "broker.max_holding_bars": 1, "governor.max_daily_trades": 1_000, "governor.max_exposure": 9.0},
)
UNSEEN = (  # read, and yet they may move nothing here
    "features.",  # what models see: these votes are given; the arbiter sees the averages of two of them
    "governor.flatten_on_kill",  # a switch that is thrown before the first bar finds nothing open; live throws it later
    "decide.rule", "ensemble.rule", "meta.mode", "broker.fill",  # their other values go with other parameters alone
)  # fmt: skip


@cache
def world():
    w = priced_world(200, N_SYMBOLS, seed=11)
    w.bars = replace(w.bars, symbols=tuple(f"BTC{s}" for s in range(N_SYMBOLS)))
    return w


@cache
def planes_of(features, arbiter):
    params, bars = Params(features=features, arbiter=arbiter), world().bars
    return FeatureBank(params, bars.symbols, bars.interval, ()).compute(bars)


def ran(params):
    """Everything that decisions and trades leave, as bytes."""
    w = world()
    planes = planes_of(params.features, Params().with_values({"arbiter.macd_units": params.arbiter.macd_units}).arbiter)
    told = partial(decide, w.votes, planes.arbiter, planes.regime, params, w.probs, meta_problem=Reason.PREDICTION_ERROR)
    d, state = told(pricing=w.pricing, maps=w.maps), TradeState.fresh(params, len(w.bars.symbols))
    result = run_trade(w.bars, d.raw_action, d.raw_confidence, params, state, money=d.money)
    arrays = (*d.slabs, *vars(result).values(), *vars(state).values())
    return b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)


def values_of(name):
    """Other values of a parameter, the published one too."""
    if name == "features.benchmark":
        return list(world().bars.symbols[:3])
    if name == "features.sets":
        return ["v5_rel,clock", "volatility"]
    return [*others(name), USUAL[name]]


@pytest.mark.parametrize("base", BASES)
def test_what_is_declared_unread_moves_no_bit_and_what_is_read_moves_some(base):
    moved, read = set(), set()
    for account in ACCOUNTS:
        params = PUBLISHED.with_values(HELD | BASES[base] | account)
        before = ran(params)
        for name in [name for name in SPECS if name not in moved or not is_read(params, name)]:
            rows = [row for value in values_of(name) if (row := changed(params, name, value)) is not None]
            moves = any(ran(row) != before for row in rows)
            assert is_read(params, name) or not moves, f"{name} is declared unread, and it moved something"
            moved |= {name} if moves else set()
            read |= {name} if is_read(params, name) else set()
    assert read - moved <= {name for name in read if name.startswith(UNSEEN)}


@pytest.mark.parametrize("base", BASES)
def test_the_remedy_of_every_parameter_makes_it_read(base):
    params = PUBLISHED.with_values(HELD | BASES[base])
    for name in WHEN:
        for sentence in unread(params, [name]):
            said, _, remedy = sentence.partition("; ")
            profile = remedy.removeprefix("take --profile ").split(" ")[0] if remedy.startswith("take") else None
            sets = remedy.rpartition("set ")[2] if "set " in remedy else ""
            after = params if profile is None else Params.profile(profile)
            after = after.with_values(dict(pair.split("=") for pair in sets.split(" and ") if pair))
            assert is_read(after, name), sentence
            where, _, value = said.partition(" where ")[2].partition(" is ")
            layer, key = where.split(".")
            assert value == value_text(getattr(getattr(params, layer), key))


def test_a_stage_that_reads_a_parameter_is_enough():
    off = PUBLISHED.with_values({"arbiter.enabled": False, "arbiter.gate_confidence": 0.8})
    assert unread(off) == ("arbiter.gate_confidence is set and not read where arbiter.enabled is off; set arbiter.enabled=on",)
    assert unread(off.with_values({"stages": [("2024-03-01", True, True)]})) == ()
    assert unread(Params.profile("original")) == ()
