"""Record of one run: what the chain was given, what it did, and the tables that follow from that alone.

Nothing is computed before it is asked for: a backtest costs the chain alone, tables come on first use.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qtcore import Bars, Engine, Params, Result
from qtcore.reading import unread
from qtcore.rules import Reason, rule_of
from research.training.meta.schedule import MetaSchedule
from research.training.models.layers import NONE, Layers
from research.training.predictions import Predictions

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class RunRecord:
    """One pass of the chain.

    result: what the chain did, `[n, S]` arrays. closing_fills: END_OF_DATA fills of what was open at the last close, on a copy of the
    account: trades show them, the equity does not. `params` are resolved: `broker.max_holding_bars` is the label's horizon where it was 0.
    meta: the learned meta layer that was served, None where the rules alone acted. own_layers: names of layers that are not the chain's;
    own: the layers themselves, as far as they are at hand; own_checks: what their trials found.
    ceilings: whether figures that no honest run reaches make the verdict implausible (`research.evidence.plausibility`).
    manifest, verification: filled when the run is saved and proven; folder: where it lies, None while it is in memory only.
    """

    bars: Bars
    predictions: Predictions
    params: Params
    result: Result
    closing_fills: np.ndarray
    notes: tuple[str, ...] = ()  # sentences about what is absent or refused of models and layers
    lacked: tuple[str, ...] = ()  # counted sentences about what was lost or assumed when the candles were read
    command: str = "research.backtest"
    profile: str = "default"
    folder: Path | None = None
    meta: MetaSchedule | None = None
    own_layers: tuple[str, ...] = ()
    own: Layers = NONE
    own_checks: tuple[dict[str, Any], ...] = ()
    ceilings: bool = True
    manifest: dict[str, Any] = field(default_factory=dict)
    verification: dict[str, Any] = field(default_factory=dict)

    @property
    def unread(self) -> tuple[str, ...]:
        """What is set and not read, one sentence each; nothing where layers are the user's own, which may read it."""
        return () if self.own_layers else unread(self.params)

    @property
    def labels(self) -> np.ndarray:
        """Labels that every layer is scored on, int8 [n, S], -1 invalid."""
        return self.predictions.labels

    @cached_property
    def ensemble_only(self) -> Result:
        """The same run without meta layer and arbiter."""
        return self._again({"meta.enabled": False, "arbiter.enabled": False})

    @cached_property
    def without_breaker(self) -> Result | None:
        """The same run without the drawdown halt; None when nothing was halted."""
        rule = rule_of(Reason.MAX_DRAWDOWN_EXCEEDED)
        halted = np.any(self.result.governor_reason == rule.reason)
        return self._again({rule.parameter: rule.off}) if halted else None

    def _again(self, values: dict[str, Any]) -> Result:
        return Engine(self.params.with_values(values), meta_model=self.meta).run(self.bars, self.result.votes)

    @cached_property
    def trades(self) -> "pd.DataFrame":
        """Round trips, one row a position, indexed by entry time."""
        from research.runs.tables import trades_frame

        return trades_frame(self)

    @cached_property
    def fills(self) -> "pd.DataFrame":
        """Executions with fee and slippage, indexed by time."""
        from research.runs.tables import fills_frame

        return fills_frame(self)

    @cached_property
    def decisions(self) -> "pd.DataFrame":
        """One row per bar and symbol: every layer's opinion, the governor's answer, the label."""
        from research.runs.tables import decisions_frame

        return decisions_frame(self)

    @cached_property
    def equity(self) -> "pd.DataFrame":
        """Equity, balance, exposure and drawdown per bar, indexed by bar open time."""
        from research.runs.tables import equity_frame

        return equity_frame(self)
