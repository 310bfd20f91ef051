"""Table of rules: every rule of the chain, declared once, in the order in which they are asked.

Whoever speaks of rules reads it: rates, reachability, thresholds, attribution, verdicts, texts of reasons, logs, metrics, status and
pages. So a new rule is one entry here, beside its parameter and its arithmetic in `qtcore`, and nobody can forget it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from string import Formatter
from typing import Any

from qtcore.params import LAYERS, MetaMode
from qtcore.types import Reason

POLICY, OVERRIDE, V5 = MetaMode.POLICY, MetaMode.OVERRIDE, MetaMode.V5
ALL = (POLICY, OVERRIDE, V5)


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
    def is_threshold(self) -> bool:
        """Say whether a number steers it."""
        return self.parameter in NUMBERS

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


def _numbers() -> frozenset[str]:
    """Name the parameters that are one number."""
    specs = ((layer.name, spec) for layer in LAYERS for spec in fields(layer.default))  # type: ignore[arg-type]
    return frozenset(f"{layer}.{spec.name}" for layer, spec in specs if type(spec.default) in (int, float))


NUMBERS = _numbers()
RULES: tuple[Rule, ...] = (
    # meta: what one decides, the next never sees
    Rule(Reason.NO_VALID_MODELS, "meta", modes=ALL, never="counted on cells with a vote"),
    Rule(Reason.NO_PREDICTIONS, "meta", modes=ALL, never="no models at all is asked before"),
    Rule(Reason.TOO_FEW_VOTERS, "meta", modes=ALL),
    Rule(Reason.MODEL_NOT_LOADED, "meta", modes=(OVERRIDE, V5)),
    Rule(Reason.STRONG_CONSENSUS_SELL, "meta", modes=(POLICY, OVERRIDE), parameter="meta.consensus_threshold"),
    Rule(Reason.STRONG_CONSENSUS_HOLD, "meta", modes=(POLICY, OVERRIDE), parameter="meta.consensus_threshold"),
    Rule(Reason.STRONG_CONSENSUS_BUY, "meta", modes=(POLICY, OVERRIDE), parameter="meta.consensus_threshold"),
    Rule(Reason.SPLIT_VOTE, "meta", modes=(POLICY,)),
    Rule(Reason.HIGH_DISAGREEMENT, "meta", modes=(POLICY,), parameter="meta.disagreement_threshold"),
    Rule(Reason.LOW_ENSEMBLE_CONFIDENCE, "meta", modes=(POLICY,), parameter="meta.low_confidence"),
    Rule(Reason.CLEAR_ENSEMBLE_NO_MODEL, "meta", modes=(POLICY,)),
    Rule(Reason.FEATURE_EXTRACTION_ERROR, "meta", Kind.FEATURE_ERROR, modes=ALL),
    Rule(Reason.FEATURE_DIM_MISMATCH, "meta", Kind.FEATURE_ERROR, modes=ALL),
    Rule(Reason.SCALING_ERROR, "meta", Kind.FEATURE_ERROR, modes=ALL),
    Rule(Reason.PREDICTION_ERROR, "meta", Kind.ERROR, modes=ALL),
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
    Rule(Reason.NONE, "meta", modes=ALL),
    Rule(Reason.HIERARCHY_ERROR, "meta", Kind.ERROR),
    # arbiter
    Rule(Reason.NOT_AVAILABLE, "arbiter", parameter="arbiter.enabled", off=True, never="the arbiter is on"),
    Rule(Reason.NO_MARKET_DATA, "arbiter", Kind.ERROR),
    Rule(Reason.ANALYSIS_ERROR, "arbiter", Kind.ERROR),
    Rule(
        Reason.DEFER_LOW_CONFIDENCE, "arbiter", parameter="arbiter.gate_confidence", text="{name} ({arbiter_confidence:.3f} < {limit:.2f})"
    ),
    Rule(Reason.DEFER_ACTION_IS_HOLD, "arbiter"),
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
    Rule(Reason.GOVERNOR_ERROR, "governor", Kind.ERROR, never="the compiled governor raises nothing"),
    Rule(Reason.APPROVED, "governor"),
    # exits, of what is open
    Rule(Reason.STOP, "exit", parameter="governor.stop_loss", off=1.0, label="stop loss"),
    Rule(
        Reason.HORIZON, "exit", parameter="broker.max_holding_bars", off=1_000_000, in_ladder=False, label="holding time"
    ),
    Rule(Reason.DELISTED, "exit", parameter="broker.delist_after"),
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
