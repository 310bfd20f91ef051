"""Command table: the commands of `qt`, one function each. Read flags, call the library, show the result."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from research.cli import reproduce, show, watch
from research.cli.audit import audit_app
from research.cli.common import (
    Address,
    Adjusted,
    ConfigFile,
    Data,
    DayStart,
    Declare,
    Engine,
    From,
    Json,
    KnowsUntil,
    LayersFile,
    Out,
    Preset,
    Profile,
    Quiet,
    Seed,
    Sets,
    Symbols,
    TimeZone,
    To,
    print_json,
    progress,
    resolve,
    split_symbols,
)
from research.cli.data import data_app
from research.cli.live import live_app
from research.cli.meta import show_log
from research.cli.models import models_app
from research.cli.nullworlds import nullworlds
from research.cli.power import power
from research.cli.study import study
from research.cli.sweep import sweep
from research.cli.trials import trials
from research.errors import ConfigError

app = typer.Typer(
    name="qt", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Research and backtest trading decisions."
)
app.add_typer(data_app, name="data")
app.command()(sweep)
app.command()(study)
app.command()(trials)
app.command()(power)
app.add_typer(models_app, name="models")
app.add_typer(live_app, name="live")
app.add_typer(audit_app, name="audit")
audit_app.command()(nullworlds)
app.command()(reproduce.reproduce)
app.command()(reproduce.compare)
for look in (watch.status, watch.monitor, watch.dashboard, watch.validate):
    app.command()(look)
app.command("live-gap")(watch.live_gap)

RunFolder = Annotated[Path, typer.Argument(help="folder of a finished run", metavar="RUN")]
NoVerify = Annotated[bool, typer.Option("--no-verify", help="skip the proof; the report says so")]


@app.command()
def demo(out: Out = None, seed: Seed = 42, quiet: Quiet = False, json: Json = False) -> None:
    """Train, run the chain, verify and report on embedded real candles (S&P 500, NASDAQ, daily), then on a market with a known edge."""
    from research.workflow.backtest_job import run_demo

    with progress(quiet or json) as update:
        runs, page = run_demo(out, seed, update)
    real, planted = runs.values()
    if json:
        print_json(real.summary | {"planted": planted.summary})
    elif quiet:
        show.run(real, quiet=True, json=False)
    else:
        for name, run in runs.items():
            show.heading(name)
            show.run(run, quiet=False, json=False)
        show.heading("both on one page")
        show.path(page)
    failed = [show.fails(run.summary["evidence"], quiet or json) for run in runs.values()]
    if any(failed):
        raise typer.Exit(1)


@app.command()
def backtest(
    data: Data,
    predictions: Annotated[Path | None, typer.Option(help="your base predictions: Parquet, CSV or JSON lines")] = None,
    models: Annotated[Path | None, typer.Option(help="folder that `qt train` wrote, or a name of `qt models list`")] = None,
    meta: Annotated[Path | None, typer.Option(help="folder of trained meta models: DIR/meta of `qt train`, or of --from-log")] = None,
    funding: Annotated[Path | None, typer.Option(help="funding rates of perpetuals: timestamp, symbol, funding_rate")] = None,
    symbols: Symbols = None,
    start: From = None,
    end: To = None,
    time_label: Annotated[str, typer.Option(help="the timestamps are bar open or close times")] = "open",
    calendar: Annotated[str | None, typer.Option(help="regular (holes) or sessions (rows present); default: measured")] = None,
    time_zone: TimeZone = None,
    day_start: DayStart = None,
    adjusted: Adjusted = False,
    knows_until: KnowsUntil = None,
    layers: LayersFile = None,
    profile: Profile = "default",
    preset: Preset = None,
    config: ConfigFile = None,
    set_: Sets = None,
    out: Out = None,
    seed: Seed = 42,
    no_verify: NoVerify = False,
    declare: Declare = None,
    export_log: Annotated[bool, typer.Option("--export-log", help="also write predictions.jsonl and outcomes.csv")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Run the chain over your candles; trains trees and a linear model walk-forward unless given --predictions or --models.

    All five models: `--set run.models=xgb,lgbm,nhits,patchtst,linear`, or `qt train` once and `--models`.
    """
    from research.evidence.provenance import over_budget
    from research.training.models.layers import using
    from research.workflow.backtest_job import Job, run_job

    settings = resolve(profile, config, set_, seed, preset, knows_until)
    job = Job(data, settings, split_symbols(symbols), start, end, time_label, calendar, funding, predictions, models, out, meta)
    job = replace(job, time_zone=time_zone, day_start=day_start, adjusted=adjusted, declare=declare)
    with using(layers, settings.models) as own, progress(quiet or json) as update:
        job = replace(job, layers=own)
        run = run_job(job, verify=not no_verify, export_log=export_log, progress=update)
    show.run(run, quiet, json)
    failed = show.fails(run.summary["evidence"], quiet or json)
    if over := over_budget(run.summary["provenance"], settings.run.provenance_budget):
        show.failure(over)
    if failed or over:
        raise typer.Exit(1)


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="folder for artefacts and out-of-sample predictions")],
    data: Annotated[str, typer.Argument(help="as for backtest; not with --from-log", metavar="DATA")] = "",
    from_log: Annotated[Path | None, typer.Option(help="learn the meta layer alone: log of --export-log, or live journal")] = None,
    outcomes: Annotated[Path | None, typer.Option(help="outcomes.csv that belongs to --from-log; a journal has its own")] = None,
    min_date: Annotated[str | None, typer.Option(help="with --from-log: leave out lines before this time, UTC")] = None,
    update: Annotated[bool, typer.Option("--update", help="go on with the training in --out: one more fold on the bars since")] = False,
    tolerance: Annotated[float, typer.Option(help="with --from-log: minutes between an outcome and its line at most")] = 0.0,
    engine: Engine = "local",
    address: Address = None,
    symbols: Symbols = None,
    start: From = None,
    end: To = None,
    time_label: Annotated[str, typer.Option(help="the timestamps are bar open or close times")] = "open",
    calendar: Annotated[str | None, typer.Option(help="regular (holes) or sessions (rows present)")] = None,
    time_zone: TimeZone = None,
    day_start: DayStart = None,
    adjusted: Adjusted = False,
    knows_until: KnowsUntil = None,
    layers: LayersFile = None,
    profile: Profile = "default",
    preset: Preset = None,
    config: ConfigFile = None,
    set_: Sets = None,
    seed: Seed = 42,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train all base models walk-forward; writes artefacts and out-of-sample predictions.

    Each finished fit is kept: after an interrupt the same command goes on where it was, and what is unchanged is not fitted again.
    """
    from research.training.models.layers import using
    from research.workflow.backtest_job import Job, train_from_files, train_job

    settings = resolve(profile, config, set_, seed, preset, knows_until)
    if from_log is not None or outcomes is not None:
        schedule, counts = train_from_files(settings, (data, from_log, outcomes), out, min_date, tolerance)
        show_log(schedule, counts, out, quiet, json)
        return
    if not data:
        raise ConfigError("qt train must get DATA, or --from-log, was given neither")
    if min_date is not None or tolerance:
        flag = "--tolerance" if tolerance else "--min-date"
        raise ConfigError(f"{flag} must come with --from-log, was with DATA; leave it out, or cut the candles with --from")
    names = split_symbols(symbols)
    job = Job(data, settings, names, start, end, time_label, calendar, out=out, engine=engine, address=address, update=update)
    job = replace(job, time_zone=time_zone, day_start=day_start, adjusted=adjusted)
    with using(layers, settings.models) as own, progress(quiet or json) as report:
        predictions, lacked = train_job(replace(job, layers=own), report)
    show.training(predictions, lacked, out, quiet, json)


@app.command()
def verify(run: RunFolder, layers: LayersFile = None, quiet: Quiet = False, json: Json = False) -> None:
    """Prove a finished run: parity, causality, invariants, accounting; exit 1 when a check fails. Its verdict and page follow the proof."""
    from research.runs.folder import read_run
    from research.training.models.layers import using
    from research.workflow.recording import verify_run

    with using(layers), progress(quiet or json) as update:
        certificate = verify_run(run, progress=update)
    summary = read_run(run).summary
    show.proof(certificate, summary, quiet, json)
    if show.fails(summary["evidence"], quiet=json):
        raise typer.Exit(1)


@app.command()
def report(
    run: RunFolder,
    finer: Annotated[str | None, typer.Option(help="shorter candles of the same market: narrow the bounds of the net PnL")] = None,
    layers: LayersFile = None,
    quiet: Quiet = False,
) -> None:
    """Rebuild the HTML report of a finished run; prints its verdict and the path, with --quiet the path alone."""
    from research.evidence.intrabar import bound
    from research.report import build
    from research.runs.folder import read_run
    from research.training.models.layers import using
    from research.workflow.load import load_run

    with using(layers) as own:
        bounds = None if finer is None else bound(load_run(run, own), finer)
    page, said = build(run, intrabar=None if bounds is None else bounds.figures), read_run(run).summary["evidence"]
    if quiet:
        show.fails(said, quiet=True)
    else:
        show.verdict(said)
        if bounds is not None:
            show.bounds(bounds)
    show.path(page)


@app.command()
def explain(
    run: RunFolder,
    symbol: Annotated[str, typer.Argument(metavar="SYMBOL")],
    time: Annotated[str, typer.Argument(help="decision time (the bar's close) or the bar's open, UTC", metavar="TIME")],
    layers: LayersFile = None,
    json: Json = False,
) -> None:
    """Explain one decision layer by layer: what each saw, said and why."""
    from research.runs.explain import explain_decision
    from research.training.models.layers import using

    with using(layers) as own:
        explanation = explain_decision(run, symbol, time, own)
    if json:
        print_json(explanation)
    else:
        show.explanation(explanation)


@app.command()
def scenarios(
    file: Annotated[Path, typer.Argument(help="scenario file", metavar="FILE")],
    profile: Annotated[str, typer.Option(help="published or original")] = "published",
    out: Annotated[Path | None, typer.Option("--json", help="write every case's outcome to this file", metavar="OUT")] = None,
    quiet: Quiet = False,
) -> None:
    """Run a scenario file through the kernels; exit 1 when a case fails."""
    from research.verify.scenarios import run_scenarios

    outcome = run_scenarios(file, profile=profile)
    show.scenarios(outcome, out, quiet)
    if outcome.count("failed"):
        raise typer.Exit(1)


@app.command()
def doctor(
    params: Annotated[bool, typer.Option("--params", help="list every parameter with default, bounds and meaning")] = False,
    json: Json = False,
) -> None:
    """Say what this machine has: versions, threads, GPU, caches, writable folders, known problems."""
    from research.cli.doctor import examine
    from research.runs.config import describe

    if json:
        print_json(describe() if params else examine())
    elif params:
        show.parameters(describe())
    else:
        show.machine(examine())
