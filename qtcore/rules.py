"""Rules of the chain, declared once: the code of each reason, the parameters of governor and broker, and the table of rules.

Whoever speaks of rules reads it: rates, reachability, thresholds, attribution, verdicts, texts of reasons, logs, metrics, status and
pages. So a new rule of the account is declared here alone, as a code, a parameter and a row; what it does is written in its kernel, and
once more in the kernel's twin. The parameters of the other layers stand in `qtcore.params`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum, unique
from string import Formatter
from typing import Any

from qtcore.choices import (
    BookKind,
    CooldownScope,
    DecideRule,
    DrawdownBasis,
    DrawdownReset,
    ExposureMode,
    FillAt,
    GovernOrder,
    MetaMode,
    Neutral,
    SizingMode,
)
from qtcore.declare import NUMBER, ROW, ParamSet, When, bounded, choice, one_of, switch


@unique
class Reason(IntEnum):
    """Stable codes of `spec` 0.4; text is rendered outside the kernels."""

    NONE = 0
    STRONG_CONSENSUS_SELL = 1
    STRONG_CONSENSUS_HOLD = 2
    STRONG_CONSENSUS_BUY = 3
    CLEAR_ENSEMBLE = 4
    CLEAR_ENSEMBLE_NO_MODEL = 5
    MODEL_NOT_LOADED = 6
    FEATURE_EXTRACTION_ERROR = 7
    FEATURE_DIM_MISMATCH = 8
    SCALING_ERROR = 9
    PREDICTION_ERROR = 10
    NO_PREDICTIONS = 11
    TIE = 12
    NO_VALID_MODELS = 13
    TOO_FEW_VOTERS = 14
    CONSENSUS_GUARD = 15
    SPLIT_VOTE = 20
    HIGH_DISAGREEMENT = 21
    LOW_ENSEMBLE_CONFIDENCE = 22
    UNDECIDED_MARKET = 23
    META_OVERRIDE_SELL = 30
    META_OVERRIDE_HOLD = 31
    META_OVERRIDE_BUY = 32
    META_LOW_CONFIDENCE = 33
    INVALID_CONFIDENCE = 34
    META_V5_OVERRIDE = 35
    BET_TAKEN = 36
    BET_SHRUNK = 37
    BET_SKIPPED = 38
    BUY_SIGNAL = 40
    SELL_SIGNAL = 41
    NEUTRAL_MARKET = 42
    NO_MARKET_DATA = 43
    ANALYSIS_ERROR = 44
    DEFER_LOW_CONFIDENCE = 45
    DEFER_ACTION_IS_HOLD = 46
    NOT_AVAILABLE = 47
    HIERARCHY_ERROR = 48
    NO_SEAT = 49
    DEFER_NO_EDGE = 50
    APPROVED = 60
    HOLD_SIGNAL = 61
    LOW_CONFIDENCE = 62
    EMERGENCY_STOP_ACTIVE = 63
    MAX_DRAWDOWN_EXCEEDED = 64
    DAILY_TRADE_LIMIT_REACHED = 65
    MAX_EXPOSURE_EXCEEDED = 66
    COOLDOWN_ACTIVE = 67
    POSITION_ALREADY_OPEN = 68
    SHORTS_DISABLED = 69
    NO_BAR = 70
    EXIT_SIGNAL = 71
    STOP = 72
    HORIZON = 73
    DELISTED = 74
    END_OF_DATA = 75
    ZERO_SIZE = 76
    LIQUIDATED = 77
    GOVERNOR_ERROR = 79
    IN_BAND = 80
    NOT_DUE = 81
    REDUCED = 82
    ADDED = 83


MOST_IMPACT = 0.5  # of the price: what `broker.impact` costs an order at most, and one before which nothing is known to have traded
IN_SYMBOLS = {"governor.book": (BookKind.SYMBOLS,)}
ALONE: When = (IN_SYMBOLS,)
IN_BOOK: When = ({"governor.book": (BookKind.CROSS_SECTION,)},)
EMPIRICAL: When = (IN_SYMBOLS | {"governor.sizing_mode": (SizingMode.KELLY_EMPIRICAL,)},)
SCALED: When = (IN_SYMBOLS | {"governor.sizing_mode": (SizingMode.KELLY_WIN_RATE, SizingMode.KELLY_EMPIRICAL)},)
BY_ODDS: When = (
    IN_SYMBOLS | {"governor.sizing_mode": (SizingMode.KELLY_WIN_RATE, SizingMode.KELLY_CONFIDENCE, SizingMode.KELLY_EMPIRICAL)},
)


@dataclass(frozen=True)
class Governor(ParamSet):
    """Who sizes, limits or refuses the trade."""

    max_position: float = bounded(0.10, 0.0, 1.0, "largest position, share of equity", ROW)
    max_exposure: float = bounded(0.50, 0.0, 10.0, "largest sum of positions, share of equity", ROW)
    max_drawdown: float = bounded(0.15, 0.0, 1.0, "no entries further below the peak than this share", ROW)
    min_confidence: float = bounded(0.0, 0.0, 1.0, "no entries below this confidence", ROW, ALONE)
    kelly_fraction: float = bounded(0.25, 0.0, 1.0, "share of the Kelly size that is taken", ROW)
    win_rate: float = bounded(0.55, 0.0, 1.0, "probability of a win in the Kelly rule", ROW, SCALED)
    payoff: float = bounded(1.5, 0.01, 100.0, "average win over average loss in the Kelly rule", ROW, BY_ODDS)
    reference_confidence: float = bounded(0.70, 0.01, 1.0, "confidence at which the Kelly size is not scaled", NUMBER, SCALED)
    kelly_trades: int = bounded(30, 30, 64, "closed trades that kelly_empirical looks at", when=EMPIRICAL)
    sizing_mode: SizingMode = choice(
        SizingMode.KELLY_EDGE,
        "where the Kelly rule takes its odds from",
        one_of(SizingMode.KELLY_WIN_RATE, SizingMode.KELLY_CONFIDENCE, SizingMode.KELLY_EDGE),
        ALONE,
    )
    cooldown_minutes: int = bounded(60, 0, 525_600, "minutes without an entry after a loss on the symbol", ROW)
    cooldown_scope: CooldownScope = choice(
        CooldownScope.SYMBOL_LAST_LOSS, "which losses count", when=({"governor.cooldown_minutes": range(1, 525_601)},)
    )
    max_daily_trades: int = bounded(20, 0, 1_000_000, "approvals a UTC day", ROW)
    exposure_mode: ExposureMode = choice(
        ExposureMode.PROJECTED,
        "the new position counts in the exposure check, or not",
        one_of(ExposureMode.PROJECTED, ExposureMode.EXISTING),
        ALONE,
    )
    drawdown_basis: DrawdownBasis = choice(
        DrawdownBasis.EQUITY, "series whose drawdown is limited, and base of sizes", one_of(DrawdownBasis.EQUITY, DrawdownBasis.BALANCE)
    )
    drawdown_reset: DrawdownReset = choice(
        DrawdownReset.NONE, "what lifts a drawdown halt", one_of(DrawdownReset.NONE, DrawdownReset.DAILY, DrawdownReset.MANUAL)
    )
    emergency_stop: bool = switch(False, "kill switch: no entries", one_of(False, True))
    flatten_on_kill: bool = switch(False, "the kill switch also closes what is open")  # read always: live throws it later
    stop_loss: float = bounded(0.02, 0.0001, 1.0, "adverse move from the entry price that closes, a fraction", ROW)
    order: GovernOrder = choice(
        GovernOrder.BY_EDGE, "order in which a bar's decisions are governed", one_of(GovernOrder.SYMBOLS, GovernOrder.BY_EDGE), ALONE
    )
    book: BookKind = choice(
        BookKind.SYMBOLS,
        "each symbol traded alone, or one book of weights across all",
        one_of(*BookKind),
        ({"decide.rule": (DecideRule.EDGE,)},),
    )
    neutral: Neutral = choice(Neutral.NONE, "what the weights that a book aims at add up to zero in", one_of(*Neutral), IN_BOOK)
    target_volatility: float = bounded(
        0.0,
        0.0,
        10.0,
        "most annual volatility a book aims at, its symbols uncorrelated, bars day and night; 0: none",
        ROW,
        IN_BOOK,
    )
    band: float = bounded(1.0, 0.0, 1_000.0, "costs of one side that a move of a book must gain; 0: the aim is followed", ROW, IN_BOOK)
    rebalance_bars: int = bounded(1, 1, 1_000_000, "bars from one rebalancing of a book to the next", NUMBER, IN_BOOK)


@dataclass(frozen=True)
class Broker(ParamSet):
    """How orders are filled and what they cost."""

    initial_cash: float = bounded(10_000.0, 1.0, 1e12, "quote at the start", ROW)
    fee_rate: float = bounded(0.0004, 0.0, 0.1, "fee per side, share of the notional", ROW)
    slippage_rate: float = bounded(0.0001, 0.0, 0.1, "adverse price move per side, a fraction", ROW)
    impact: float = bounded(0.0, 0.0, 1.0, "price move of an order as large as the bar before it traded; as the root of its share")
    fill: FillAt = choice(FillAt.NEXT_OPEN, "where orders are filled")
    allow_short: bool = switch(True, "SELL opens a short", one_of(True, False))
    max_holding_bars: int = bounded(0, 0, 1_000_000, "bars until a position is closed; 0: the label's horizon", ROW)
    delist_after: int = bounded(24, 1, 1_000_000, "holes in a row after which a position closes", ROW)


class Kind(Enum):
    """What a rule's decision means: an answer, a trade refused, or a failure (of the features that a model asked for)."""

    ANSWER = 0
    REFUSAL = 1
    ERROR = 2
    FEATURE_ERROR = 3


@dataclass(frozen=True)
class Rule:
    """One rule.

    reason: the code of what it decided. layer: who asks it: `meta`, `arbiter`, `governor` about cells, `exit` about open positions, `word`
    for a code that stands in texts alone. kind: of its decision. modes: those of the meta layer that ask it.
    parameter: `layer.name` of what steers it. off: value with which it never acts, or as rarely as it can. step: its name in the
    attribution, else the parameter's; in_ladder: whether it is put in there as a step, or only its marginal effect is asked.
    never: why it decides no cell while the parameter is off; where there is no parameter, why it never does.
    label: its words on a page, else those of the code. limit: the parameter in words, of `{limit}` or `{percent}`. text: the reason with
    its numbers, by name (`{limit}` is the parameter), after `{name}`, the code itself.
    """

    reason: Reason
    layer: str
    kind: Kind = Kind.ANSWER
    modes: tuple[MetaMode, ...] = ()
    parameter: str = ""
    off: Any = None
    step: str = ""
    in_ladder: bool = True
    never: str = ""
    label: str = ""
    limit: str = ""
    text: str = ""

    @property
    def name(self) -> str:
        """Return the code's name in texts: opinion in lower case, permission in upper case (`spec` 0.4)."""
        if self.reason == Reason.DEFER_ACTION_IS_HOLD:
            return "defer_action_is_HOLD"  # as it was published
        return self.reason.name if self.reason >= Reason.APPROVED else self.reason.name.lower()

    @property
    def words(self) -> str:
        """Return its name for people."""
        return self.label or self.reason.name.replace("_", " ").lower()

    @property
    def refuses(self) -> bool:
        """Say whether it turns a BUY or SELL into HOLD."""
        return self.layer == "governor" and self.kind != Kind.ANSWER

    @property
    def fails(self) -> bool:
        """Say whether its decision means that a layer failed."""
        return self.kind in (Kind.ERROR, Kind.FEATURE_ERROR)

    @property
    def needs(self) -> frozenset[str]:
        """Name the numbers of its text."""
        return frozenset(name for _, name, _, _ in Formatter().parse(self.text) if name) - {"name"}

    @property
    def switch(self) -> tuple[str, dict[str, Any]] | None:
        """Return its name in the attribution and the values that switch it off, None where nothing does."""
        if self.off is None or self.layer not in ("governor", "exit"):
            return None
        return self.step or self.parameter.partition(".")[2], {self.parameter: self.off}

    def why_never(self, values: Mapping[str, Any]) -> str:
        """Say why it can decide no cell with these parameters (`Params.flat`), empty where it can."""
        return self.never if not self.parameter or values[self.parameter] == self.off else ""

    def limit_text(self, value: float) -> str:
        """Say its parameter in words.

        >>> rule_of(Reason.MAX_DRAWDOWN_EXCEEDED).limit_text(0.15)
        'halt at 15 % drawdown'
        """
        return (self.limit or f"{self.words} {{limit:g}}").format(limit=value, percent=f"{100.0 * value:.0f} %")


POLICY, OVERRIDE, V5, BET = MetaMode.POLICY, MetaMode.OVERRIDE, MetaMode.V5, MetaMode.BET
ALL = (POLICY, OVERRIDE, V5)
EVERY = (*ALL, BET)
RULES: tuple[Rule, ...] = (
    # meta: what one decides, the next never sees
    Rule(Reason.NO_VALID_MODELS, "meta", modes=ALL, never="counted on cells with a vote"),
    Rule(Reason.NO_PREDICTIONS, "meta", modes=ALL, never="no models at all is asked before"),
    Rule(Reason.TOO_FEW_VOTERS, "meta", modes=ALL),
    Rule(Reason.MODEL_NOT_LOADED, "meta", modes=(OVERRIDE, V5, BET)),
    Rule(Reason.STRONG_CONSENSUS_SELL, "meta", modes=(POLICY, OVERRIDE), parameter="meta.consensus_threshold"),
    Rule(Reason.STRONG_CONSENSUS_HOLD, "meta", modes=(POLICY, OVERRIDE), parameter="meta.consensus_threshold"),
    Rule(Reason.STRONG_CONSENSUS_BUY, "meta", modes=(POLICY, OVERRIDE), parameter="meta.consensus_threshold"),
    Rule(Reason.SPLIT_VOTE, "meta", modes=(POLICY,)),
    Rule(Reason.HIGH_DISAGREEMENT, "meta", modes=(POLICY,), parameter="meta.disagreement_threshold"),
    Rule(Reason.LOW_ENSEMBLE_CONFIDENCE, "meta", modes=(POLICY,), parameter="meta.low_confidence"),
    Rule(Reason.CLEAR_ENSEMBLE_NO_MODEL, "meta", modes=(POLICY,)),
    Rule(Reason.FEATURE_EXTRACTION_ERROR, "meta", Kind.FEATURE_ERROR, modes=EVERY),
    Rule(Reason.FEATURE_DIM_MISMATCH, "meta", Kind.FEATURE_ERROR, modes=EVERY),
    Rule(Reason.SCALING_ERROR, "meta", Kind.FEATURE_ERROR, modes=EVERY),
    Rule(Reason.PREDICTION_ERROR, "meta", Kind.ERROR, modes=EVERY),
    Rule(Reason.UNDECIDED_MARKET, "meta", modes=(POLICY,), parameter="meta.entropy_threshold"),
    Rule(Reason.CLEAR_ENSEMBLE, "meta", modes=(POLICY,)),
    Rule(Reason.INVALID_CONFIDENCE, "meta", modes=(OVERRIDE,)),
    Rule(Reason.META_LOW_CONFIDENCE, "meta", modes=(OVERRIDE, V5), text="{name}_{meta_confidence:.2f}"),
    Rule(
        Reason.CONSENSUS_GUARD, "meta", modes=(V5,), parameter="meta.consensus_guard", off=False, never="meta.consensus_guard is off"
    ),
    Rule(Reason.META_OVERRIDE_SELL, "meta", modes=(OVERRIDE,), parameter="meta.override_threshold"),
    Rule(Reason.META_OVERRIDE_HOLD, "meta", modes=(OVERRIDE,), parameter="meta.override_threshold"),
    Rule(Reason.META_OVERRIDE_BUY, "meta", modes=(OVERRIDE,), parameter="meta.override_threshold"),
    Rule(Reason.META_V5_OVERRIDE, "meta", modes=(V5,), parameter="meta.v5_threshold"),
    Rule(Reason.BET_TAKEN, "meta", modes=(BET,), text="{name} (pays with probability {meta_confidence:.2f})"),
    Rule(Reason.BET_SHRUNK, "meta", modes=(BET,), text="{name} (pays with probability {meta_confidence:.2f})"),
    Rule(Reason.BET_SKIPPED, "meta", modes=(BET,), text="{name} (pays with probability {meta_confidence:.2f})"),
    Rule(Reason.NONE, "meta", modes=EVERY),
    Rule(Reason.HIERARCHY_ERROR, "meta", Kind.ERROR),
    # arbiter
    Rule(Reason.NOT_AVAILABLE, "arbiter", parameter="arbiter.enabled", off=True, never="the arbiter is on"),
    Rule(Reason.NO_MARKET_DATA, "arbiter", Kind.ERROR),
    Rule(Reason.ANALYSIS_ERROR, "arbiter", Kind.ERROR),
    Rule(
        Reason.DEFER_LOW_CONFIDENCE, "arbiter", parameter="arbiter.gate_confidence", text="{name} ({arbiter_confidence:.3f} < {limit:.2f})"
    ),
    Rule(Reason.DEFER_ACTION_IS_HOLD, "arbiter"),
    Rule(Reason.NO_SEAT, "arbiter"),
    Rule(Reason.DEFER_NO_EDGE, "arbiter", parameter="decide.min_edge"),
    Rule(Reason.BUY_SIGNAL, "arbiter", parameter="arbiter.score_threshold"),
    Rule(Reason.SELL_SIGNAL, "arbiter", parameter="arbiter.score_threshold"),
    # governor
    Rule(Reason.NO_BAR, "governor", Kind.REFUSAL),
    Rule(Reason.HOLD_SIGNAL, "governor", never="counted on BUY and SELL"),
    Rule(Reason.EXIT_SIGNAL, "governor"),
    Rule(
        Reason.LOW_CONFIDENCE, "governor", Kind.REFUSAL, parameter="governor.min_confidence", off=0.0, never="no confidence is below 0",
        label="least confidence", limit="confidence of {limit:g} or more", text="{name} ({confidence:.3f} < {limit:.3f})",
    ),
    Rule(Reason.POSITION_ALREADY_OPEN, "governor", Kind.REFUSAL),
    Rule(
        Reason.SHORTS_DISABLED, "governor", Kind.REFUSAL, parameter="broker.allow_short", off=True, step="no_shorts",
        never="broker.allow_short is on", label="no shorts",
    ),
    Rule(
        Reason.EMERGENCY_STOP_ACTIVE, "governor", Kind.REFUSAL, parameter="governor.emergency_stop", off=False,
        never="governor.emergency_stop is off", label="kill switch",
    ),
    Rule(Reason.LIQUIDATED, "governor", Kind.REFUSAL),
    Rule(
        Reason.MAX_DRAWDOWN_EXCEEDED, "governor", Kind.REFUSAL, parameter="governor.max_drawdown", off=1.0, label="drawdown limit",
        limit="halt at {percent} drawdown", text="{name} ({drawdown:.1%} > {limit:.1%})",
    ),
    Rule(
        Reason.DAILY_TRADE_LIMIT_REACHED, "governor", Kind.REFUSAL, parameter="governor.max_daily_trades", off=1_000_000,
        label="daily limit", limit="{limit} entries a day", text="{name} ({trades_today:.0f}/{limit:.0f})",
    ),
    Rule(
        Reason.MAX_EXPOSURE_EXCEEDED, "governor", Kind.REFUSAL, parameter="governor.max_exposure", off=10.0, label="exposure limit",
        limit="{percent} in all", text="{name} ({exposure:.0f} > {most_exposure:.0f})",
    ),
    Rule(
        Reason.COOLDOWN_ACTIVE, "governor", Kind.REFUSAL, parameter="governor.cooldown_minutes", off=0, step="cooldown",
        never="governor.cooldown_minutes is 0", label="cooldown", limit="no entry on a symbol for {limit} minutes after a loss",
        text="{name} ({cooldown_left:.1f}m remaining)",
    ),
    Rule(Reason.ZERO_SIZE, "governor", Kind.REFUSAL),
    Rule(Reason.IN_BAND, "governor", parameter="governor.band", label="move not worth its cost"),
    Rule(Reason.NOT_DUE, "governor", parameter="governor.rebalance_bars", off=1, never="every bar is one", label="between rebalancings"),
    Rule(Reason.GOVERNOR_ERROR, "governor", Kind.ERROR, never="the compiled governor raises nothing"),
    Rule(Reason.APPROVED, "governor"),
    Rule(Reason.ADDED, "governor"),
    # exits, of what is open
    Rule(Reason.STOP, "exit", parameter="governor.stop_loss", off=1.0, label="stop loss"),
    Rule(
        Reason.HORIZON, "exit", parameter="broker.max_holding_bars", off=1_000_000, in_ladder=False, label="holding time"
    ),
    Rule(Reason.DELISTED, "exit", parameter="broker.delist_after"),
    Rule(Reason.REDUCED, "exit"),
    Rule(Reason.END_OF_DATA, "exit"),
    # words of texts
    Rule(Reason.TIE, "word"),
    Rule(Reason.NEUTRAL_MARKET, "word", text="{name}: score={arbiter_score:.3f} in neutral zone"),
)  # fmt: skip


def rule_of(reason: int) -> Rule:
    """Find the rule of a code."""
    return next(rule for rule in RULES if rule.reason == reason)


def words_of(name: str) -> str:
    """Say the rule of a code's name for people.

    >>> words_of("MAX_DRAWDOWN_EXCEEDED"), words_of("SPLIT_VOTE")
    ('drawdown limit', 'split vote')
    """
    return rule_of(Reason[name]).words


def rules_of(layer: str, mode: MetaMode | None = None) -> tuple[Rule, ...]:
    """List the rules of a layer in the order of asking; mode: those alone that this meta mode asks."""
    return tuple(rule for rule in RULES if rule.layer == layer and (mode is None or mode in rule.modes))


def refusals() -> tuple[Rule, ...]:
    """List the rules that turn a BUY or SELL into HOLD."""
    return tuple(rule for rule in RULES if rule.refuses)


def failures(layer: str, *kinds: Kind) -> tuple[Rule, ...]:
    """List the rules of a layer whose decision means that it failed; kinds: of failures, all where none is named."""
    return tuple(rule for rule in rules_of(layer) if rule.fails and (not kinds or rule.kind in kinds))


def codes(rules: tuple[Rule, ...]) -> tuple[Reason, ...]:
    """Return what rules decide."""
    return tuple(rule.reason for rule in rules)


def switches(*, in_ladder: bool) -> dict[str, dict[str, Any]]:
    """Return the values that switch each rule of the account off, by its name in the attribution."""
    return dict(rule.switch for rule in RULES if rule.switch and rule.in_ladder == in_ladder)


def step_words(name: str) -> str | None:
    """Say a rule by its name in the attribution, None where there is no such rule."""
    return next((rule.words for rule in RULES if rule.switch and rule.switch[0] == name), None)
