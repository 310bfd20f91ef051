"""What does one backtest hold? `Run`: arrays of the chain, tables for people, and the way to its report, proof and folder.

Nothing is computed before it is asked for: a backtest costs the chain alone, tables and statistics come on first use.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from qtcore import Bars, Engine, Params, Result
from qtcore.types import Reason
from research.errors import UserError
from research.meta.schedule import MetaSchedule
from research.predictions import Predictions
from research.verdict import combined, proof_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from research.evidence.attribution import Attribution


@dataclass
class Run:
    """One backtest.

    result: what the chain did, `[n, S]` arrays. closing_fills: END_OF_DATA fills of what was open at the last close, on a copy of the
    account: trades show them, the equity does not. `params` are resolved: `broker.max_holding_bars` is the label's horizon where it was 0.
    meta: the learned meta layer that was served, None where the rules alone acted. own_layers: names of layers that are not the chain's;
    own_checks: what their trials found.
    ceilings: whether figures that no honest run reaches make the verdict implausible (`research.evidence.plausibility`).
    manifest, verification: filled by `save` and `verify`; folder: where the run lies, None while it is in memory only.
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
    own_checks: tuple[dict[str, Any], ...] = ()
    ceilings: bool = True
    manifest: dict[str, Any] = field(default_factory=dict)
    verification: dict[str, Any] = field(default_factory=dict)

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
        halted = np.any(self.result.governor_reason == Reason.MAX_DRAWDOWN_EXCEEDED)
        return self._again({"governor.max_drawdown": 1.0}) if halted else None

    def _again(self, values: dict[str, Any]) -> Result:
        return Engine(self.params.with_values(values), meta_model=self.meta).run(self.bars, self.result.votes)

    @cached_property
    def measured(self) -> dict[str, Any]:
        """Everything that can be measured of the run: accuracy, rates, regimes, PnL, evidence."""
        from research.evidence import summarise

        return summarise(self)

    @property
    def summary(self) -> dict[str, Any]:
        """Everything `summary.json` holds: what was measured, and the verdict of that and of the proof, if there is one."""
        name = self.folder.name if self.folder is not None else None
        return combined(self.measured, self.verification) | {"run_id": name}

    def stats(self) -> pd.Series:
        """Return the figures of the result table, by name."""
        from research.evidence import headline

        return pd.Series(headline(self.summary), name="value")

    def by_regime(self) -> pd.DataFrame:
        """Accuracy, rates and PnL of each regime slice, one row a slice."""
        from research.evidence import regime_table

        return regime_table(self.summary)

    @cached_property
    def layers(self) -> "Attribution | None":
        """What each layer and each rule earned, by exact replay, and whether it was ever worse than the ensemble; None with own layers."""
        from research.evidence.attribution import attribute

        return None if self.own_layers else attribute(self)

    def attribution(self, regimes: bool = False) -> pd.DataFrame:
        """Return what each layer and rule earned, one row a step; with `regimes` one row a step and regime slice.

        `contribution` adds up to the run's PnL; `effect` is the run less the same without that rule; see `research.evidence.attribution`.
        """
        if self.layers is None:
            raise UserError(f"attribution must replay the chain's own layers, was a run with an own {', '.join(self.own_layers)}")
        table = self.layers.table
        return table if regimes else table.xs("total", level="regime")

    @cached_property
    def trades(self) -> pd.DataFrame:
        """Round trips, one row a position, indexed by entry time."""
        from research.store import trades_frame

        return trades_frame(self)

    @cached_property
    def fills(self) -> pd.DataFrame:
        """Executions with fee and slippage, indexed by time."""
        from research.store import fills_frame

        return fills_frame(self)

    @cached_property
    def decisions(self) -> pd.DataFrame:
        """One row per bar and symbol: every layer's opinion, the governor's answer, the label."""
        from research.store import decisions_frame

        return decisions_frame(self)

    @cached_property
    def equity(self) -> pd.DataFrame:
        """Equity, balance, exposure and drawdown per bar, indexed by bar open time."""
        from research.store import equity_frame

        return equity_frame(self)

    def save(self, folder: str | Path, *, record: bool = True) -> Path:
        """Write the run's folder and return it; `record` counts the run in the trial ledger."""
        from research.live.envelope import write_envelope
        from research.recording import save_run

        self.folder = save_run(self, Path(folder), record=record)
        write_envelope(self, self.folder)
        return self.folder

    def verify(self, progress: Any = None) -> dict[str, Any]:
        """Prove the run (see `research.verify`); an unsaved one is written to a temporary folder first."""
        import tempfile

        from research.recording import verify_run

        if self.folder is not None:
            self.verification = verify_run(self.folder, progress=progress)
            return self.verification
        with tempfile.TemporaryDirectory() as scratch:
            unsaved = replace(self)
            self.verification = verify_run(unsaved.save(Path(scratch) / "run", record=False), progress=progress)
        return self.verification

    def report(self, path: str | Path) -> Path:
        """Write the self-contained HTML report to `path`."""
        import tempfile

        from research.report import build

        with tempfile.TemporaryDirectory() as scratch:
            folder = self.folder or replace(self).save(Path(scratch) / "run", record=False)
            return build(folder, path)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw equity against buy-and-hold on `ax` (a new one by default) and return it."""
        import matplotlib.pyplot as plt

        axes = plt.subplots(figsize=(9, 4))[1] if ax is None else ax
        self.equity[["equity", "buy_hold_matched", "ensemble_only"]].plot(ax=axes, lw=1.2)
        axes.set_xlabel("")
        axes.set_ylabel("quote currency")
        axes.set_title("Equity after costs")
        return axes

    def to_vectorbt(self) -> Any:
        """Return the run as a `vectorbt.Portfolio` made of our fills, with the same equity (`research.portfolio`)."""
        from research.portfolio import to_vectorbt

        return to_vectorbt(self)

    def to_polars(self, table: str = "decisions") -> Any:
        """Return one of the tables (decisions, trades, fills, equity) as a polars frame with its index as columns."""
        import polars as pl

        return pl.from_pandas(getattr(self, table).reset_index())

    def __repr__(self) -> str:
        span = f"{pd.Timestamp(self.bars.open_time[0], tz='UTC'):%Y-%m-%d} to {pd.Timestamp(self.bars.open_time[-1], tz='UTC'):%Y-%m-%d}"
        said = f"verdict {self.summary['verdict']}, " if "measured" in self.__dict__ else ""  # a look at it measures nothing
        text = f"<Run of {len(self.bars.symbols)} symbols, {self.bars.n} bars, {span}, {len(self.result.fills)} fills"
        return f"{text}, {said}{proof_text(self.verification)}>"
