"""Single-bar kernel: features, opinion and account of one closed bar in one compiled call, on arrays that are made once.

Nothing is decided here: `advance` calls the functions that a block goes through, on the same state, so its bits are the same.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.chain.decide import decide_block
from qtcore.chain.patterns import pattern_table
from qtcore.chain.trade import TradeState, trade
from qtcore.features import OUT
from qtcore.features import advance as compute_block
from qtcore.jit import kernel
from qtcore.params import PARAMS
from qtcore.rules import Reason
from qtcore.types import ACCOUNT, CLOSED, F8, FILL, I8, N_MODELS, POSITION, Code, Value, slab


@kernel
def advance(
    prices, times, funding, action, confidence, probs, problem, params, table, memory, valid, account, positions, closed, scratch,
    patterns, found, codes, values, governed, amounts, lines, fills,
):  # fmt: skip
    """Run a block through features, opinion and account. Returns the number of fills.

    prices [5, n, S]: open, high, low, close, volume; times [2, n]: open and close, ns UTC; funding [n, S] or (0, 0). action, confidence
    [5, n * S]: votes; probs [3, 1], problem, patterns, found: what `decide_block` takes without a meta model. table, memory: the feature
    bank's, with room for the block's planes. params, account, positions, closed, fills: records as plain bytes (`slab`).
    Outputs: valid [n, S]; codes [11, n * S], values [5, n * S]: the decisions; governed [2, n, S] int8: final action and governor's
    reason; amounts [2, n, S]: size and pnl; lines [3, n]: equity, balance, exposure.
    """
    n, n_symbols = prices.shape[1], prices.shape[2]
    block = n * n_symbols
    compute_block(prices[1], prices[2], prices[3], prices[4], table, memory, valid)
    at = table[OUT]
    arbiter = memory[at : at + 6 * block].reshape(6, block)
    regime = memory[at + 6 * block : at + 8 * block].reshape(2, block)
    record = params.view(PARAMS)
    decide_block(action, confidence, arbiter, regime, probs, problem, record, codes, values, patterns, found)
    raw_action = codes[Code.RAW_ACTION].reshape(n, n_symbols)
    raw_confidence = values[Value.RAW_CONFIDENCE].reshape(n, n_symbols)
    return trade(
        prices[0], prices[1], prices[2], prices[3], funding, times[0], times[1], raw_action, raw_confidence, record,
        account.view(ACCOUNT), positions.view(POSITION), closed.view(CLOSED), scratch,
        governed[0], governed[1].view(np.uint8), amounts[0], amounts[1], lines[0], lines[1], lines[2], fills.view(FILL),
    )  # fmt: skip


class Stepper:
    """Buffers for one bar of S symbols around the state of an engine; write the bar into them, call `step`, read the answer.

    prices [5, 1, S], times [2, 1], action, confidence [5, S]: the bar and its votes. codes [11, S], values [5, S]: rows as in `Code` and
    `Value`. final_action, reasons, size, pnl [S]; lines [3, 1]: equity, balance, exposure. fills: FILL [3 S].
    """

    def __init__(self, record: NDArray, bank: Any, account: TradeState, clock: I8) -> None:
        n_symbols = len(account.positions)
        self._clock = clock
        self.prices, self.times = np.full((5, 1, n_symbols), np.nan), np.zeros((2, 1), np.int64)
        self.action, self.confidence = np.full((N_MODELS, n_symbols), -1, np.int8), np.full((N_MODELS, n_symbols), np.nan)
        self.codes, self.values = np.empty((len(Code), n_symbols), np.int8), np.empty((len(Value), n_symbols))
        self.governed, self.amounts, self.lines = np.empty((2, 1, n_symbols), np.int8), np.empty((2, 1, n_symbols)), np.empty((3, 1))
        self.fills = np.empty(3 * n_symbols, FILL)
        state = map(slab, (account.account, account.positions, account.closed))
        self._arguments = (
            self.prices, self.times, np.empty((0, 0)), self.action, self.confidence, np.full((3, 1), np.nan),
            np.array([Reason.MODEL_NOT_LOADED], np.int64),
            slab(record), *bank.room(1), np.empty((1, n_symbols), np.bool_), *state,
            np.empty((2, n_symbols), np.uintp), pattern_table(record), np.empty(n_symbols, np.int32),
            self.codes, self.values, self.governed, self.amounts, self.lines, slab(self.fills),
        )  # fmt: skip

    def step(self) -> int:
        """Run the bar that lies in the buffers. Returns the number of fills."""
        n_fills: int = advance(*self._arguments)
        self._clock[0] = self.times[1, 0]
        return n_fills

    @property
    def final_action(self) -> NDArray[np.int8]:
        """What the governor let through, [S]."""
        return self.governed[0, 0]

    @property
    def reasons(self) -> NDArray[np.uint8]:
        """The governor's reasons, [S]."""
        return self.governed[1, 0].view(np.uint8)

    @property
    def size(self) -> F8:
        """Approved notional, signed, [S]."""
        return self.amounts[0, 0]
