"""A backtest as users hold it, `Run`: its record, statistics, report, proof and folder. Nothing is computed before it is asked for."""

from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pandas as pd

from research.errors import UserError
from research.runs.record import RunRecord
from research.runs.verdict import combined, proof_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from research.evidence.attribution import Attribution


@dataclass
class Run(RunRecord):
    """One backtest, as users hold it: the record, what was measured of it, and the way to its report, proof and folder."""

    @classmethod
    def of(cls, record: RunRecord) -> Self:
        """Hold a record."""
        return cls(**{f.name: getattr(record, f.name) for f in fields(record)})

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
    def placebos(self) -> dict[str, Any]:
        """Both placebos with as many draws as every run is given; see `research.evidence.placebo`."""
        from research.evidence.placebo import placebo

        return placebo(self)

    def placebo(self, draws: int | None = None) -> pd.DataFrame:
        """Return what the run would have earned with its predictions at other times, and with other signs: rows `timing`, `direction`.

        Columns: `p` (NaN where `sentence` says why there is none), `mean` (daily net return of the run, a fraction), `draws` (how many),
        `distinct`, `below` (no p can be smaller), `median` and `largest` of the draws, and `sentence`. draws: how many to make of each, by
        default at most 99 and no more than take seconds. For this one setting: of how many others were tried they know nothing.
        """
        from research.evidence.placebo import placebo, placebo_table

        return placebo_table(self.placebos if draws is None else placebo(self, draws))

    @cached_property
    def assumed(self) -> dict[str, Any]:
        """The run's decisions under other fills and costs; see `research.evidence.waterfall`."""
        from research.evidence.waterfall import waterfall

        return waterfall(self)

    def waterfall(self) -> pd.DataFrame:
        """Return what the same decisions earn under other fills and costs, one row an assumption; governor and account run anew.

        Columns: `set` (parameters that differ from the run's), `net_return` and `difference` from the run (fractions of the starting cash),
        `max_drawdown`, `n_trades`, and `refused` (why there are no figures, or None). Break-even cost and capacity: `Run.assumed`.
        """
        from research.evidence.waterfall import waterfall_table

        return waterfall_table(self.assumed)

    def intrabar(self, finer: Any = None) -> pd.DataFrame:
        """Bound the PnL of every trade by what candles leave open of a bar's inside; one row a trade, indexed by entry time.

        finer: `Bars`, or whatever `load_bars` reads: shorter candles of the run's symbols, for all of its time or a part, which
        narrow the bounds. Columns: trade_id, symbol, side, exit_time; stop_bar, when the bar opened inside which the stop was
        passed (the finer one, where there is one), NaT where none was; exit_price, exit_worst, exit_best, quote with slippage; pnl,
        pnl_low, pnl_high, quote, net; NaN while a trade is open. `attrs["net_pnl"]` is the account's (low, high). See
        `research.evidence.intrabar`. Raises UserError with an own trade loop, `broker.fill=worst` or `broker.impact`, DataError
        where the finer candles do not gather into those of the run.
        """
        from research.evidence.intrabar import bound

        bounds = bound(self, finer)
        table = bounds.table(self.trades)
        table.attrs["net_pnl"] = (bounds.low, bounds.high)
        return table

    def save(self, folder: str | Path, *, record: bool = True) -> Path:
        """Write the run's folder and return it; `record` counts the run in the trial ledger."""
        from research.evidence.envelope import write_envelope
        from research.workflow.recording import save_run

        self.folder = save_run(self, Path(folder), record=record)
        write_envelope(self, self.folder)
        return self.folder

    def verify(self, progress: Any = None) -> dict[str, Any]:
        """Prove the run (see `research.verify`); an unsaved one is written to a temporary folder first."""
        import tempfile

        from research.training.models.layers import at_hand
        from research.workflow.recording import verify_run

        if self.folder is not None:
            self.verification = verify_run(self.folder, progress=progress, layers=at_hand(self.own))
            return self.verification
        with tempfile.TemporaryDirectory() as scratch:
            unsaved = replace(self)
            self.verification = verify_run(unsaved.save(Path(scratch) / "run", record=False), progress=progress, layers=at_hand(self.own))
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
        """Return the run as a `vectorbt.Portfolio` made of our fills, with the same equity (`research.runs.to_vectorbt`)."""
        from research.runs.to_vectorbt import to_vectorbt

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
