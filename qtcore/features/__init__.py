"""Feature bank: bars in, one plane `[n, S]` per feature out, never looking ahead (`spec` 1).

    bank = FeatureBank(params, symbols, interval_ns)         # the set of params.features, arbiter and regime inputs
    planes = bank.compute(bars)                              # the next block; what it leaves behind is in bank.state
    planes["rsi"], planes.valid, planes.arbiter, planes.regime
    matrix(planes, FEATURE_SETS["v5_rel"])                   # [n, S, 18] float32 for a model

`registry` names every feature with its formula, `recipes` says how each is made, one line per name, `plan` turns the wanted ones into a
list of operations, `tape` runs it: `primitives` (arithmetic and windows), `recursions` (exponential means), `regime` (ranks), `holes`
(windows with missing values). A feature that needs no new primitive is one line in `registry` and one in `recipes`; a researcher's own is a
`Feature(name, function, lookback)` handed to the bank.

Windows are summed anew at every bar, from shorter windows: 20 values are five sums of four. Nothing runs on, so a value depends on its
window alone, whatever the cuts, and a flat price has a deviation of exactly 0.

One bar inside another kernel: `table, memory = bank.room(1)` once, then `advance(open_, high, low, close, volume, close_time, table,
memory, valid)` with arrays `[1, S]`, times `[1]` and bool `valid`. The planes then lie in `memory` from `table[OUT]` on, `[planes, 1, S]`:
0 to 5 the arbiter's inputs in the order of ARBITER_INPUTS, 6 and 7 the regime's, then the rest as `bank.slots` says. Features that `tape`
does not make (`volume_slope_7`, `btc_correlation`, own ones) need `bank.compute`. A later `compute` of a longer block makes a new memory:
ask for the room again.
"""

from qtcore.features.bank import FeatureBank, Planes
from qtcore.features.custom import Feature
from qtcore.features.matrix import matrix
from qtcore.features.registry import ALIASES, FEATURE_SETS, FEATURES, chosen
from qtcore.features.table import OUT
from qtcore.features.tape import advance

__all__ = ["ALIASES", "FEATURES", "FEATURE_SETS", "OUT", "Feature", "FeatureBank", "Planes", "advance", "chosen", "matrix"]
