"""Sweep job of `qt sweep`: load candles and predictions (or a run), sweep, run the best trial alone, judge it, write the page."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from qtcore import Bars, Params
from qtcore.reading import is_read, unread
from research.errors import several
from research.evidence.ledger import Ledger, trial_of
from research.evidence.overfitting import search_words
from research.evidence.standing import result_of
from research.files import save_json
from research.runs.backtest import backtest
from research.runs.case import Case
from research.runs.folder import RunFiles, read_run
from research.runs.verdict import FAILING
from research.sweep.curves import THRESHOLDS, Curve, threshold_curve
from research.sweep.drivers import driver_words
from research.sweep.rules import parse_objective
from research.sweep.run import sweep
from research.sweep.search_significance import judge
from research.sweep.trials import SweepResult
from research.sweep.walk import Walk, fold_edges, walk
from research.training.meta.schedule import MetaSchedule
from research.training.models.layers import Layers
from research.training.predictions import Predictions
from research.workflow.asked import SweepJob
from research.workflow.backtest_job import inputs_of, load, note_declared
from research.workflow.own_layers import try_chain
from research.workflow.run import Run

Progress = Any  # callback (done, total, text)
NEAREST = 5_000  # breakpoints of a curve on the page: seconds


@dataclass(frozen=True)
class SweepReport:
    """What to show: the page's path, the summary, and its main figures as words."""

    trials: SweepResult
    page: Path
    summary: dict[str, Any]
    rows: tuple[tuple[str, str], ...]
    walk: Walk | None = None


def run_sweep(asked: SweepJob, progress: Progress = None) -> SweepReport:
    """Do everything `qt sweep` does; results, summary and page lie in the folder of the job."""
    job = asked.job
    stem = Path(job.data).stem.replace(":", "-") or "sweep"
    folder = job.out or Path("reports") / f"sweep-{stem}-{pd.Timestamp.now(tz='UTC'):%Y%m%d-%H%M%S}"
    swept = read_run(job.data) if (Path(job.data) / "manifest.json").exists() else None
    own = job.layers if swept is None else swept.own(job.layers)
    asked.check(folder, swept, own)
    checked = try_chain(own, asked.base(swept))
    bars, predictions, meta, base, lacked = _inputs(asked, swept, own, progress)
    if asked.walk_forward:
        fold_edges(Case.of(bars, predictions).first, bars.n, asked.walk_forward)  # a mistake is told before the sweep
    certificate = _inherited(swept, bars, predictions, meta, own)
    trials = sweep(
        bars, predictions, None, base, plan=asked.plan, out=folder, resume=asked.resume, engine=job.engine, address=job.address, meta=meta,
        **own.engine, record=job.data, progress=progress,
    )  # fmt: skip
    walked = _walked(asked, trials, predictions, base, meta, own, progress) if asked.walk_forward else None
    best = trials.best(asked.plan.objective)
    params = trials.params(int(best["trial"]))
    run = Run.of(backtest(bars, predictions, params, meta=meta, **own.engine, ceilings=job.config.run.ceilings))
    run.own_checks, run.profile = tuple(checked), job.config.profile if swept is None else swept.manifest["profile"]
    run.verification, run.lacked = certificate, lacked
    summary = summary_of(trials, best, run.summary, asked.plan.objective)
    summary["assumptions"]["unread"] = [] if own.chain else list(unread(base, tried=trials.space.tried))
    summary["search"] = judge(trials, run.summary["evidence"], run.params.broker.max_holding_bars)
    summary["walk_forward"] = (
        None if walked is None else walked.verdict | {"picks": json.loads(walked.table.to_json(orient="records", date_format="iso"))}
    )
    save_json(folder / "summary.json", summary)
    from research.sweep.page import build

    page = build(trials, summary, folder / "sweep.html", tuple(_curves(trials, predictions, params)), walked)
    return SweepReport(trials, page, summary, tuple(_rows(summary)), walked)


def _walked(
    asked: SweepJob, trials: SweepResult, predictions: Predictions, params: Params, meta: Any, own: Layers, progress: Progress
) -> Walk:
    """Walk forward over the same settings; an adaptive search tries others in each fold, which the verdict on the best trial counts too."""
    found: Walk = walk(
        trials.case.bars, predictions, None, params, plan=asked.plan, n_folds=asked.walk_forward, meta=meta, own=own,
        record=asked.job.data if asked.plan.search == "adaptive" else False, progress=progress,
    )  # fmt: skip
    trials.tried = found.tried or trials.tried
    return found


def _curves(trials: SweepResult, predictions: Predictions, params: Params) -> Iterator[Curve]:
    """Exact curves of the swept thresholds over the range that was swept, everything else as in the best trial; none of own layers."""
    for axis in () if trials.case.own.chain else trials.space.axes:
        low, high = (axis.low, axis.high) if axis.is_free else (axis.values[0], axis.values[-1])
        if axis.name in THRESHOLDS and low < high and is_read(params, axis.name):
            yield threshold_curve(
                trials.case.bars, predictions, axis.name, params, low=low, high=high, nearest=NEAREST, meta=trials.case.meta
            )


def _inputs(
    asked: SweepJob, swept: RunFiles | None, own: Layers, progress: Progress
) -> tuple[Bars, Predictions, MetaSchedule | None, Params, tuple[str, ...]]:
    """Candles, predictions, meta layer, parameters and what the reading lost: of a finished run, or of data as a backtest takes them."""
    job = asked.job
    if swept is not None:
        bars, predictions, _, meta = swept.chain(own)
        note_declared(job, bars)
        return bars, predictions, meta, asked.base(swept), tuple(swept.manifest.get("lacked", ()))
    loaded = load(job)
    bars = loaded.bars
    note_declared(job, bars)
    if asked.walk_forward:
        fold_edges(0, bars.n, asked.walk_forward)  # before hours of training; fewer bars have votes
    predictions, params, meta, _ = inputs_of(job, bars, progress)
    return bars, predictions, meta, params, tuple(loaded.report.lacked)


def _inherited(swept: RunFiles | None, bars: Bars, predictions: Predictions, meta: MetaSchedule | None, own: Layers) -> dict[str, Any]:
    """Say what is proven of the rows: nothing yet, and where the swept run is invalid they are too.

    Then the ledger gets to know that run and what became of it, so that no row of its predictions enters a statistic.
    """
    if swept is None or swept.summary["verdict"] not in FAILING:
        return {"passed": None, "checks": [], "why": "a row of a sweep is not proven; `qt backtest` with its setting proves it"}
    summary, certificate = swept.summary, swept.verify
    run = backtest(bars, predictions, swept.params(), meta=meta, **own.engine)
    Ledger().record(trial_of(run, summary["evidence"]["sharpe"]), replace(result_of(summary, certificate, ""), of_predictions=True))
    failed = [check | {"detail": f"{check['detail']}, in the run that is swept"} for check in certificate["checks"] if not check["passed"]]
    return {"passed": False if failed else None, "checks": failed, "why": f"the run that is swept is {summary['verdict']}"}


def summary_of(trials: SweepResult, best: "pd.Series[Any]", of_best: Mapping[str, Any], objective: str) -> dict[str, Any]:
    """Describe a sweep as JSON holds it. of_best: the summary of the best trial's own run."""
    evidence, tried, figure = of_best["evidence"], trials.tried, parse_objective(objective, trials.columns)[0]
    setting = trials.space.setting(int(best["trial"]))
    return {
        "schema_version": 1,
        "space": {
            "search": trials.space.search,
            "size": trials.space.size,
            "axes": {n: len(a.values) for n, a in zip(trials.space.names, trials.space.axes)},
        },
        "data": of_best["data"],
        "assumptions": of_best["assumptions"],
        "symbols": list(trials.case.bars.symbols),
        "bars": trials.case.bars.n,
        "objective": objective,
        "where": list(trials.where),
        "drivers": trials.drivers,
        "n_done": len(trials),
        "n_distinct": trials.n_distinct,
        "n_kept": len(trials.table(["trial"], trials.where)),
        "best": {
            "trial": int(best["trial"]),
            "setting": setting,
            **{k: _plain(best[k]) for k in (*BEST, figure)},
            "n_trades": int(best["n_trades"]),
        },
        "tried": None if tried is None else {"trials": tried.trials, "effective": tried.effective, "variance": tried.variance},
        "verdict": {
            name: evidence[name] for name in ("verdict", "sentence", "finding", "sharpe", "alpha", "test", "trades", "trials", "condition")
        }
        | {name: of_best[name] for name in ("proven", "failed_check", "figures")},
    }


BEST = ("sharpe", "sharpe_bar", "total_return", "max_drawdown", "win_rate", "turnover", "fees")


def _rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    best = summary["best"]
    setting = ", ".join(
        f"{name} = {value:.6g}" if isinstance(value, float) else f"{name} = {value}" for name, value in best["setting"].items()
    )
    rows = [
        ("settings", f"{summary['n_done']:,} of {summary['space']['size']:,}"),
        ("computed by", driver_words(summary["drivers"])),
        ("distinct outcomes", f"{summary['n_distinct']:,}"),
        ("keep the constraints", f"{summary['n_kept']:,}"),
        (f"best {summary['objective']}", _picked(summary["objective"].removeprefix("-"), best)),
        ("its setting", setting),
        ("its return, drawdown", f"{100 * (best['total_return'] or 0.0):+.1f} %, {100 * (best['max_drawdown'] or 0.0):.1f} %"),
        ("its trades", f"{best['n_trades']:,}"),
    ]
    if summary["tried"] is not None:
        worth = several(round(summary["tried"]["effective"]), "independent ones")
        rows.append(("trials on these candles", f"{summary['tried']['trials']:,}, worth {worth}"))
    if summary["walk_forward"] is not None:
        rows.append(("walk forward", f"{summary['walk_forward']['verdict']}, {summary['walk_forward']['n_folds']} picks"))
    return [*rows, *((what, f"{figure} ({judgement})") for what, figure, judgement, _ in search_words(summary["search"]))]


def _picked(figure: str, best: Mapping[str, Any]) -> str:
    sharpe = f"{_figure(best['sharpe'])} a year, trial {best['trial']:,}"
    return sharpe if figure == "sharpe" else f"{best[figure]:.6g}, Sharpe {sharpe}"


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def _plain(value: Any) -> Any:
    number = value.item() if hasattr(value, "item") else value
    return None if isinstance(number, float) and number != number else number
