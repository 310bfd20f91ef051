"""Commands that run and steer paper trading: `qt live` and what is said to a running one."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from research.cli import show
from research.cli.common import (
    Adjusted,
    ConfigFile,
    DayStart,
    From,
    Json,
    LayersFile,
    Profile,
    Quiet,
    Sets,
    Symbols,
    TimeZone,
    To,
    print_json,
    progress,
    split_symbols,
)

live_app = typer.Typer(invoke_without_command=True, no_args_is_help=False, help="Trade on paper, one closed bar at a time.")

Values = Annotated[list[str], typer.Argument(help="layer.name=value", metavar="NAME=VALUE...")]
Stage = Annotated[int, typer.Argument(min=0, max=3, help="0 ensemble, 1 meta layer, 2 arbiter too, 3 as 2: under review")]
JournalFile = Annotated[Path, typer.Argument(help="journal that `qt live` writes", metavar="JOURNAL")]


@live_app.callback()
def live(
    context: typer.Context,
    feed: Annotated[
        str | None, typer.Option(help="replay:FILE, ccxt:EXCHANGE (also EXCHANGE,ws or EXCHANGE,trades), or a feed of --layers")
    ] = None,
    journal: Annotated[Path | None, typer.Option(help="file that keeps every bar; a known one is continued")] = None,
    predictions: Annotated[Path | None, typer.Option(help="a run's predictions.parquet, for replays")] = None,
    models: Annotated[str | None, typer.Option(help="folder that `qt train` wrote, or a name of the registry")] = None,
    meta: Annotated[Path | None, typer.Option(envvar="META_V2_MODEL_DIR", help="folder of a trained meta layer")] = None,
    allow_rejected: Annotated[
        bool, typer.Option("--allow-rejected", help="serve models that would be refused as rejected or without skill")
    ] = False,
    allow_synthetic: Annotated[bool, typer.Option("--allow-synthetic", help="serve models trained on made-up labels")] = False,
    speed: Annotated[str, typer.Option(help="of a replay: max, or bars a second")] = "max",
    live_from: Annotated[str | None, typer.Option(help="bars before this time are history: features only, nobody votes")] = None,
    stages: Annotated[str | None, typer.Option(help="staged rollout ahead of time: TIME=STAGE,TIME=STAGE")] = None,
    import_governor: Annotated[Path | None, typer.Option(help="governor state file to start a new journal from")] = None,
    log: Annotated[Path | None, typer.Option(help="write a line for every event of a bar to this file, rotated at 10 MB")] = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="the lines as JSON objects")] = False,
    budget: Annotated[float, typer.Option(min=0.0, help="ms allowed from a closed bar to the journal; what takes longer is noted")] = 250.0,
    alert: Annotated[str | None, typer.Option(help="command, or http(s) address, that is told of stop, drawdown, feed loss, drift")] = None,
    funding: Annotated[Path | None, typer.Option(help="funding rates of perpetuals: timestamp, symbol, funding_rate")] = None,
    timeframe: Annotated[str | None, typer.Option(help="bar length of an exchange's candles: 1m, 1h, ...; default 1h")] = None,
    poll: Annotated[float | None, typer.Option(min=0.0, help="s between looks at an exchange; default: 1 to 10 by bar length")] = None,
    symbols: Symbols = None,
    start: From = None,
    end: To = None,
    calendar: Annotated[str | None, typer.Option(help="regular (holes) or sessions (rows present); default: measured")] = None,
    time_zone: TimeZone = None,
    day_start: DayStart = None,
    adjusted: Adjusted = False,
    layers: LayersFile = None,
    profile: Profile = "default",
    config: ConfigFile = None,
    set_: Sets = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Run the chain on paper; Ctrl-C ends after the bar that is being decided, the next start continues."""
    if context.invoked_subcommand is not None:
        return
    from research.live.feeds.feeds import ReplayFeed
    from research.live.monitoring.status_source import ALLOWED, allowed_texts
    from research.live.session.controls import from_environment
    from research.live.session.fast_start import quiet_heap
    from research.live.start import LiveOptions, start_live, unheard
    from research.runs.config import load_config
    from research.runs.money import BASIS_POINTS
    from research.training.models.layers import using

    settings = load_config(profile, config, set_ or [], from_environment(os.environ))
    how: dict[str, Any] = {"symbols": split_symbols(symbols), "start": start, "end": end, "calendar": calendar, "funding": funding}
    how |= {"time_zone": time_zone, "day_start": day_start, "adjusted": adjusted}
    wish = LiveOptions(
        feed,
        journal,
        settings,
        predictions,
        models,
        meta,
        allow_rejected,
        allow_synthetic,
        speed,
        live_from,
        stages,
        import_governor,
        log,
        log_json,
        budget,
        alert,
        how,
        {"timeframe": timeframe, "poll": poll},
        is_alone=True,
    )
    with using(layers, settings.models) as own, progress(quiet or json) as update, quiet_heap() as settle:
        runner, close = start_live(replace(wish, layers=own), update)
        runner.ready = settle
        lacked = runner.feed.lacked if isinstance(runner.feed, ReplayFeed) else None
        if lacked is not None and not (quiet or json):
            show.lacked(lacked)
        if not (quiet or json):
            show.served([*allowed_texts(runner.models_about.get(ALLOWED, {})), *unheard(runner)])
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, runner.stop)
        try:
            outcome = runner.run()
        finally:
            close()
    latency = sorted(outcome.latency)
    told: dict[str, Any] = {
        "journal": str(journal),
        "bars": outcome.bars,
        "resumed": outcome.resumed,
        "equity": outcome.equity,
        "orders": outcome.orders,
        "gross_edge_bp": BASIS_POINTS * outcome.gross if outcome.gross == outcome.gross else None,
        "edge_bp": BASIS_POINTS * outcome.edge if outcome.edge == outcome.edge else None,
        "stopped": outcome.is_stopped,
        "median_ms": latency[len(latency) // 2] / 1e6 if latency else None,
        "p99_ms": latency[len(latency) * 99 // 100] / 1e6 if latency else None,
    }
    if json:
        print_json(told | ({} if lacked is None else {"lacked": lacked}))
    elif quiet:
        show.path(Path(told["journal"]))
    else:
        show.lived(told)


@live_app.command()
def stop(
    journal: JournalFile,
    now: Annotated[bool, typer.Option("--now", help="also close what is open at the next open")] = False,
    lift: Annotated[bool, typer.Option("--lift", help="allow entries again")] = False,
) -> None:
    """Throw the kill switch: no entries from the next bar on, exits go on."""
    from research.live.session.controls import command

    command(journal, {"do": "lift"} if lift else {"do": "stop", "now": now})
    show.console.print("entries are allowed again from the next bar on" if lift else "no entries from the next bar on")


@live_app.command("set")
def set_values(journal: JournalFile, values: Values) -> None:
    """Change parameters of the running chain at the next bar: `qt live set JOURNAL arbiter.enabled=false`."""
    from research.live.session.controls import command, command_set

    for text in command(journal, command_set(values)):
        show.console.print(text, soft_wrap=True, markup=False)
    show.console.print("in effect at the next bar")


@live_app.command()
def stage(journal: JournalFile, number: Stage) -> None:
    """Move the staged rollout: meta layer and arbiter on or off at the next bar, positions untouched."""
    from research.live.session.controls import STAGES, command

    meta, arbiter = STAGES[number]
    command(journal, {"do": "set", "values": {"meta.enabled": meta, "arbiter.enabled": arbiter}})
    show.console.print(f"stage {number} at the next bar: meta layer {'on' if meta else 'off'}, arbiter {'on' if arbiter else 'off'}")
