"""Horizons of one opinion: in every cell the one with the largest edge speaks.

A model that looks several horizons ahead is one voter. The ensemble is formed once for each horizon, with what every voter says of it, and
valued by the maps of that horizon; who says nothing of a later one takes part with what it says of the first. Costs are the same for all,
so what a horizon earns before costs, expected funding paid, decides; of equals the earlier speaks. Its lean is the opinion, its length the
time that the trade lasts. Only an opinion in money, of the mean, can choose: every other profile reads the first horizon alone.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from qtcore.chain.price import BARS, N_BIDS, Bid, agreement_rule, average_block, map_at, net_rule, value
from qtcore.choices import DecideRule, EnsembleRule
from qtcore.jit import kernel
from qtcore.types import Code, Value


class Best(IntEnum):
    """Rows of `bids` after the seven of the opinion that speaks and the seven of the next horizon: what spoke said, beside its bid."""

    BARS = BARS
    ACTION = BARS + 1
    COUNT = BARS + 2
    CONFIDENCE = BARS + 3
    LEAN = BARS + 4


def n_bids(n_horizons: int) -> int:
    """Return how many rows of `bids` so many horizons need."""
    return BARS + len(Best) if n_horizons > 1 else N_BIDS


def hears_horizons(record: NDArray, n_horizons: int) -> bool:
    """Whether several horizons may speak under these parameters, PARAMS [1]."""
    is_mean, is_priced = record[0]["ensemble"]["rule"] == EnsembleRule.MEAN, record[0]["decide"]["rule"] == DecideRule.EDGE
    return bool(n_horizons > 1 and is_mean and is_priced)


@kernel
def n_heard(action, said, params):
    """Return how many horizons the parameters let speak. action [5, N], said [5, 3 H N]."""
    is_heard = (params[0]["ensemble"]["rule"] == EnsembleRule.MEAN) & (params[0]["decide"]["rule"] == DecideRule.EDGE)
    return max(said.shape[1] // (3 * max(action.shape[1], 1)), 1) if is_heard else 1


@kernel
def n_maps(maps, action, said):
    """Return how many of the maps MAP [H * F] are for each horizon, F. action [5, N], said [5, 3 H N]."""
    return len(maps) // max(said.shape[1] // (3 * max(action.shape[1], 1)), 1)


@kernel(inline=True)
def gain_rule(bid, carry):
    """Return what a bid earns before costs, expected funding paid; 0.0 without a bid."""
    return net_rule(bid, 0.0, carry) if bid != 0.0 else 0.0


@kernel
def stand(bids, codes, values, bars, start, stop):
    """Note for the cells [start, stop) that the first horizon speaks, which lasts so many bars; see `hear`."""
    for i in range(np.uintp(start), np.uintp(stop)):
        note(bids, codes, values, bars, i, i - np.uintp(start))


@kernel(inline=True)
def note(bids, codes, values, bars, i, j):
    """Note what the ensemble says of cell i, which is column j of `bids`, as what speaks."""
    bids[Best.BARS, j] = bars
    bids[Best.ACTION, j] = codes[Code.ENSEMBLE_ACTION, i]
    bids[Best.COUNT, j] = codes[Code.CONSENSUS_COUNT, i]
    bids[Best.CONFIDENCE, j] = values[Value.ENSEMBLE_CONFIDENCE, i]
    bids[Best.LEAN, j] = values[Value.LEAN, i]


@kernel
def outbid(bids, codes, values, maps, offset, start, stop):
    """Let the horizon that was valued last speak in those of the cells [start, stop) where it earns more than what spoke before."""
    first = start
    while first < stop:
        f, end = map_at(maps, first + offset)
        last, bars = min(stop, end - offset), float(maps[f]["bars"])
        for i in range(np.uintp(first), np.uintp(last)):
            j = i - np.uintp(start)
            bid, rate = bids[N_BIDS + Bid.ENSEMBLE, j], bids[Bid.CARRY, j]
            before = gain_rule(bids[Bid.ENSEMBLE, j], bids[Best.BARS, j] * rate)
            if bid != 0.0 and gain_rule(bid, bars * rate) > before:
                note(bids, codes, values, bars, i, j)
                for row in range(Bid.ARBITER):
                    bids[row, j] = bids[N_BIDS + row, j]
        first = last


@kernel
def speak(bids, codes, values, start, stop):
    """Write what speaks in the cells [start, stop) as the ensemble's opinion."""
    for i in range(np.uintp(start), np.uintp(stop)):
        j = i - np.uintp(start)
        n = np.int64(bids[Best.COUNT, j])
        codes[Code.ENSEMBLE_ACTION, i] = np.int8(bids[Best.ACTION, j])
        codes[Code.CONSENSUS_COUNT, i] = n
        codes[Code.CONSENSUS, i] = agreement_rule(n, np.int64(codes[Code.N_VOTERS, i]))
        values[Value.ENSEMBLE_CONFIDENCE, i] = bids[Best.CONFIDENCE, j]
        values[Value.LEAN, i] = bids[Best.LEAN, j]


@kernel
def hear(action, confidence, said, score, pays, pricing, maps, offset, params, codes, values, filled, bids, start, stop):
    """Let the horizons after the first speak in the cells [start, stop) where they earn more.

    codes, values: hold the ensemble of the first horizon, and then that of the horizon that speaks; bids [19, >= stop - start]: as `value`
    wrote them for the first, its arbiter included, and then of the horizon that speaks. maps MAP [H * F], the rest as `average_block` and
    `value` take it.
    """
    stand(bids, codes, values, float(params[0]["broker"]["max_holding_bars"]), start, stop)
    n = n_maps(maps, action, said)
    for horizon in range(1, n_heard(action, said, params)):
        own = maps[horizon * n : (horizon + 1) * n]
        average_block(action, confidence, said, horizon, own, offset, params, codes, values, filled, start, stop)
        value(values[Value.LEAN], pricing, score, pays, own, offset, params, bids[N_BIDS:], start, stop, 0)
        outbid(bids, codes, values, own, offset, start, stop)
    speak(bids, codes, values, start, stop)
