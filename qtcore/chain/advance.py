"""Single-bar kernel: features, opinion and account of one closed bar in one compiled call, on arrays that are made once.

Nothing is decided here: `advance` calls the functions that a block goes through, on the same state, so its bits are the same.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.chain.decide import decide_block
from qtcore.chain.horizons import hears_horizons, n_bids
from qtcore.chain.patterns import pattern_table
from qtcore.chain.price import BETA, BETA_NAME, FUNDING, N_PRICING, VOLATILITY, VOLATILITY_NAME, no_map
from qtcore.chain.trade import UNASKED, TradeState, trade
from qtcore.choices import BookKind, DecideRule, Neutral
from qtcore.features import OUT
from qtcore.features import advance as compute_block
from qtcore.jit import kernel
from qtcore.params import PARAMS
from qtcore.rules import Reason
from qtcore.types import ACCOUNT, CLOSED, F8, FILL, I8, MAP, N_ALONE, N_BOOK, N_MODELS, N_UNPRICED, POSITION, Code, Value, n_values, slab


@kernel
def advance(
    prices, times, funding, traded, action, confidence, said, probs, problem, maps, volatility, beta, params, table, memory, valid, account,
    positions, closed, lasts, scratch, patterns, found, pricing, filled, bids, codes, values, governed, amounts, lines, fills,
):  # fmt: skip
    """Run a bar through features, opinion and account. Returns the number of fills.

    prices [5, 1, S]: open, high, low, close, volume; times [2, 1]: open and close, ns UTC; funding [1, S] or (0, 0), traded (0, 0). action,
    confidence [5, S], said [5, 3 H S]: votes; probs [3, 1], problem, patterns, found, pricing, filled, bids: what `decide_block` takes
    without a meta model. maps: MAP [F, H] by `start`, as bytes, the first also for what lies before it; volatility, beta: numbers of their
    planes, -1 where nobody reads them. table, memory: the feature bank's, with room for the bar's planes. params, account, positions,
    closed, fills: records as plain bytes (`slab`); lasts [S]: `TradeState.lasts`.
    Outputs: valid [1, S]; codes [11, S], values [5, 9, 11 or 12, S]: the decisions; governed [2, 1, S] int8: final action and governor's
    reason; amounts [2, 1, S]: size and pnl; lines [4, 1]: equity, balance, exposure, worth.
    """
    n, n_symbols = prices.shape[1], prices.shape[2]
    block = n * n_symbols
    compute_block(prices[0], prices[1], prices[2], prices[3], prices[4], times[1], table, memory, valid)
    at = table[OUT]
    arbiter = memory[at : at + 6 * block].reshape(6, block)
    regime = memory[at + 6 * block : at + 8 * block].reshape(2, block)
    record = params.view(PARAMS)
    known, is_priced = maps.view(MAP), len(values) > N_UNPRICED
    is_book, has_horizons = len(values) > N_ALONE, len(values) > N_BOOK
    n_priced, n_in_book, n_long = n if is_priced else 0, n if is_book else 0, n if has_horizons else 0
    money = values[Value.GROSS_EDGE.value if is_priced else len(values) : N_ALONE].reshape(3, n_priced, n_symbols)
    book = values[Value.FORECAST.value if is_book else len(values) : N_BOOK].reshape(2, n_in_book, n_symbols)
    holding = values[Value.HOLDING.value if has_horizons else len(values) :].reshape(n_long, n_symbols)
    f, step = np.int64(0), max(said.shape[1] // (3 * n_symbols), 1)
    while f + step < len(known) and known[f + step]["start"] <= times[1, 0]:
        f += step
    for i in range(pricing.shape[1]):
        pricing[VOLATILITY, i] = memory[at + volatility * block + i]
        pricing[FUNDING, i] = 0.0
        pricing[BETA, i] = memory[at + beta * block + i] if beta >= 0 else np.nan
    decide_block(
        action, confidence, said, arbiter, regime, probs, problem, pricing, known[f : f + step], 0, record, codes, values, patterns, found,
        filled, bids,
    )  # fmt: skip
    raw_action = codes[Code.RAW_ACTION].reshape(n, n_symbols)
    raw_confidence = values[Value.RAW_CONFIDENCE].reshape(n, n_symbols)
    return trade(
        prices[0], prices[1], prices[2], prices[3], funding, traded, times[0], times[1], raw_action, raw_confidence, money[0], money[1],
        money[2], book[0], book[1], holding, record,
        account.view(ACCOUNT), positions.view(POSITION), closed.view(CLOSED), lasts, scratch,
        governed[0], governed[1].view(np.uint8), amounts[0], amounts[1], lines[0], lines[1], lines[2], lines[3], fills.view(FILL),
    )  # fmt: skip


class Stepper:
    """Buffers for one bar of S symbols around the state of an engine; write the bar into them, call `step`, read the answer.

    prices [5, 1, S], times [2, 1], action, confidence [5, S], probs [5, S, 3 H]: the bar and its votes; probs, NaN where a voter gave none,
    are read where the opinion has a price. codes [11, S], values [5, 9, 11 or 12, S]: rows as in `Code` and `Value`. final_action, reasons,
    size, pnl [S]; lines [4, 1]: equity, balance, exposure, worth. fills: FILL [3 S].
    """

    def __init__(self, record: NDArray, bank: Any, account: TradeState, clock: I8, maps: NDArray, n_horizons: int = 1) -> None:
        n_symbols = len(account.positions)
        is_priced = record[0]["decide"]["rule"] == DecideRule.EDGE
        is_book, neutral = record[0]["governor"]["book"] == BookKind.CROSS_SECTION, record[0]["governor"]["neutral"]
        reads_beta = is_book and neutral in (Neutral.BETA, Neutral.DOLLAR_BETA)
        n_read = n_symbols if is_priced else 0
        by_start = [part.reshape(n_horizons, -1) for part in (no_map(n_horizons), maps)]  # before the first map there is no edge
        self._clock, known = clock, np.ascontiguousarray(np.concatenate(by_start, axis=1).T).reshape(-1)
        self.prices, self.times = np.full((5, 1, n_symbols), np.nan), np.zeros((2, 1), np.int64)
        self.action, self.confidence = np.full((N_MODELS, n_symbols), -1, np.int8), np.full((N_MODELS, n_symbols), np.nan)
        self.probs = np.full((N_MODELS, n_symbols, 3 * n_horizons), np.nan)
        self.codes = np.empty((len(Code), n_symbols), np.int8)
        self.values = np.empty((n_values(is_priced, is_book, hears_horizons(record, n_horizons)), n_symbols))
        self.governed, self.amounts, self.lines = np.empty((2, 1, n_symbols), np.int8), np.empty((2, 1, n_symbols)), np.empty((4, 1))
        self.fills = np.empty(3 * n_symbols, FILL)
        state = map(slab, (account.account, account.positions, account.closed))
        self._arguments = (
            self.prices, self.times, np.empty((0, 0)), UNASKED, self.action, self.confidence, self.probs.reshape(N_MODELS, -1),
            np.full((3, 1), np.nan), np.array([Reason.MODEL_NOT_LOADED], np.int64), slab(known),
            bank.slots[VOLATILITY_NAME] if n_read else -1, bank.slots[BETA_NAME] if reads_beta else -1, slab(record),
            *bank.room(1), np.empty((1, n_symbols), np.bool_), *state, account.lasts,
            np.empty((2, n_symbols), np.uintp), pattern_table(record), np.empty(n_symbols, np.int32), np.full((N_PRICING, n_read), np.nan),
            np.empty((N_MODELS, 3 * n_read)), np.empty((n_bids(n_horizons), n_read)), self.codes, self.values, self.governed,
            self.amounts, self.lines, slab(self.fills),
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
