"""Commands `qt data`: check and describe candles, make longer bars, fetch from an exchange, simulate a market."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from research.cli.common import (
    Adjusted,
    Data,
    DayStart,
    From,
    Json,
    Quiet,
    Seed,
    Symbols,
    TimeZone,
    To,
    print_json,
    progress,
    split_symbols,
)
from research.cli.show import console, lacked, path
from research.errors import ConfigError, several

data_app = typer.Typer(no_args_is_help=True, help="Fetch, check, describe, resample and simulate candles.")

TimeLabel = Annotated[str, typer.Option(help="the timestamps are bar open or close times")]
Calendar = Annotated[str | None, typer.Option(help="regular (holes) or sessions (rows present); default: measured")]
Interval = Annotated[str | None, typer.Option(help="bar length such as 15m, 1h or 1M (months); default: the most common step")]
Output = Annotated[Path, typer.Option("--out", help="Parquet file to write")]


@data_app.command()
def check(
    data: Data,
    symbols: Symbols = None,
    start: From = None,
    end: To = None,
    time_label: TimeLabel = "open",
    calendar: Calendar = None,
    interval: Interval = None,
    time_zone: TimeZone = None,
    day_start: DayStart = None,
    adjusted: Adjusted = False,
    json: Json = False,
) -> None:
    """Report gaps, duplicates, disorder, impossible candles, zero volume, jumps, frozen prices, clock errors; exit 1 if a run stops."""
    from research.data.quality import quality

    report = quality(data, split_symbols(symbols), start, end, time_label, calendar, interval, time_zone, day_start, adjusted)
    if json:
        print_json(report.to_dict())
    else:
        table = _table("symbol", "problem", "rows", "of", "first", "a run")
        for row in report.to_dict()["issues"]:
            action = Text(row["action"], "bold red" if row["action"] == "stops" else "")
            table.add_row(row["symbol"], row["problem"].replace("_", " "), f"{row['count']:,}", f"{row['of']:,}", row["first"], action)
        if report.issues:
            console.print(table)
        for issue in report.issues:
            if issue.action == "stops":
                console.print(issue.text, soft_wrap=True)
        for text in (*report.mute, *report.notes):
            console.print(text, soft_wrap=True, markup=False)
        verdict = "a run stops" if report.stops else "fit to run"
        sizes = several(report.n_rows, "rows"), several(len(report.symbols), "symbols"), several(len(report.issues), "findings")
        console.print(f"{verdict}: {', '.join(sizes)}", soft_wrap=True)
    if report.stops:
        raise typer.Exit(1)


@data_app.command()
def info(
    data: Data,
    symbols: Symbols = None,
    start: From = None,
    end: To = None,
    time_label: TimeLabel = "open",
    calendar: Calendar = None,
    interval: Interval = None,
    time_zone: TimeZone = None,
    day_start: DayStart = None,
    adjusted: Adjusted = False,
    json: Json = False,
) -> None:
    """Describe candles: span, symbols, interval, grid, holes, annual factor, fingerprint."""
    from research.data import load
    from research.data.facts import info as describe

    names = split_symbols(symbols)
    loaded = load(data, names, start, end, time_label, calendar, None, interval, time_zone, day_start, adjusted)
    facts = describe(loaded.bars)
    if json:
        print_json({**facts, "warnings": loaded.report.warnings})
        return
    table = _table("", "")
    share = f"{facts['empty_share_of_regular_grid']:.1%} of a regular one is empty"
    rows = {
        "span": f"{facts['first_open']} to {facts['last_close']} UTC",
        "bars": f"{facts['rows']:,} of {facts['interval']}, {several(len(facts['symbols']), 'symbols')}",
        "grid": f"{facts['calendar']}, as {share}",
        "holes": f"{facts['holes']:,} of {facts['cells']:,} cells, {facts['empty_rows']:,} rows without any bar",
        "bars a year": f"{facts['bars_per_year']:,.1f}",
        "funding": "yes" if facts["has_funding"] else "no",
    }
    for name, text in rows.items():
        table.add_row(name, text)
    console.print(table)
    console.print(f"  fingerprint    {facts['fingerprint']}\n", soft_wrap=True)
    table = _table("symbol", "bars", "first", "last", "holes between")
    for name, row in facts["symbols"].items():
        table.add_row(name, f"{row['bars']:,}", row["first"], row["last"], f"{row['holes']:,}")
    console.print(table)
    for sentence in loaded.report.warnings:
        console.print(sentence, soft_wrap=True)


@data_app.command()
def resample(
    data: Data,
    interval: Annotated[str, typer.Option(help="new bar length: 15m, 4h, 1d, 1w, 1M (months)")],
    out: Output,
    symbols: Symbols = None,
    start: From = None,
    end: To = None,
    time_label: TimeLabel = "open",
    calendar: Calendar = None,
    time_zone: TimeZone = None,
    day_start: DayStart = None,
    adjusted: Adjusted = False,
    keep_incomplete: Annotated[bool, typer.Option("--keep-incomplete", help="keep bars of which a part is missing")] = False,
    quiet: Quiet = False,
) -> None:
    """Gather bars or trade ticks (timestamp, symbol, price, size) into longer bars."""
    from research.data import load, save_bars
    from research.data.resample import bars_from_ticks, is_ticks
    from research.data.resample import resample as gather

    names = split_symbols(symbols)
    if Path(data).exists() and is_ticks(data):
        bars = bars_from_ticks(data, interval, names, keep_incomplete)
    else:
        shorter = load(data, names, start, end, time_label, calendar, None, None, time_zone, day_start, adjusted)
        bars = gather(shorter.bars, interval, keep_incomplete)
        lacked(shorter.lacks(), quiet)
    if not quiet:
        console.print(f"{several(bars.n, 'bars')} of {interval}, {several(len(bars.symbols), 'symbols')}")
    path(save_bars(bars, out))


@data_app.command()
def fetch(
    exchange: Annotated[str, typer.Argument(help="name of an exchange, as ccxt spells it: binance, kraken, ...", metavar="EXCHANGE")],
    out: Output,
    symbols: Symbols = None,
    timeframe: Annotated[str, typer.Option(help="bar length that the exchange offers, such as 1m, 1h, 1d")] = "1h",
    start: From = None,
    end: To = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Fetch the history of an exchange; without --to up to the last closed bar. A killed fetch goes on when the command is given again."""
    from research.data.exchange import Exchange
    from research.data.fetch import fetch as bring
    from research.data.load import parse_span

    source = Exchange(exchange, split_symbols(symbols) or (), timeframe)
    try:
        with progress(quiet or json) as update:
            report = bring(source, parse_span(start, end), out, update)
    finally:
        source.close()
    if json:
        print_json(report)
        return
    if not quiet:
        table = _table("symbol", "bars", "first", "last", "missing", "longest gap")
        for name, row in report["symbols"].items():
            longest = max((gap["bars"] for gap in row["gaps"]), default=0)
            table.add_row(name, f"{row['rows']:,}", row["first"], row["last"], f"{row['missing']:,}", f"{longest:,}")
        console.print(table)
        for name, row in report["symbols"].items():
            if row["late_start"]:
                console.print(f"{name}: {exchange} has nothing before {row['first']}", soft_wrap=True)
    path(out)


@data_app.command()
def simulate(
    world: Annotated[str | None, typer.Argument(help="name of a world; see --list", metavar="[WORLD]")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Parquet file to write")] = None,
    bars: Annotated[int, typer.Option(help="number of bars")] = 6_000,
    symbols: Annotated[int, typer.Option(help="number of symbols")] = 5,
    interval: Annotated[str, typer.Option(help="bar length")] = "1h",
    set_: Annotated[list[str] | None, typer.Option("--set", help="name=value of the world's own parameters, repeatable")] = None,
    seed: Seed = 0,
    list_: Annotated[bool, typer.Option("--list", help="list the worlds, their parameters and what a test must find")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write a simulated market with a known answer; DATA of other commands may also be `simulated:WORLD?seed=1&n_bars=6000`."""
    from research.data import save_bars
    from research.data.simulate import describe_worlds, parse_params, simulate_blocks

    if list_:
        if json:
            print_json(describe_worlds())
            return
        table = _table("world", "what it is", "known answer", "parameters")
        for row in describe_worlds():
            table.add_row(row["name"], row["what"], row["answer"], ", ".join(f"{k}={v:g}" for k, v in row["parameters"].items()))
        console.print(table)
        return
    if world is None or out is None:
        raise ConfigError(
            f"simulate needs a world and --out, was without {'a world' if world is None else '--out'}; --list shows the worlds"
        )
    own = parse_params(set_ or [], world)
    flags = {"n_bars": "--bars", "n_symbols": "--symbols", "interval": "--interval", "seed": "--seed"}
    if twice := next((name for name in own if name in flags), None):
        raise ConfigError(f"--set must name a parameter of the world's own, was {twice}; say it with {flags[twice]}")
    blocks = simulate_blocks(world, seed, bars, symbols, interval, **own)
    written = save_bars(blocks, out)
    if not quiet:
        console.print(f"{several(bars, 'bars')} of {interval}, {several(symbols, 'symbols')}")
    path(written)


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, padding=(0, 2), show_header=any(columns))
