"""Parameters of the chain: what can be set, within which bounds, and what it means. The only place of a default.

One declaration per parameter gives validation, the nested `PARAMS` record that kernels receive, the TOML configuration, the command line
(`--set layer.name=value`) and the report's table. Fractions are fractions (0.15, not 15).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from qtcore.declare import (
    MARKET,
    NUMBER,
    OPINION,
    ROW,
    InLanes,
    ParamSet,
    bounded,
    choice,
    plain,
    row_of,
    switch,
    switch_on,
    text,
    time_ns,
    time_text,
    vector,
)  # fmt: skip
from qtcore.stages import Stage, stage_tables
from qtcore.types import I8, MODELS, N_MODELS, InputError


class TieBreak(IntEnum):
    """What an exact tie of the vote means (`spec` 4.3)."""

    HOLD = 0
    ORDER = 1


class MetaMode(IntEnum):
    """Which meta layer runs (`spec` 5-7)."""

    POLICY = 0
    OVERRIDE = 1
    V5 = 2


class MetaVariant(IntEnum):
    """What policy mode does where there is no strong consensus: the published rules, or what the learned model says (`spec` 7.4)."""

    PUBLISHED = 0
    LEARNED = 1


class PolicyBase(IntEnum):
    """What the policy takes for the ensemble's opinion (`spec` 7.2)."""

    SHARED = 0
    SCORE = 1


class MissingFill(IntEnum):
    """How the policy counts absent models (`spec` 7.1)."""

    OMIT = 0
    HOLD_HALF = 1


class MacdUnits(IntEnum):
    """Units of the arbiter's MACD (`spec` 1.8)."""

    PERCENT = 0
    PRICE = 1


class SizingMode(IntEnum):
    """How a position is sized (`spec` 10.4)."""

    KELLY_WIN_RATE = 0
    KELLY_CONFIDENCE = 1
    KELLY_EMPIRICAL = 2


class CooldownScope(IntEnum):
    """Which losses start a cooldown (`spec` 10.3)."""

    SYMBOL_LAST_LOSS = 0
    LAST_50 = 1


class ExposureMode(IntEnum):
    """Whether the new position is part of the exposure check (`spec` 10.3)."""

    PROJECTED = 0
    EXISTING = 1


class DrawdownBasis(IntEnum):
    """Equity with unrealised PnL, or realised balance only (`spec` 10.6 p)."""

    EQUITY = 0
    BALANCE = 1


class DrawdownReset(IntEnum):
    """What lifts a drawdown halt (`spec` 10.6 p)."""

    NONE = 0
    DAILY = 1
    MANUAL = 2


class GovernOrder(IntEnum):
    """In which order a bar's decisions reach the governor (`spec` 10.6 c)."""

    SYMBOLS = 0
    BY_CONFIDENCE = 1


class FillAt(IntEnum):
    """Where an order of bar t is filled (`spec` 10.6 d)."""

    NEXT_OPEN = 0
    CLOSE = 1


class FeatureSet(IntEnum):
    """Which 18 features the models see (`spec` 1.1, D-10)."""

    V5_REL = 0
    V5 = 1
    V5_TRAINED = 2


class RsiVariant(IntEnum):
    """Simple or Wilder's average in the RSI (`spec` D-02)."""

    SMA = 0
    WILDER = 1


@dataclass(frozen=True)
class Features(ParamSet):
    """What the models see."""

    feature_set: FeatureSet = choice(FeatureSet.V5_REL, "the 18 features the base models see", MARKET)
    rsi_variant: RsiVariant = choice(RsiVariant.SMA, "average used by the RSI", MARKET)
    bb_ddof: int = bounded(1, 0, 1, "degrees of freedom lost by the Bollinger deviation", MARKET)
    warmup: int = bounded(50, 1, 5_000, "bars before a symbol's first valid row", MARKET)
    benchmark: str = text("", "symbol of btc_correlation; empty: the first that starts with BTC", MARKET)


@dataclass(frozen=True)
class Ensemble(ParamSet):
    """How votes become one opinion."""

    weights: tuple[float, ...] = vector((0.25, 0.25, 0.30, 0.20, 0.0), 0.0, 100.0, f"vote weight of {', '.join(MODELS)}", OPINION)
    tie_break: TieBreak = choice(TieBreak.HOLD, "action of an exact tie", OPINION)
    multipliers: tuple[float, ...] = vector((1.0, 1.0, 1.0, 1.0), 0.0, 2.0, "confidence factor of weak, split, strong, unanimous", OPINION)
    regime_factors: tuple[float, ...] = vector(
        (1.0,) * 45, 0.0, 100.0, "weight factor [volatility 3 x trend 3, model 5]; all 1: off", OPINION
    )

    def __post_init__(self) -> None:
        if isinstance(self.weights, tuple | list) and len(self.weights) == N_MODELS - 1:
            object.__setattr__(self, "weights", (*self.weights, 0.0))  # the fifth model is optional
        super().__post_init__()
        if sum(self.weights) <= 0.0:
            raise InputError(f"ensemble.weights must have a sum above 0, was {list(self.weights)}")


@dataclass(frozen=True)
class Meta(ParamSet):
    """Whether the ensemble is kept, overridden or escalated."""

    enabled: bool = switch(True, "the meta layer runs", OPINION)
    mode: MetaMode = choice(MetaMode.POLICY, "policy escalates, override and v5 replace", OPINION)
    variant: MetaVariant = choice(
        MetaVariant.PUBLISHED, "policy: head-count rules first, or the learned model where there is no consensus", OPINION
    )
    consensus_threshold: float = bounded(0.75, 0.0, 1.0, "share of votes from which the ensemble is kept", OPINION)
    disagreement_threshold: float = bounded(0.50, 0.0, 1.0, "share of dissent from which is escalated", OPINION)
    low_confidence: float = bounded(0.55, 0.0, 1.0, "ensemble confidence below which is escalated", ROW)
    entropy_threshold: float = bounded(0.80, 0.0, 1.0, "entropy of the meta model above which is escalated", OPINION)
    override_threshold: float = bounded(0.65, 0.0, 1.0, "meta confidence from which override mode acts", OPINION)
    v5_threshold: float = bounded(0.60, 0.0, 1.0, "meta confidence above which v5 acts", OPINION)
    consensus_guard: bool = switch(True, "v5 may not change the action of a strong consensus", OPINION)
    fail_open: bool = switch(True, "an error of the meta model keeps the ensemble", OPINION)
    policy_base: PolicyBase = choice(PolicyBase.SHARED, "ensemble confidence or confidence-weighted score", OPINION)
    missing_fill: MissingFill = choice(MissingFill.OMIT, "absent models are not counted, or as HOLD 0.5", OPINION)


@dataclass(frozen=True)
class Arbiter(ParamSet):
    """Who reads the market when the votes disagree."""

    enabled: bool = switch(True, "escalated cells are analysed", row_of("gate_confidence"))
    gate_confidence: float = bounded(0.70, 0.0, 1.0, "confidence from which the arbiter replaces the ensemble", ROW)
    score_threshold: float = bounded(0.15, 0.0, 2.0, "absolute score from which the arbiter trades", ROW)
    macd_units: MacdUnits = choice(MacdUnits.PERCENT, "MACD in percent of price or in price units", MARKET)


@dataclass(frozen=True)
class Governor(ParamSet):
    """Who sizes, limits or refuses the trade."""

    max_position: float = bounded(0.10, 0.0, 1.0, "largest position, share of equity", ROW)
    max_exposure: float = bounded(0.50, 0.0, 10.0, "largest sum of positions, share of equity", ROW)
    max_drawdown: float = bounded(0.15, 0.0, 1.0, "no entries further below the peak than this share", ROW)
    min_confidence: float = bounded(0.65, 0.0, 1.0, "no entries below this confidence", ROW)
    kelly_fraction: float = bounded(0.25, 0.0, 1.0, "share of the Kelly size that is taken", ROW)
    win_rate: float = bounded(0.55, 0.0, 1.0, "probability of a win in the Kelly rule", ROW)
    payoff: float = bounded(1.5, 0.01, 100.0, "average win over average loss in the Kelly rule", ROW)
    reference_confidence: float = bounded(0.70, 0.01, 1.0, "confidence at which the Kelly size is not scaled", NUMBER)
    kelly_trades: int = bounded(30, 30, 64, "closed trades that kelly_empirical looks at")
    sizing_mode: SizingMode = choice(
        SizingMode.KELLY_WIN_RATE, "where the Kelly rule takes its odds from", switch_on(SizingMode.KELLY_CONFIDENCE)
    )
    cooldown_minutes: int = bounded(60, 0, 525_600, "minutes without an entry after a loss on the symbol", ROW)
    cooldown_scope: CooldownScope = choice(CooldownScope.SYMBOL_LAST_LOSS, "which losses count")
    max_daily_trades: int = bounded(20, 0, 1_000_000, "approvals a UTC day", ROW)
    exposure_mode: ExposureMode = choice(
        ExposureMode.PROJECTED,
        "the new position counts in the exposure check, or not",
        switch_on(ExposureMode.PROJECTED, ExposureMode.EXISTING),
    )
    drawdown_basis: DrawdownBasis = choice(
        DrawdownBasis.EQUITY, "series whose drawdown is limited, and base of sizes", switch_on(DrawdownBasis.EQUITY, DrawdownBasis.BALANCE)
    )
    drawdown_reset: DrawdownReset = choice(
        DrawdownReset.NONE, "what lifts a drawdown halt", switch_on(DrawdownReset.DAILY, DrawdownReset.MANUAL)
    )
    emergency_stop: bool = switch(False, "kill switch: no entries", switch_on(True))
    flatten_on_kill: bool = switch(False, "the kill switch also closes what is open")
    stop_loss: float = bounded(0.02, 0.0001, 1.0, "adverse move from the entry price that closes, a fraction", ROW)
    order: GovernOrder = choice(GovernOrder.SYMBOLS, "order in which a bar's decisions are governed")


@dataclass(frozen=True)
class Broker(ParamSet):
    """How orders are filled and what they cost."""

    initial_cash: float = bounded(10_000.0, 1.0, 1e12, "quote at the start", ROW)
    fee_rate: float = bounded(0.0004, 0.0, 0.1, "fee per side, share of the notional", ROW)
    slippage_rate: float = bounded(0.0001, 0.0, 0.1, "adverse price move per side, a fraction", ROW)
    fill: FillAt = choice(FillAt.NEXT_OPEN, "where orders are filled")
    allow_short: bool = switch(True, "SELL opens a short", switch_on(True, False))
    max_holding_bars: int = bounded(0, 0, 1_000_000, "bars until a position is closed; 0: the label's horizon", ROW)
    delist_after: int = bounded(24, 1, 1_000_000, "holes in a row after which a position closes", ROW)


@dataclass(frozen=True)
class Params:
    """Every parameter of the chain.

    stages: what changes with time, in order of time; given as `stage_tables` reads it.

    >>> Params().with_values({"governor.max_daily_trades": 5}).governor.max_daily_trades
    5
    >>> Params().with_values({"stages": [("2024-03-01", True, False)]}).flat()["stages"]
    [{'from': '2024-03-01', 'meta.enabled': True, 'arbiter.enabled': False}]
    """

    features: Features = Features()
    ensemble: Ensemble = Ensemble()
    meta: Meta = Meta()
    arbiter: Arbiter = Arbiter()
    governor: Governor = Governor()
    broker: Broker = Broker()
    stages: tuple[Stage, ...] = ()

    @classmethod
    def profile(cls, name: str) -> "Params":
        """Return the profile `default`, or `original`: every switch at the original system's value (`spec` 0.3)."""
        if name not in PROFILES:
            raise InputError(f"profile (--profile) must be one of {', '.join(PROFILES)}, was {name!r}")
        return cls().with_values(PROFILES[name])

    def with_values(self, values: Mapping[str, Any]) -> "Params":
        """Return a copy with `{"layer.name": value}` replaced, in every stage too; text is parsed.

        Raises InputError on an unknown name or a bad value.
        """
        by_layer: dict[str, dict[str, Any]] = {}
        known = self.flat()
        for name, value in values.items():
            if name == "stages":
                continue
            if name not in known:
                raise InputError(_unknown(name, list(known)))
            layer, key = name.split(".")
            by_layer.setdefault(layer, {})[key] = value
        kept = (Stage(s.start, tuple(pair for pair in s.values if pair[0] not in values)) for s in self.stages)
        stages = _parsed(values["stages"]) if "stages" in values else tuple(stage for stage in kept if stage.values)
        return replace(self, stages=stages, **{layer: replace(getattr(self, layer), **keys) for layer, keys in by_layer.items()})

    def flat(self) -> dict[str, Any]:
        """Return `{"layer.name": value}` in declaration order; enums as lower-case names, vectors as lists. `stages` come last, if any."""
        values = {
            f"{layer.name}.{spec.name}": plain(getattr(getattr(self, layer.name), spec.name))
            for layer in LAYERS
            for spec in fields(getattr(self, layer.name))
        }
        stages = [{"from": time_text(s.start)} | {name: plain(value) for name, value in s.values} for s in self.stages]
        return values | ({"stages": stages} if stages else {})

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
        return [(slice(a, b), params) for (a, b), params in zip(edges, self._staged, strict=True) if a < b]

    @cached_property
    def _staged(self) -> list["Params"]:
        """Parameters before the first stage and in each."""
        out = [replace(self, stages=())]
        for stage in self.stages:
            out.append(out[-1].with_values(dict(stage.values)))
        return out


LAYERS = fields(Params)[:-1]  # all but the stages


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
    rows = []
    for layer in LAYERS:
        for spec in fields(layer.default):  # type: ignore[arg-type]
            meta = spec.metadata
            if "enum" in meta:
                allowed = " | ".join(member.name.lower() for member in meta["enum"])
            elif isinstance(spec.default, bool):
                allowed = "on | off"
            elif "low" in meta:
                allowed = f"[{meta['low']:g}, {meta['high']:g}]"
            else:
                allowed = "text"
            name = f"{layer.name}.{spec.name}"
            rows.append({"name": name, "default": plain(spec.default), "allowed": allowed, "meaning": meta["meaning"]})
    return rows


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
            if spec.metadata.get("text"):
                continue
            if "length" in spec.metadata:
                columns.append((spec.name, "f8", (spec.metadata["length"],)))
            else:
                columns.append((spec.name, "f8" if isinstance(spec.default, float) else "i8"))
        layers.append((layer.name, np.dtype(columns, align=True)))
    return np.dtype(layers, align=True)


PARAMS = _record_dtype()

PROFILES: dict[str, dict[str, Any]] = {
    "default": {},
    "original": {
        "ensemble.tie_break": "order",
        "meta.policy_base": "score",
        "meta.missing_fill": "hold_half",
        "arbiter.macd_units": "price",
        "governor.sizing_mode": "kelly_confidence",
        "governor.cooldown_scope": "last_50",
        "governor.exposure_mode": "existing",
        "governor.drawdown_basis": "balance",
        "features.feature_set": "v5_trained",
        "meta.consensus_guard": False,
        "features.warmup": 20,
        "meta.enabled": False,
        "arbiter.enabled": False,
    },
}
