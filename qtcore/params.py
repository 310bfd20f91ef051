"""Parameters of the chain: what can be set, within which bounds, and what it means. The only place of a default.

One declaration per parameter gives validation, the nested `PARAMS` record that kernels receive, the TOML configuration, the command line
(`--set layer.name=value`) and the report's table. Fractions are fractions (0.15, not 15).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import chain, pairwise
from typing import Any

import numpy as np

from qtcore.choices import (
    FAMILIES,
    BookKind,
    DecideRule,
    EnsembleRule,
    FeatureSet,
    GovernOrder,
    MacdUnits,
    MetaMode,
    MetaVariant,
    MissingFill,
    Neutral,
    PolicyBase,
    RsiVariant,
    SizingMode,
    TieBreak,
)
from qtcore.declare import (
    MARKET,
    OPINION,
    ROW,
    InLanes,
    ParamSet,
    When,
    bounded,
    choice,
    described,
    names,
    plain,
    row_of,
    switch,
    text,
    time_ns,
    time_text,
    vector,
)
from qtcore.profiles import PROFILES, values_of
from qtcore.rules import Broker, Governor
from qtcore.stages import Stage, stage_tables
from qtcore.types import I8, MODELS, N_MODELS, InputError
from qtcore.voters import check_name, weights_of

BY_VOTE: When = ({"ensemble.rule": (EnsembleRule.VOTE,)},)
BY_EDGE = {"decide.rule": (DecideRule.EDGE,)}
BY_CONFIDENCE = {"decide.rule": (DecideRule.CONFIDENCE,)}
IN_META = BY_CONFIDENCE | {"meta.enabled": (True,)}
IN_POLICY = IN_META | {"meta.mode": (MetaMode.POLICY,)}
IN_OVERRIDE = IN_META | {"meta.mode": (MetaMode.OVERRIDE,)}
IN_V5 = IN_META | {"meta.mode": (MetaMode.V5,)}
IN_ARBITER = IN_POLICY | {"arbiter.enabled": (True,)}


SETS = ("v5_rel", "volatility", "clock", "range")  # chosen by docs/default_features.toml


@dataclass(frozen=True)
class Features(ParamSet):
    """What the models see."""

    feature_set: FeatureSet = choice(FeatureSet.V5_REL, "the 18 features the base models see", MARKET)
    sets: tuple[str, ...] = names(SETS, "sets of features the base models see; empty: feature_set alone", MARKET)
    rsi_variant: RsiVariant = choice(RsiVariant.SMA, "average used by the RSI", MARKET)
    bb_ddof: int = bounded(1, 0, 1, "degrees of freedom lost by the Bollinger deviation", MARKET)
    warmup: int = bounded(50, 1, 5_000, "bars before a symbol's first valid row", MARKET)
    benchmark: str = text("", "symbol of btc_correlation and lead_1 to lead_24; empty: the first that starts with BTC", MARKET)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sets == SETS and self.feature_set != FeatureSet.V5_REL:  # another 18 take their place among the usual sets
            object.__setattr__(self, "sets", (self.feature_set.name.lower(), *SETS[1:]))
        if self.sets:
            self._check_sets()

    def _check_sets(self) -> None:
        """Refuse sets that do not exist, and two of the 18-feature sets; take the one that is named."""
        known = (*(kind.name.lower() for kind in FeatureSet), *FAMILIES)
        if wrong := [name for name in self.sets if name not in known]:
            raise InputError(f"features.sets must be among {', '.join(known)}, was {wrong[0]!r}")
        if len(set(self.sets)) < len(self.sets):
            raise InputError(f"features.sets must name each set once, was {', '.join(self.sets)}")
        eighteen = [kind for kind in FeatureSet if kind.name.lower() in self.sets]
        if len(eighteen) > 1 or (eighteen and self.feature_set not in (FeatureSet.V5_REL, *eighteen)):
            said = f"{', '.join(self.sets)} with features.feature_set {self.feature_set.name.lower()}"
            raise InputError(f"features.sets may hold one of the 18-feature sets, that of features.feature_set, was {said}; name it once")
        if eighteen:
            object.__setattr__(self, "feature_set", eighteen[0])

    @property
    def every_set(self) -> tuple[str, ...]:
        """Names of all sets that the models see."""
        return self.sets or (self.feature_set.name.lower(),)


@dataclass(frozen=True)
class Ensemble(ParamSet):
    """How votes become one opinion."""

    rule: EnsembleRule = choice(EnsembleRule.MEAN, "weighted vote, or weighted mean of the probabilities", OPINION)
    weights: tuple[float, ...] = vector(
        (0.25, 0.25, 0.25, 0.25, 0.0), 0.0, 100.0, "vote weight of every voter, in the order of the slots; of one: weights.NAME", OPINION
    )
    tie_break: TieBreak = choice(TieBreak.HOLD, "action of an exact tie", OPINION, BY_VOTE)
    multipliers: tuple[float, ...] = vector(
        (1.0, 1.0, 1.0, 1.0), 0.0, 2.0, "confidence factor of weak, split, strong, unanimous", OPINION, BY_VOTE
    )
    regime_factors: tuple[float, ...] = vector(
        (1.0,) * 45, 0.0, 100.0, "weight factor [volatility 3 x trend 3, model 5]; all 1: off", OPINION, BY_VOTE
    )

    def __post_init__(self) -> None:
        given: Any = self.weights.split(",") if isinstance(self.weights, str) else self.weights
        if isinstance(given, tuple | list) and len(given) == N_MODELS - 1:
            object.__setattr__(self, "weights", (*given, 0.0))  # the fifth voter is optional
        super().__post_init__()
        if sum(self.weights) <= 0.0:
            raise InputError(f"ensemble.weights must have a sum above 0, was {list(self.weights)}")


@dataclass(frozen=True)
class Meta(ParamSet):
    """Whether the ensemble is kept, overridden or escalated."""

    enabled: bool = switch(True, "the meta layer runs", OPINION)
    mode: MetaMode = choice(
        MetaMode.BET, "policy escalates, override and v5 replace, bet skips or shrinks", OPINION, ({"meta.enabled": (True,)},)
    )
    variant: MetaVariant = choice(
        MetaVariant.PUBLISHED, "policy: head-count rules first, or the learned model where there is no consensus", OPINION, (IN_POLICY,)
    )
    consensus_threshold: float = bounded(
        0.75, 0.0, 1.0, "share of votes from which the ensemble is kept", OPINION, (IN_POLICY, IN_OVERRIDE)
    )
    disagreement_threshold: float = bounded(0.50, 0.0, 1.0, "share of dissent from which is escalated", OPINION, (IN_POLICY,))
    low_confidence: float = bounded(0.55, 0.0, 1.0, "ensemble confidence below which is escalated", ROW, (IN_POLICY,))
    entropy_threshold: float = bounded(0.80, 0.0, 1.0, "entropy of the meta model above which is escalated", OPINION, (IN_POLICY,))
    override_threshold: float = bounded(0.65, 0.0, 1.0, "meta confidence from which override mode acts", OPINION, (IN_OVERRIDE,))
    v5_threshold: float = bounded(0.60, 0.0, 1.0, "meta confidence above which v5 acts", OPINION, (IN_V5,))
    consensus_guard: bool = switch(True, "v5 may not change the action of a strong consensus", OPINION, (IN_V5,))
    fail_open: bool = switch(True, "an error of the meta model keeps the ensemble", OPINION, (IN_OVERRIDE,))
    policy_base: PolicyBase = choice(PolicyBase.SHARED, "ensemble confidence or confidence-weighted score", OPINION, (IN_POLICY,))
    missing_fill: MissingFill = choice(MissingFill.OMIT, "absent models are not counted, or as HOLD 0.5", OPINION, (IN_POLICY,))


@dataclass(frozen=True)
class Arbiter(ParamSet):
    """Who reads the market when the votes disagree."""

    enabled: bool = switch(True, "escalated cells are analysed", row_of("gate_confidence"), (IN_POLICY, BY_EDGE))
    gate_confidence: float = bounded(0.70, 0.0, 1.0, "confidence from which the arbiter replaces the ensemble", ROW, (IN_ARBITER,))
    score_threshold: float = bounded(0.15, 0.0, 2.0, "absolute score from which the arbiter trades", ROW, (IN_ARBITER,))
    macd_units: MacdUnits = choice(
        MacdUnits.PERCENT, "MACD in percent of price or in price units", MARKET, (IN_ARBITER, BY_EDGE | {"arbiter.enabled": (True,)})
    )


@dataclass(frozen=True)
class Decide(ParamSet):
    """What an opinion must clear before it trades."""

    rule: DecideRule = choice(DecideRule.EDGE, "confidences, or the edge after costs", OPINION)
    min_edge: float = bounded(
        0.0, 0.0, 1.0, "expected return after costs that a trade must exceed, a fraction", ROW, (BY_EDGE | {"meta.mode": (MetaMode.BET,)},)
    )


@dataclass(frozen=True)
class Params:
    """Every parameter of the chain.

    named: `ensemble.weights.NAME` and `ensemble.regime_weights.SLICE.NAME`, which wait for the voters of a run (`for_voters`).
    voters: who votes in each of the five slots, and who of them takes part, once that is known; a weight by name then waits no more.
    sharing: voters whose weight is an equal share of that of the known ones (`share_of`), None for every new one that is told no weight;
    nobody where the weights came as numbers.
    stages: what changes with time, in order of time; given as `stage_tables` reads it.
    made_of: the profile that other values were set over.

    >>> Params().with_values({"governor.max_daily_trades": 5}).governor.max_daily_trades
    5
    >>> Params().with_values({"stages": [("2024-03-01", True, False)]}).flat()["stages"]
    [{'from': '2024-03-01', 'meta.enabled': True, 'arbiter.enabled': False}]
    """

    features: Features = Features()
    ensemble: Ensemble = Ensemble()
    meta: Meta = Meta()
    arbiter: Arbiter = Arbiter()
    decide: Decide = Decide()
    governor: Governor = Governor()
    broker: Broker = Broker()
    named: tuple[tuple[str, float], ...] = ()
    sharing: tuple[str, ...] | None = field(default=None, compare=False)
    voters: tuple[tuple[str, ...], tuple[str, ...]] = field(default=((), ()), compare=False)
    stages: tuple[Stage, ...] = ()
    made_of: str = field(default="default", compare=False)

    def __post_init__(self) -> None:
        is_priced = self.decide.rule == DecideRule.EDGE
        if is_priced != (self.meta.mode == MetaMode.BET):
            rule, mode = self.decide.rule.name.lower(), self.meta.mode.name.lower()
            needed = "bet" if is_priced else "policy, override or v5"
            raise InputError(f"meta.mode must be {needed} where decide.rule is {rule}, was {mode}; set both, or take another --profile")
        for name, value, needs in (
            ("ensemble.rule", self.ensemble.rule, EnsembleRule.MEAN),
            ("governor.sizing_mode", self.governor.sizing_mode, SizingMode.KELLY_EDGE),
            ("governor.order", self.governor.order, GovernOrder.BY_EDGE),
            ("governor.book", self.governor.book, BookKind.CROSS_SECTION),
        ):
            if value == needs and not is_priced:
                was = needs.name.lower()
                remedy = "set both, or take another --profile"
                raise InputError(f"{name} may be {was} only where decide.rule is edge, was {was} where it is confidence; {remedy}")
        if self.hedges_market and not self.broker.allow_short:
            was, remedy = self.governor.neutral.name.lower(), "switch one of them"
            raise InputError(f"governor.neutral must be none where broker.allow_short is off, was {was}, which needs shorts; {remedy}")

    @property
    def is_book(self) -> bool:
        """Whether the account is one book of weights across the symbols."""
        return self.governor.book == BookKind.CROSS_SECTION

    @property
    def hedges_market(self) -> bool:
        """Whether the account is a book whose weights add up to zero: what all symbols do together is no part of it."""
        return self.is_book and self.governor.neutral != Neutral.NONE

    @property
    def reads_beta(self) -> bool:
        """Whether past betas to the market are read: by a book that is neutral in them."""
        return self.is_book and self.governor.neutral in (Neutral.BETA, Neutral.DOLLAR_BETA)

    def check_book(self, n_symbols: int) -> None:
        """Raise InputError where a book has fewer than two symbols."""
        if self.is_book and n_symbols < 2:
            raise InputError(f"governor.book may be cross_section for 2 symbols or more, was for {n_symbols}; set governor.book=symbols")

    @classmethod
    def profile(cls, name: str) -> "Params":
        """Return the profile `default`, `published` or `original` (`qtcore.profiles`)."""
        return replace(cls().with_values(values_of(name)), sharing=None, made_of=name)  # no voter was given a weight yet

    @classmethod
    def stored(cls, values: Mapping[str, Any]) -> "Params":
        """Read the `flat` values that a file holds; a parameter that its version did not have yet acts as in `published`, as it did then.

        Raises InputError as `with_values` does.
        """
        return cls.profile("published").with_values(values)

    def with_values(self, values: Mapping[str, Any]) -> "Params":
        """Return a copy with `{"layer.name": value}` replaced, in every stage too; text is parsed.

        Raises InputError on an unknown name, a bad value, or values that do not go together.
        """
        out = replace(self, **self.parts(values))
        return out.for_voters(*out.voters) if out.named and all(out.voters) else out

    def parts(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that `with_values` replaces, each valid by itself. Raises InputError on an unknown name or a bad value."""
        by_layer: dict[str, dict[str, Any]] = {}
        known, named = self.flat(), dict(self.named)
        for name, value in chain.from_iterable(_leaves(*item) for item in values.items()):
            if name == "stages":
                continue
            if name.startswith(tuple(BY_NAME.values())):
                named[name] = _weight(name, value)
                continue
            if name not in known:
                raise InputError(_unknown(name, list(known)))
            layer, key = name.split(".")
            by_layer.setdefault(layer, {})[key] = value
            if name in BY_NAME:
                named = {path: weight for path, weight in named.items() if not path.startswith(BY_NAME[name])}
        sharing = () if "weights" in by_layer.get("ensemble", {}) else self.sharing
        kept = (Stage(s.start, tuple(pair for pair in s.values if pair[0] not in values)) for s in self.stages)
        stages = _parsed(values["stages"]) if "stages" in values else tuple(stage for stage in kept if stage.values)
        layers = {layer: replace(getattr(self, layer), **keys) for layer, keys in by_layer.items()}
        return {"stages": stages, "named": tuple(named.items()), "sharing": sharing, **layers}

    def for_voters(self, slots: tuple[str, ...], voting: Iterable[str]) -> "Params":
        """Return a copy whose five weights are those of the voters in `slots`; voting: who of them takes part (`weights_of`)."""
        first = BY_NAME["ensemble.weights"]
        named = {path.removeprefix(first): weight for path, weight in self.named if path.startswith(first)}
        sharing, voting = self.sharing, tuple(voting)
        if sharing is None:
            usual = (Ensemble().weights, tuple(PROFILES["published"]["ensemble.weights"]))
            sharing = tuple(name for name in slots if name not in MODELS) if self.ensemble.weights in usual else ()
        sharing = tuple(name for name in sharing if name not in named)
        weights = weights_of(self.ensemble.weights, slots, voting, named, sharing)
        rest = tuple(pair for pair in self.named if not pair[0].startswith(first))
        known = (slots, voting)
        return replace(self, ensemble=replace(self.ensemble, weights=weights), named=rest, sharing=sharing, voters=known)

    def slot_of(self, name: str) -> int | None:
        """Return the slot of the voter whose weight `ensemble.weights.NAME` is; None for another parameter, or an unknown voter."""
        first = BY_NAME["ensemble.weights"]
        slots, voter = self.voters[0], name.removeprefix(first)
        return slots.index(voter) if name.startswith(first) and voter in slots else None

    def check_voters(self, slots: tuple[str, ...]) -> None:
        """Raise InputError unless the five weights are those of the voters in `slots`."""
        unsaid = [name for name, _ in self.named] or [
            f"the weight of {name}" for name in slots if name not in MODELS and self.sharing is None
        ]
        if unsaid:
            remedy = "take the `params` of a run, or Params.for_voters(names, slots) of its predictions"
            raise InputError(f"params must be those of the voters, was without the five weights: {unsaid[0]} is open; {remedy}")

    def flat(self) -> dict[str, Any]:
        """Return `{"layer.name": value}` in declaration order; enums as lower-case names, vectors as lists.

        What waits for voters' names follows, and `stages` come last, if there are any.
        """
        values = {
            f"{layer.name}.{spec.name}": plain(getattr(getattr(self, layer.name), spec.name))
            for layer in LAYERS
            for spec in fields(getattr(self, layer.name))
        }
        stages = [{"from": time_text(s.start)} | {name: plain(value) for name, value in s.values} for s in self.stages]
        return values | dict(self.named) | ({"stages": stages} if stages else {})

    def record(self) -> np.ndarray:
        """Return the one-element `PARAMS` array that kernels receive, as it is before the first stage; a copy each time."""
        return self._record.copy()

    @cached_property
    def _record(self) -> np.ndarray:
        out = np.zeros(1, PARAMS)
        for layer in LAYERS:
            for name in PARAMS[layer.name].names or ():
                out[layer.name][name] = getattr(getattr(self, layer.name), name)
        return out

    def spans(self, close_time: I8) -> list[tuple[slice, "Params"]]:
        """Cut ascending decision times [n], ns UTC, where stages begin: rows, and the parameters that hold there, without stages."""
        if not self.stages:
            return [(slice(0, len(close_time)), self)]
        cuts = np.searchsorted(close_time, [stage.start for stage in self.stages]).tolist()
        edges = pairwise((0, *cuts, len(close_time)))
        return [(slice(a, b), params) for (a, b), params in zip(edges, self.staged, strict=True) if a < b]

    @cached_property
    def staged(self) -> list["Params"]:
        """Parameters before the first stage and in each."""
        out = [replace(self, stages=())]
        for stage in self.stages:
            out.append(out[-1].with_values(dict(stage.values)))
        return out


LAYERS = tuple(spec for spec in fields(Params) if isinstance(spec.default, ParamSet))
NUMBERS = frozenset(  # names of the parameters that are one number
    f"{layer.name}.{spec.name}"
    for layer in LAYERS
    for spec in fields(layer.default)  # type: ignore[arg-type]
    if type(spec.default) in (int, float)
)
BY_NAME = {
    "ensemble.weights": "ensemble.weights.",
    "ensemble.regime_factors": "ensemble.regime_weights.",
}  # numbers, and beginning of names


def _leaves(name: str, value: Any) -> Iterable[tuple[str, Any]]:
    """Write a table of weights as one dotted name for each."""
    if isinstance(value, Mapping) and f"{name}.".startswith(tuple(BY_NAME.values())):
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}", inner)
    else:
        yield name, value


def _weight(name: str, value: Any) -> float:
    first = BY_NAME["ensemble.weights"]
    check_name(name.removeprefix(first) if name.startswith(first) else name.rpartition(".")[2])  # weights have no slices
    try:
        weight = float(value)
    except (TypeError, ValueError, OverflowError):
        weight = math.nan
    if isinstance(value, bool) or not 0.0 <= weight <= 100.0:
        raise InputError(f"{name} must be a number in [0, 100], was {repr(value)[:60]}")
    return weight


def _parsed(stages: Iterable[Any] | str) -> tuple[Stage, ...]:
    """Check stages: every value, and their order."""
    out: list[Stage] = []
    for table in stage_tables(stages):
        start, params = time_ns("the `from` of a stage", table.pop("from")), Params().with_values(table)
        if out and start <= out[-1].start:
            raise InputError(f"stages must be in order of time, was {time_text(start)} after {time_text(out[-1].start)}")
        out.append(Stage(start, tuple((name, getattr(getattr(params, name.split(".")[0]), name.split(".")[1])) for name in table)))
    return tuple(out)


def lanes_of() -> dict[str, InLanes]:
    """Return how SIMD lanes take every parameter, in declaration order (`qtcore.declare.Lane`)."""
    return {f"{layer.name}.{spec.name}": spec.metadata["lanes"] for layer in LAYERS for spec in fields(layer.default)}  # type: ignore[arg-type]


def describe() -> list[dict[str, Any]]:
    """List every parameter with default, bounds or choices, and meaning: the table of docs, report and `--help`."""
    return [described(f"{layer.name}.{spec.name}", spec) for layer in LAYERS for spec in fields(layer.default)]  # type: ignore[arg-type]


def _unknown(name: str, known: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else "; `qt doctor --params` lists all"
    return f"parameter must be one that exists, was {name!r}{hint}"


def _record_dtype() -> np.dtype:
    layers: list[tuple[str, Any]] = []
    for layer in LAYERS:
        columns: list[Any] = []
        for spec in fields(layer.default):  # type: ignore[arg-type]
            if spec.metadata.get("text") or spec.metadata.get("names"):
                continue
            if "length" in spec.metadata:
                columns.append((spec.name, "f8", (spec.metadata["length"],)))
            else:
                columns.append((spec.name, "f8" if isinstance(spec.default, float) else "i8"))
        layers.append((layer.name, np.dtype(columns, align=True)))
    return np.dtype(layers, align=True)


PARAMS = _record_dtype()
