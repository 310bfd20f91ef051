"""Memory layout of a chunk of lanes: every row is 64 float64, at a constant offset from the start of its flat array."""

LANES = 64  # 8 are too few to be worth the scalar part of a pass, 64 were best (2026-11)

SETTINGS = (  # rows of a chunk's parameters [N_SETTINGS * 64], by the names of those declared as rows; times in units of `rows.time_unit`
    "low_confidence", "score_threshold", "gate_confidence", "min_confidence", "max_position", "max_exposure", "max_drawdown",
    "kelly_fraction", "win_rate", "payoff", "cooldown_minutes", "max_daily_trades", "stop_loss", "initial_cash",
    "fee_rate", "slippage_rate", "max_holding_bars", "delist_after", "min_edge", "band", "target_volatility",
)  # fmt: skip
(
    LOW_CONFIDENCE, SCORE_THRESHOLD, GATE_CONFIDENCE, MIN_CONFIDENCE, MAX_POSITION, MAX_EXPOSURE, MAX_DRAWDOWN,
    KELLY_FRACTION, WIN_RATE, PAYOFF, COOLDOWN, MAX_DAILY_TRADES, STOP_LOSS, INITIAL_CASH,
    FEE_RATE, SLIPPAGE_RATE, MAX_HOLDING_BARS, DELIST_AFTER, MIN_EDGE, BAND, TARGET_VOLATILITY,
) = range(0, len(SETTINGS) * LANES, LANES)  # fmt: skip

# Rows of a symbol's positions [N_POSITION * 64]. EXIT: 1 + bar in which an exit was ordered, 0 none. LOSS: time of the last loss.
# WISH, SURE, SCALE, SCREENED: the bar's opinion, its side, confidence and factor of size, and what the screen says to it; where edges are
# sized, SURE is the Kelly share.
QTY, ENTRY, NOTIONAL, OPENED, EXIT, PENDING, LOSS, PAID, WISH, SURE, SCALE, SCREENED, N_POSITION = range(0, 13 * LANES, LANES)
# A book needs others in their place. EXIT: the code of the exit, whose part PENDING is where it is REDUCED. TRADE_FEE: `entry_fee`.
# EXCESS: the forecast, then what neutrality leaves of it; RISK: its variance, 0.0 where the opinion takes no part. MOVE: quote, signed,
# that the position is to grow by.
TRADE_FEE, EXCESS, RISK, MOVE = NOTIONAL, WISH, SURE, SCALE

RESULTS = (  # the first rows of a chunk's account: METRICS, counts as float64
    "last_equity", "peak", "max_drawdown", "sum_ret", "sum_ret2", "sum_ret3", "sum_ret4", "sum_exposure", "turnover", "fees", "slippage",
    "funding", "gross_win", "gross_loss", "n_exposed", "n_underwater", "max_underwater", "n_trades", "n_wins", "n_losses", "n_shorts",
    "n_stops", "n_fills", "n_closed",
)  # fmt: skip
(
    LAST, TOP, DRAWDOWN, RET, RET2, RET3, RET4, SHARE, TURNOVER, FEES, SLIPPAGE, FUNDING, GROSS_WIN, GROSS_LOSS, EXPOSED, UNDER, LONGEST,
    ENTERED, WINS, LOSSES, SHORTS, STOPS, FILLS, ENDED, BALANCE, EQUITY, PEAK, EXPOSURE, TRADES, HALTED, UNREALISED, COMMITTED, WORTH,
    RECEIVED, LEAVES, REFERENCE, BY_STOP, HIGHEST, LOWEST, KELLY, ONES, BETAS, SQUARES, MONEY, TILT, LARGEST, TOTAL, VARIANCE, LEVEL, SLOPE,
    PART, COST, KEPT, MORE, ASKED, ROOM, CHOOSES, N_ACCOUNT,
) = range(0, (len(RESULTS) + 34) * LANES, LANES)  # fmt: skip
# Of a book, from ONES on: sums of `terms_rule` and `share_of`; its multipliers and share; cost of one side times the band; weights that
# stay, weights asked for beside them, their number, the share of them that there is room for, and whether there are trades for some alone.

NOT_DUE = 2**62  # a bar that never comes

# Switches of a chunk: what must be the same in all lanes, by the names of the parameters that are declared so; their codes.
SWITCHES = ("emergency_stop", "allow_short", "sizing_mode", "exposure_mode", "drawdown_basis", "drawdown_reset", "order", "book", "neutral")
IS_KILLED, ALLOWS_SHORT, SIZING, EXPOSURE_MODE, BASIS, RESET, ORDER, BOOK, NEUTRAL, N_SWITCHES = range(10)

# Numbers of a chunk, likewise.
NUMBERS = ("reference_confidence", "rebalance_bars")
REFERENCE_CONFIDENCE, REBALANCE_BARS, N_NUMBERS = range(3)
