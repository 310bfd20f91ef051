"""Commands that look at paper trading or a finished run: one shot, in the terminal, in a browser, as a verdict."""

import os
import secrets
import time
from pathlib import Path
from typing import Annotated

import typer

from research.cli import show
from research.cli.common import Adjusted, DayStart, Json, LayersFile, TimeZone, print_json
from research.errors import ConfigError
from research.runs.verdict import FAILING

Source = Annotated[Path, typer.Argument(help="journal of `qt live`, or a run's folder", metavar="SRC")]


def status(
    source: Source,
    governor: Annotated[Path | None, typer.Option("--governor", help="also write the governor's state file, for people")] = None,
    export: Annotated[Path | None, typer.Option("--export", help="write the journal as a run's folder, for report and verify")] = None,
    meta: Annotated[Path | None, typer.Option(help="with --export: folder of the meta layer that live served, where it was moved")] = None,
    layers: LayersFile = None,
) -> None:
    """Print the state of a live journal or a finished run as JSON; with --export also write a journal as a run's folder."""
    from research.live.monitoring.governor_export import export_governor
    from research.live.monitoring.health import status as status_of
    from research.live.monitoring.sources import open_source

    for flag, value in (("--meta", meta), ("--layers", layers)):
        if value is not None and export is None:
            raise ConfigError(f"{flag} must come with --export, was {value} without; leave it out")
    opened = open_source(source)
    opened.check()
    if governor is not None:
        export_governor(opened, governor)
    if export is not None:
        from research.training.models.layers import using
        from research.workflow.load import export_run

        if source.is_dir():
            raise ConfigError(f"--export must get a journal of `qt live`, was the run {source}; it is a run's folder already")
        with using(layers):
            export_run(source, export, meta)
    print_json(status_of(opened))


def monitor(
    source: Source,
    interval: Annotated[float, typer.Option(min=0.1, help="seconds between looks")] = 5.0,
    once: Annotated[bool, typer.Option("--once", help="draw once and end")] = False,
) -> None:
    """Watch a live journal or a finished run in the terminal; Ctrl-C ends."""
    from rich.live import Live

    from research.live.dashboard.monitor import screen
    from research.live.monitoring.sources import open_source

    opened = open_source(source)
    if once or not show.console.is_terminal:
        show.console.print(screen(opened))
        return
    try:
        with Live(screen(opened), console=show.console, screen=True, auto_refresh=False) as view:
            while True:
                time.sleep(interval)
                view.update(screen(opened), refresh=True)
    except KeyboardInterrupt:
        return


def dashboard(
    source: Source,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8050,
    host: Annotated[str, typer.Option(help="address to bind; the default is reachable from this machine alone")] = "127.0.0.1",
    token: Annotated[
        str | None, typer.Option(envvar="QT_TOKEN", help="needed to change state; default: a new one, shown on a terminal")
    ] = None,
) -> None:
    """Serve the web view, the status API and Prometheus metrics of a live journal or a finished run; Ctrl-C ends."""
    from research.live.dashboard.server import LOOPBACK, Dashboard, check_token, page
    from research.live.monitoring.sources import open_source

    token = os.environ.get("QT_TOKEN") if token is None else token  # one that is set to nothing is a mistake too
    if token is not None:
        check_token(token)
    is_shown = token is None and show.console.is_terminal  # never into the log of a service
    opened = open_source(source)
    server = Dashboard(opened, port, host, token or (secrets.token_urlsafe(24) if is_shown else ""))
    page(opened)  # counts what is there, so that the first visitor does not wait for it
    show.verdict(opened.verdict())
    show.console.print(server.url, soft_wrap=True)
    if host not in LOOPBACK:
        show.console.print(f"everyone who reaches {host} can read it; 127.0.0.1 and an SSH tunnel are safer", soft_wrap=True, markup=False)
    if is_shown:
        show.console.print(f"token for POST requests: {server.token}", soft_wrap=True, markup=False)
    elif not server.token:
        show.console.print("POST requests are refused: QT_TOKEN is not set", soft_wrap=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        return
    finally:
        server.server_close()


def validate(source: Source, json: Json = False) -> None:
    """Check a live journal or a finished run (models, variety, governor, errors); exit 1 unless it passed.

    A finished run whose verdict is invalid or implausible exits 1 too, whatever its layers do.
    """
    from research.live.monitoring.health import validate as validate_source
    from research.live.monitoring.sources import open_source

    opened = open_source(source)
    opened.check()
    report = validate_source(opened)
    verdict = report["validation"]["verdict"]
    if json:
        print_json(report)
    else:
        show.verdict(report)
        for name, check in report["validation"]["checks"].items():
            word = "warns " if check.get("warning") else "passed" if check["passed"] else "FAILED"
            value = f"{check['value']:.4g}" if isinstance(check["value"], float) else str(check["value"])
            show.console.print(f"{word}  {name.replace('_', ' '):<18} {value:>8}   {check['rule']}", markup=False, highlight=False)
        for text in report["allowed"]:
            show.console.print(f"allowed  {text}", soft_wrap=True, markup=False)
        show.console.print(f"layers: {verdict}{', with models that are not accepted' if report['allowed'] else ''}")
    if verdict != "PASSED" or report["verdict"] in FAILING:
        raise typer.Exit(1)


def live_gap(
    journal: Annotated[Path, typer.Argument(help="journal of `qt live`", metavar="JOURNAL")],
    reference: Annotated[Path | None, typer.Option(help="candles as they are known today: Parquet or CSV file")] = None,
    meta: Annotated[Path | None, typer.Option(help="folder of the meta layer that live served")] = None,
    layers: LayersFile = None,
    time_zone: TimeZone = None,
    day_start: DayStart = None,
    adjusted: Adjusted = False,
    json: Json = False,
) -> None:
    """Say why live and backtest differ; exit 1 when a decision cannot be reproduced from the journal's own inputs."""
    from research.data import load
    from research.live.monitoring.gap import live_gap as gap_of
    from research.live.monitoring.journal_source import JournalSource
    from research.training.meta.schedule import MetaSchedule
    from research.training.models.layers import using

    learned = None if meta is None else MetaSchedule.load(meta)
    JournalSource(journal).check()
    known = None if reference is None else load(reference, time_zone=time_zone, day_start=day_start, adjusted=adjusted)
    if known is not None:
        show.lacked(known.lacks(), json)
    with using(layers):
        report = gap_of(journal, None if known is None else known.bars, learned)
    if json:
        print_json(report)
    else:
        show.gap(report)
    if not report["identical"]:
        raise typer.Exit(1)
