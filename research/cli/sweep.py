"""Command `qt sweep`: how a sweep is asked for and shown."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from research.cli import show
from research.cli.common import (
    Address,
    Adjusted,
    ConfigFile,
    DayStart,
    Declare,
    Engine,
    From,
    Json,
    KnowsUntil,
    LayersFile,
    Out,
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


def sweep(
    data: Annotated[str, typer.Argument(help="candles as for `qt backtest`, or the folder of a finished run", metavar="DATA_OR_RUN")],
    grid: Annotated[
        list[str] | None, typer.Option(help="layer.name=low:high:step, a,b,c or (random and adaptive search) low:high; repeatable")
    ] = None,
    where: Annotated[list[str] | None, typer.Option(help="constraint, e.g. 'max_drawdown < 0.15'; repeatable")] = None,
    objective: Annotated[
        str | None,
        typer.Option(help="figure that the best trial has the most of, and an adaptive search looks for; -NAME for the least; sharpe"),
    ] = None,
    search: Annotated[str | None, typer.Option(help="grid, random, or adaptive: settings that the trials so far make promising")] = None,
    trials: Annotated[int | None, typer.Option("--settings", help="settings of a random or adaptive search; default: 1,000")] = None,
    by_regime: Annotated[bool, typer.Option("--by-regime", help="also figures of each regime slice, as sharpe.volatility_low")] = False,
    engine: Engine = "local",
    address: Address = None,
    predictions: Annotated[Path | None, typer.Option(help="your base predictions: Parquet, CSV or JSON lines")] = None,
    models: Annotated[Path | None, typer.Option(help="folder that `qt train` wrote")] = None,
    walk_forward: Annotated[
        int, typer.Option("--walk-forward", help="also cut the test into so many folds, pick on each and score on the next", min=0)
    ] = 0,
    funding: Annotated[Path | None, typer.Option(help="funding rates of perpetuals: timestamp, symbol, funding_rate")] = None,
    symbols: Symbols = None,
    start: From = None,
    end: To = None,
    time_zone: TimeZone = None,
    day_start: DayStart = None,
    adjusted: Adjusted = False,
    knows_until: KnowsUntil = None,
    layers: LayersFile = None,
    profile: Profile = "default",
    config: ConfigFile = None,
    set_: Sets = None,
    out: Out = None,
    declare: Declare = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the sweep in --out")] = False,
    seed: Seed = 42,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Run the chain for every setting of a grid; each counts as a trial."""
    from research.report.terms import basis, swept_costs
    from research.training.models.layers import using
    from research.workflow.asked import SweepJob, parse_grid
    from research.workflow.backtest_job import Job
    from research.workflow.sweep_job import run_sweep

    job = Job(
        data,
        resolve(profile, config, set_, seed, until=knows_until),
        split_symbols(symbols),
        start,
        end,
        funding=funding,
        predictions=predictions,
        models=models,
        out=out,
        engine=engine,
        address=address,
        time_zone=time_zone,
        day_start=day_start,
        adjusted=adjusted,
        declare=declare,
    )
    flags: dict[str, Any] = {"objective": objective, "search": search, "settings": trials, "by_regime": by_regime or None}
    given = {name: value for name, value in flags.items() if value is not None} | ({"where": tuple(where)} if where else {})
    plan = replace(job.config.search, grid=parse_grid(tuple(grid or ())), seed=job.config.run.seed, **given)
    with using(layers, job.config.models) as own, progress(quiet or json) as update:
        outcome = run_sweep(SweepJob(replace(job, layers=own), plan, resume, walk_forward), update)
    said = outcome.summary["verdict"]
    if json:
        print_json(outcome.summary)
    elif quiet:
        show.path(outcome.page)
    else:
        show.verdict_first(said)
        show.console.print(basis(outcome.summary), soft_wrap=True, markup=False)
        show.lacked(outcome.summary["data"]["lacked"])
        costs = swept_costs(outcome.summary["space"]["axes"])
        for text in (*outcome.summary["assumptions"]["unread"], *([costs] if costs else [])):
            show.console.print(text, soft_wrap=True, markup=False)
        table = Table("", "", box=None, show_header=False, padding=(0, 2))
        for name, value in outcome.rows:
            table.add_row(name, value)
        show.console.print(table)
        if outcome.walk is not None:
            _print_walk(outcome.walk)
        show.console.print(f"\nverdict: {said['sentence']}", soft_wrap=True, markup=False)
        show.console.print("page: ", end="")
        show.path(outcome.page)
    if show.fails(said, quiet or json):
        raise typer.Exit(1)


def _print_walk(walk: Any) -> None:
    """Print a row a pick, and what they say."""
    from research.sweep.walk import pick_table

    headers, rows = pick_table(walk.table)
    table = Table(*headers, box=None, padding=(0, 1), title="walk forward", title_justify="left")
    for column in table.columns:
        column.no_wrap = "." in str(column.header)  # the name of a parameter
    for row in rows:
        table.add_row(*row)
    show.console.print()
    show.wide(table)
    show.console.print(walk.verdict["sentence"], soft_wrap=True)
