"""Parameter sweep kernels: what each of a million settings would have earned.

Votes, their patterns, features and the arbiter's score are computed once (`market`). Two drivers inline the same rules: settings as SIMD
lanes (`lanes`, of books `book_lanes`), and the backtest's own kernels under a parallel loop over settings (`plain`); `rows` says which one
a setting takes. A setting leaves one METRICS record, so memory does not grow with their number, and it is the backtest of its parameters,
to the bit, whichever driver and thread runs it.
"""

from qtcore.sweep.market import Market
from qtcore.sweep.plain import note_ends
from qtcore.sweep.rows import Driver
from qtcore.sweep.run import drivers, equity_at, run_order, sweep, sweep_with_equity

__all__ = ["Driver", "Market", "drivers", "equity_at", "note_ends", "run_order", "sweep", "sweep_with_equity"]
