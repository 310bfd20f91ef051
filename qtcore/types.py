"""Shared types: the vocabulary of every layer, that is enums, records and bars. Reason codes stand in `qtcore.rules`.

Sizes: n bars in a block, S symbols, M model slots, K fills. Time is int64 ns UTC. NaN means "not known": not listed, a hole, warm-up,
model absent. Whole-block arrays are `[n, S]`; whatever has one value per model or feature keeps one plane each, `[M, n, S]`.
"""

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
Money = tuple[F8, F8, F8, F8, F8, F8]  # what `trade` takes of an opinion in money (`Decisions.money`)
NS_PER_MINUTE = 60_000_000_000
NS_PER_HOUR = 60 * NS_PER_MINUTE
NS_PER_DAY = 24 * NS_PER_HOUR

MODELS = ("xgb", "lgbm", "nhits", "patchtst", "tft")  # known voters in the slots of every [M, ...] array; others: `qtcore.voters`
N_MODELS = 5
DEFAULT_HORIZON = 5  # bars, of label L1
LEAST_PRICE, MOST = 1e-30, 1e30  # prices lie between, volumes below: no market leaves this, and a product of ten still fits a float64
ARBITER_INPUTS = ("rsi", "macd", "macd_signal", "bb_position", "volume_trend", "momentum_1h")
REGIME_INPUTS = ("volatility", "trend_strength")
ADVANCED = (  # `spec` 1.6: what the 32 and 36 meta features add
    "volatility_24h",
    "volatility_72h",
    "volatility_168h",
    "volatility_ratio",
    "volume_ma_24h",
    "volume_ma_72h",
    "volume_momentum",
    "volume_trend",
    "btc_correlation",
)


class InputError(ValueError):
    """A mistake of the caller: the text names the thing, the rule, the value and the remedy."""


class Action(IntEnum):
    """What to do; the index into a probability vector. `side` is `action - 1`."""

    ABSENT = -1
    SELL = 0
    HOLD = 1
    BUY = 2


class Consensus(IntEnum):
    """How far the voters agree (`spec` 4.2)."""

    NO_VALID_MODELS = 0
    WEAK = 1
    SPLIT = 2
    STRONG = 3
    UNANIMOUS = 4
    TIE = 5


class Verdict(IntEnum):
    """What the meta layer does with the ensemble's opinion; NONE when it did not run."""

    NONE = 0
    DEFER = 1
    OVERRIDE = 2
    ESCALATE = 3


class Source(IntEnum):
    """Which layer the final action comes from."""

    ENSEMBLE = 0
    META = 1
    ARBITER = 2
    GOVERNOR_HOLD = 3


NEVER = -(2**63)  # a time before every bar

ACCOUNT = np.dtype(
    [
        ("balance", "f8"),  # quote: initial cash, plus (gross - exit fee) - entry fee of every closed position, plus funding; 0.0 if ruined
        ("equity", "f8"),  # quote: balance plus unrealised PnL at the last close
        ("peak", "f8"),  # quote: highest value of the drawdown basis so far
        ("exposure", "f8"),  # quote: sum of entry notionals, pending entries included
        ("fees", "f8"),  # quote: fees paid so far
        ("slippage", "f8"),  # quote: cost of slippage so far, already inside the fill prices
        ("funding", "f8"),  # quote: funding received less paid so far
        ("day", "i8"),  # UTC day number of the last rollover, -1 before the first bar
        ("trades_today", "i8"),  # approvals on that day
        ("n_bars", "i8"),  # bars seen
        ("n_fills", "i8"),  # fills booked so far
        ("n_trades", "i8"),  # positions opened so far; the next trade_id
        ("n_closed", "i8"),  # positions closed so far; the write position of the ring below
        ("n_cancelled", "i8"),  # approved entries that were never filled
        ("is_halted", "i8"),  # 1 after a drawdown breach, until the reset rule lifts it
        ("n_halted", "i8"),  # bars whose entries were blocked by a drawdown halt
        ("halt_time", "i8"),  # ns UTC of the first breach, NEVER if none
    ],
    align=True,
)

POSITION = np.dtype(
    [
        ("qty", "f8"),  # base units, signed; 0.0 when flat
        ("entry_price", "f8"),  # quote per base unit, slippage included, the mean of what was added; NaN when flat
        ("entry_notional", "f8"),  # quote at entry, unsigned, of what is still held; 0.0 when flat
        ("entry_fee", "f8"),  # quote: fees of the trade so far, less what its closed parts brought; 0.0 when flat
        ("funding", "f8"),  # quote received less paid by this position; 0.0 when flat
        ("stop_price", "f8"),  # quote per base unit; NaN when flat
        ("unrealised", "f8"),  # quote at the last mark, net of the entry fee; 0.0 when flat
        ("pending_notional", "f8"),  # quote to open at the next open, or to close where the exit is REDUCED, signed; 0.0 if none
        ("last_close", "f8"),  # last valid close, NaN before the listing
        ("entry_time", "i8"),  # ns UTC of the fill, NEVER when flat
        ("entry_bar", "i8"),  # bar number of the fill, -1 when flat
        ("pending_exit", "i8"),  # reason code of the exit ordered for the next valid open, 0 if none; plus WAITS at the close that orders
        ("last_loss_time", "i8"),  # ns UTC of the last losing close, NEVER if none
        ("last_bar", "i8"),  # bar number of the last valid close, -1 before the listing
        ("trade_id", "i8"),  # number of the open trade, -1 when flat
    ],
    align=True,
)

CLOSED = np.dtype(
    [
        ("time", "i8"),  # ns UTC of the close
        ("symbol", "i8"),  # column
        ("pnl", "f8"),  # quote, net of fees and funding
        ("ret", "f8"),  # pnl over entry notional, a fraction
    ],
    align=True,
)
WAITS = 256  # `fill = one_bar_later`: what is ordered on the symbol is not for the next open but for the one after it
N_CLOSED = 64  # closed trades remembered for `last_50` and `kelly_empirical`

N_KNOTS = 33  # of the leans 0, 1/32 ... 1 at which a map says how often a trade pays

MAP = np.dtype(  # from an opinion to money (`qtcore.chain.price`), as fitted on what was known at `start`
    [
        ("start", "i8"),  # ns UTC: the decisions from here on, to the next map's
        ("first", "i8"),  # number of the first cell of a block that it is for, set for each block
        ("factors", "f8", (N_MODELS,)),  # of the voters' weights: skill on earlier folds, 0 where a voter lost its seat
        ("slope", "f8"),  # what may be counted on of the return of a trade before costs, for a lean of 1 and a volatility of 1; 0: no edge
        ("variance", "f8"),  # of a trade's result, for a volatility of 1
        ("win", "f8", (N_KNOTS,)),  # probability that a trade pays after costs, by the size of the lean
        ("is_seated", "i8"),  # 1: the meta layer's answer counts
        ("skip", "f8"),  # probability of the meta model at which a bet is left out
        ("full", "f8"),  # probability from which a bet is made whole
        ("arbiter_slope", "f8"),  # as `slope`, for a score of 1; 0 without a seat
        ("arbiter_variance", "f8"),
        ("arbiter_win", "f8", (N_KNOTS,)),
        ("bars", "i8"),  # that a trade on it lasts; 0: as long as `broker.max_holding_bars`
    ],
    align=True,
)

FILL = np.dtype(
    [
        ("time", "i8"),  # ns UTC: bar open for fills at the open, bar close for stops inside the bar, fills at the close and liquidations
        ("bar", "i8"),  # bar number since the engine started
        ("symbol", "i8"),  # column
        ("trade_id", "i8"),
        ("is_entry", "i8"),  # 1 opens or adds, 0 closes, or a part of it
        ("reason", "i8"),  # APPROVED where an entry opens, ADDED where it adds, else the exit's code, REDUCED of a part
        ("qty", "f8"),  # base units, signed: what was bought (+) or sold (-)
        ("price", "f8"),  # quote per base unit, slippage included
        ("reference_price", "f8"),  # the open, stop level or close before slippage
        ("notional", "f8"),  # quote, unsigned: what was approved (entries), abs(qty) times price (exits)
        ("stop_price", "f8"),  # quote per base unit, entries only: where the position will be stopped; NaN for exits
        ("fee", "f8"),  # quote, >= 0
        ("slippage", "f8"),  # quote, >= 0
        ("funding", "f8"),  # quote, exit of what is left only: funding of the whole trade
        ("pnl", "f8"),  # quote, exit of what is left only: ((gross - exit fee) - entry fee) + funding of the whole trade
    ],
    align=True,
)


METRICS = np.dtype(
    [
        ("first_equity", "f8"),  # quote: before the first bar
        ("last_equity", "f8"),  # quote: at the last close
        ("peak", "f8"),  # quote: highest equity so far
        ("max_drawdown", "f8"),  # largest loss from the peak, a fraction of it
        ("sum_ret", "f8"),  # per-bar returns of equity, fractions: their sum and the sums of their powers
        ("sum_ret2", "f8"),
        ("sum_ret3", "f8"),
        ("sum_ret4", "f8"),
        ("sum_exposure", "f8"),  # what was held at the close over equity, summed over bars
        ("turnover", "f8"),  # quote: notional of all fills
        ("fees", "f8"),  # quote
        ("slippage", "f8"),  # quote
        ("funding", "f8"),  # quote received less paid by closed trades
        ("gross_win", "f8"),  # quote: sum of winning PnLs
        ("gross_loss", "f8"),  # quote: sum of losing PnLs, unsigned
        ("n_bars", "i8"),
        ("n_exposed", "i8"),  # bars with something held at the close
        ("n_underwater", "i8"),  # bars since the peak
        ("max_underwater", "i8"),  # longest time below a peak, bars
        ("n_fills", "i8"),
        ("n_trades", "i8"),  # opened
        ("n_closed", "i8"),  # closed to the last part
        ("n_wins", "i8"),  # pnl above 0
        ("n_losses", "i8"),  # pnl below 0
        ("n_shorts", "i8"),  # closed trades that were short
        ("n_stops", "i8"),  # trades closed by their stop
    ],
    align=True,
)

REGIME_METRICS = np.dtype(  # of the cells in one kind of market, from the decision to the next close (`spec` D-94)
    [
        ("pnl", "f8"),  # quote
        ("sum_ret", "f8"),  # share of equity earned there per bar: the sum and the sum of squares
        ("sum_ret2", "f8"),
        ("n_approved", "i8"),  # entries that were let through there
    ],
    align=True,
)


def zeros(dtype: np.dtype, shape: int | tuple[int, ...]) -> NDArray:
    """Make a zeroed structured array whose bytes can be handed to kernels as one uint8 slab (`slab`)."""
    return np.zeros(shape, dtype)


def slab(records: NDArray) -> NDArray[np.uint8]:
    """View records as plain bytes: crossing into a kernel costs 0.27 us instead of 0.8-1.8 (kernels do `.view(ACCOUNT)`)."""
    return records.reshape(-1).view(np.uint8)


@dataclass(frozen=True)
class Bars:
    """A block of closed bars on one grid.

    open_time, close_time [n]: int64 ns UTC, strictly increasing; a bar opened at `open_time` is known at `close_time`.
    open, high, low, close, volume [n, S]: float64, C-contiguous; NaN in all five where a symbol has no bar (a hole).
    symbols: S names in the configured order. funding [n, S]: rate due in (open_time, close_time], 0.0 where none is due.
    origin: the text by which a simulator made these candles, or those that they are a part of; empty for all others. It is a claim, carried
    along: no decision reads it.
    """

    open_time: I8
    close_time: I8
    open: F8
    high: F8
    low: F8
    close: F8
    volume: F8
    symbols: tuple[str, ...]
    interval: int  # ns, the most common step
    funding: F8 | None = None
    origin: str = ""

    @property
    def n(self) -> int:
        """Number of bars."""
        return len(self.open_time)

    def __len__(self) -> int:
        return len(self.open_time)

    def __getitem__(self, rows: slice) -> "Bars":
        """Cut a block of rows; arrays are views."""
        planes = {name: getattr(self, name)[rows] for name in ("open", "high", "low", "close", "volume")}
        funding = None if self.funding is None else self.funding[rows]
        return replace(self, open_time=self.open_time[rows], close_time=self.close_time[rows], funding=funding, **planes)


@dataclass(frozen=True)
class Votes:
    """What the base models said about a block.

    action [M, n, S]: int8, -1 absent. confidence [M, n, S]: float64 in [0, 1], NaN absent. Both of the first of H horizons.
    probs [M, n, S, 3 H]: float64 SELL HOLD BUY of one horizon after the other, NaN absent, or of a voter that takes part in a later
    horizon with what it says of the first; None when the models gave actions only.
    names [M]: who votes in each slot, as `qtcore.voters.slots_of` gives them out. maps: MAP [H * F], what these opinions are worth
    (`qtcore.chain.price`), those of a horizon by `start` and the same starts for each; None where nobody knows.
    """

    action: NDArray[np.int8]
    confidence: F8
    probs: F8 | None = None
    names: tuple[str, ...] = MODELS
    maps: NDArray | None = None

    @classmethod
    def from_probs(cls, probs: F8, names: tuple[str, ...] = MODELS, maps: NDArray | None = None) -> "Votes":
        """Vote with probabilities [M, n, S, 3 H]: the action is the first largest, the confidence its probability (`spec` 3.1)."""
        first = probs[..., :3]
        known = ~np.isnan(first).any(axis=3)
        action = np.where(known, np.argmax(np.where(np.isnan(first), -1.0, first), axis=3), -1).astype(np.int8)
        confidence = np.where(known, np.max(first, axis=3, initial=-1.0, where=~np.isnan(first)), np.nan)
        return cls(action, confidence, probs, names, maps)

    @property
    def n_horizons(self) -> int:
        """Number of horizons H that the voters speak of; 1 where they gave actions only."""
        return 1 if self.probs is None else self.probs.shape[3] // 3

    def __getitem__(self, rows: slice) -> "Votes":
        """Cut a block of rows; arrays are contiguous copies."""
        cut = np.ascontiguousarray
        probs = None if self.probs is None else cut(self.probs[:, rows])
        return Votes(cut(self.action[:, rows]), cut(self.confidence[:, rows]), probs, self.names, self.maps)


DECISION_COLUMNS: dict[str, str] = {
    "ensemble_action": "i1",  # 4.2
    "ensemble_confidence": "f8",
    "consensus": "i1",  # Consensus
    "consensus_count": "i1",  # voters for the winner
    "n_voters": "i1",
    "verdict": "i1",  # Verdict
    "meta_reason": "u1",  # Reason
    "meta_action": "i1",  # the learned model's own class, -1 when it was not asked
    "meta_confidence": "f8",  # its probability (v5, override) or the entropy (policy); NaN when it was not asked
    "arbiter_action": "i1",  # -1 when not invoked
    "arbiter_confidence": "f8",  # NaN when not invoked
    "arbiter_score": "f8",  # NaN when not invoked
    "arbiter_reason": "u1",  # accepted: 40/41; rejected: 45/46; 43/47 without data or when disabled
    "raw_action": "i1",  # before the governor
    "raw_confidence": "f8",
    "source": "i1",  # Source before the governor
}

MONEY_COLUMNS: dict[str, str] = {  # of opinions with a price, that is where `decide.rule` is edge
    "lean": "f8",  # p_buy - p_sell of the ensemble, or its signed confidence
    "gross_edge": "f8",  # return of the trade before costs that may be counted on, a fraction; the seated arbiter's where it is larger
    "edge": "f8",  # the same of the chosen side after fees, slippage and expected funding; NaN without a lean
    "risk": "f8",  # variance of the trade's result, a fraction squared; more where the meta layer shrinks the bet
}
BOOK_COLUMNS: dict[str, str] = {  # of those that one book trades, that is where `governor.book` is cross_section
    "forecast": "f8",  # return that a long may be counted on to earn, expected funding paid, before fees; a fraction, NaN without a lean
    "beta": "f8",  # past beta to the market, NaN where nobody asks
}
HORIZON_COLUMNS: dict[str, str] = {"holding": "f8"}  # of voters with several horizons: bars that a trade on the opinion lasts


class Code(IntEnum):
    """Rows of the slab `codes [11, n, S]`: the integer columns of `Decisions` in order."""

    ENSEMBLE_ACTION = 0
    CONSENSUS = 1
    CONSENSUS_COUNT = 2
    N_VOTERS = 3
    VERDICT = 4
    META_REASON = 5
    META_ACTION = 6
    ARBITER_ACTION = 7
    ARBITER_REASON = 8
    RAW_ACTION = 9
    SOURCE = 10


class Value(IntEnum):
    """Rows of the slab `values`: the float64 columns of `Decisions` in order, [12, n, S].

    The first 11 where voters have one horizon, 9 without a book, 5 without money.
    """

    ENSEMBLE_CONFIDENCE = 0
    META_CONFIDENCE = 1
    ARBITER_CONFIDENCE = 2
    ARBITER_SCORE = 3
    RAW_CONFIDENCE = 4
    LEAN = 5
    GROSS_EDGE = 6
    EDGE = 7
    RISK = 8
    FORECAST = 9
    BETA = 10
    HOLDING = 11


N_UNPRICED, N_ALONE, N_BOOK = 5, 9, 11  # rows of `values` without an opinion in money, without a book, and with one horizon


def n_values(is_priced: bool, is_book: bool, has_horizons: bool) -> int:
    """Return how many rows of `values` an opinion has: in money, of a book, of one among several horizons, which brings all rows."""
    return len(Value) if has_horizons else N_BOOK if is_book else N_ALONE if is_priced else N_UNPRICED


_CODES = tuple((row.name.lower(), np.dtype(DECISION_COLUMNS[row.name.lower()])) for row in Code)
_VALUES = tuple(row.name.lower() for row in Value)


@dataclass(frozen=True)
class Decisions:
    """The opinion on every cell of a block; each field is `[n, S]`.

    Dtypes and meaning stand in `DECISION_COLUMNS`, `MONEY_COLUMNS`, `BOOK_COLUMNS` and `HORIZON_COLUMNS`.
    """

    ensemble_action: NDArray[np.int8]
    ensemble_confidence: F8
    consensus: NDArray[np.int8]
    consensus_count: NDArray[np.int8]
    n_voters: NDArray[np.int8]
    verdict: NDArray[np.int8]
    meta_reason: NDArray[np.uint8]
    meta_action: NDArray[np.int8]
    meta_confidence: F8
    arbiter_action: NDArray[np.int8]
    arbiter_confidence: F8
    arbiter_score: F8
    arbiter_reason: NDArray[np.uint8]
    raw_action: NDArray[np.int8]
    raw_confidence: F8
    source: NDArray[np.int8]
    lean: F8 | None = None
    gross_edge: F8 | None = None
    edge: F8 | None = None
    risk: F8 | None = None
    forecast: F8 | None = None
    beta: F8 | None = None
    holding: F8 | None = None

    @classmethod
    def empty(cls, n: int, n_symbols: int, is_priced: bool = False, is_book: bool = False, has_horizons: bool = False) -> "Decisions":
        """Allocate uninitialised outputs for `n` bars; kernels write every cell. The columns are views of two slabs.

        is_priced: with the four columns of the opinion in money; is_book: with the two that a book reads beside them; has_horizons: with
        all of these, and the length of the horizon that speaks.
        """
        rows = n_values(is_priced, is_book, has_horizons)
        codes, values = np.empty((len(Code), n, n_symbols), np.int8), np.empty((rows, n, n_symbols))
        columns: dict[str, NDArray] = {name: plane.view(dtype) for (name, dtype), plane in zip(_CODES, codes)}
        return cls(**columns | dict(zip(_VALUES, values)))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the fields that hold something."""
        groups = (MONEY_COLUMNS, self.edge), (BOOK_COLUMNS, self.forecast), (HORIZON_COLUMNS, self.holding)
        return (*DECISION_COLUMNS, *(name for names, plane in groups if plane is not None for name in names))

    @property
    def money(self) -> Money:
        """Gross edge, net edge, risk, forecast, beta and holding, each [n, S]; (0, 0) where nobody asks."""
        planes = (self.gross_edge, self.edge, self.risk, self.forecast, self.beta, self.holding)
        gross, edge, risk, forecast, beta, holding = (np.empty((0, 0)) if plane is None else plane for plane in planes)
        return gross, edge, risk, forecast, beta, holding

    @property
    def slabs(self) -> tuple[NDArray[np.int8], F8]:
        """The slabs `codes [11, n, S]` and `values [5, 9, 11 or 12, n, S]` behind the columns.

        Raises InputError when not made by `empty`.
        """
        codes, values = self.raw_action.base, self.raw_confidence.base
        shape, rows = self.raw_action.shape, n_values(self.edge is not None, self.forecast is not None, self.holding is not None)
        if codes is None or values is None or codes.shape != (len(Code), *shape) or values.shape != (rows, *shape):
            raise InputError(f"decisions must come whole from Decisions.empty, was of shape {list(shape)} from elsewhere")
        return codes, values
