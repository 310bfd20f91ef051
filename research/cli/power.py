"""Command `qt power`: what a history can show at all, before any work is done on it."""

from typing import Annotated

import typer
from rich.table import Table

from research.cli import show
from research.cli.common import (
    Adjusted,
    ConfigFile,
    Data,
    DayStart,
    From,
    Json,
    Profile,
    Sets,
    Symbols,
    TimeZone,
    To,
    print_json,
    resolve,
    split_symbols,
)


def power(
    data: Data,
    trials: Annotated[
        int | None, typer.Option(min=1, help="as if there had been so many independent trials, the next included; default: the ledger's")
    ] = None,
    symbols: Symbols = None,
    start: From = None,
    end: To = None,
    time_zone: TimeZone = None,
    day_start: DayStart = None,
    adjusted: Adjusted = False,
    profile: Profile = "default",
    config: ConfigFile = None,
    set_: Sets = None,
    json: Json = False,
) -> None:
    """Say what this history can show after the trials so far: the smallest Sharpe ratio and accuracy, and the years that others need."""
    from research.data import load
    from research.evidence import power as measured

    asked = resolve(profile, config, set_, 42)
    loaded = load(data, split_symbols(symbols), start, end, time_zone=time_zone, day_start=day_start, adjusted=adjusted)
    show.lacked(loaded.lacks(asked.params), json)
    found = measured.power(loaded.bars, str(asked.run.label), trials=trials, train_share=asked.run.train_share)
    if json:
        print_json(found.to_dict())
        return
    show.console.print(measured.sentence(found), soft_wrap=True, markup=False)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("Sharpe a year", "found in", "years of test for 80 %", "of history"):
        table.add_column(name, justify="right", no_wrap=True)
    share = 1.0 - asked.run.train_share
    for sharpe, part in found.found.items():
        years = found.years_needed[sharpe]
        table.add_row(
            f"{sharpe:.1f}", f"{100.0 * part:.0f} %", *("over 100" if not x <= 100.0 else f"{x:.1f}" for x in (years, years / share))
        )
    show.wide(table)
    show.console.print(measured.CAVEAT, soft_wrap=True)
