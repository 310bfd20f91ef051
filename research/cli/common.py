"""Shared parts of the commands: flags, progress, and how a mistake is told."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.exceptions
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from qtcore.types import InputError
from research.cli.terminal import Terminal
from research.errors import ConfigError, visible
from research.runs.config import Config, load_config
from research.training.models.base import PRESETS

Data = Annotated[str, typer.Argument(help="Parquet or CSV file, a folder of them, `sample`, or `simulated:NAME`", metavar="DATA")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file with a table per layer")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="layer.name=value, repeatable")]
PROFILES = "default (opinions in money), published (thresholds as published) or original (the original system's switches)"
Profile = Annotated[str, typer.Option(help=PROFILES)]
Symbols = Annotated[list[str] | None, typer.Option(help="symbols in the order they are governed: A,B,C or the flag repeated")]
From = Annotated[str | None, typer.Option("--from", help="first bar, UTC")]
To = Annotated[str | None, typer.Option("--to", help="bars before this time, UTC")]
TimeZone = Annotated[str | None, typer.Option("--time-zone", help="IANA zone of times that name none: America/New_York; default: UTC")]
DayStart = Annotated[str | None, typer.Option("--day-start", help="when the day of a dated bar opens: '17:00 America/New_York'")]
Declare = Annotated[int | None, typer.Option("--declare", help="say before the first trial on these candles how many there will be", min=1)]
Adjusted = Annotated[bool, typer.Option("--adjusted", help="read Adj Close, and scale the other prices with it")]
Out = Annotated[Path | None, typer.Option("--out", help="folder of the result")]
Seed = Annotated[int, typer.Option(help="seed of everything random")]
Preset = Annotated[str | None, typer.Option(help=f"parameters of every model: {', '.join(PRESETS)}; fast also means 4 folds")]
Engine = Annotated[str, typer.Option(help="local, or ray: the workers of a Ray cluster")]
Address = Annotated[str | None, typer.Option(help="host:port of a running Ray; without it one is started here")]
KnowsUntil = Annotated[
    str | None, typer.Option("--knows-until", help="latest data that predictions of others, or what a model brings, was made of; UTC")
]
LayersFile = Annotated[
    str | None,  # as it was given: an empty one is no folder
    typer.Option("--layers", help="Python file with models, features, judge, trade or feeds of your own; it is run", metavar="FILE"),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="print nothing but the result's path")]
Json = Annotated[bool, typer.Option("--json", help="print the result as JSON")]

LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}  # as typer's checks call them
ProgressCallback = Callable[[int, int, str], None]


def split_symbols(symbols: list[str] | None) -> list[str] | None:
    """Turn `A,B C` and repeated flags into one list; None when no flag was given."""
    if not symbols:
        return None
    return [name for text in symbols for name in text.replace(",", " ").split()]


def resolve(
    profile: str, config: Path | None, sets: list[str] | None, seed: int, preset: str | None = None, until: str | None = None
) -> Config:
    """Read the configuration; the flags `--seed`, `--preset` and `--knows-until` are `--set run.seed` and so on."""
    if until is not None and not until.strip():
        raise ConfigError("--knows-until must be a time, was empty; leave it out where nobody knows")
    own = [f"run.{name}={value}" for name, value in (("seed", seed), ("preset", preset), ("knows_until", until)) if value is not None]
    return load_config(profile, config, [*own, *(sets or [])])


class StoppedError(Exception):
    """The user interrupted a long command; the text says what is kept. typer would turn a KeyboardInterrupt into a bare exit code."""


@contextmanager
def progress(quiet: bool) -> Iterator[ProgressCallback]:
    """Yield a callback `(done, total, text)` that draws bars with the time left; nothing is drawn in a pipe."""
    try:
        with _bars(quiet) as update:
            yield update
    except KeyboardInterrupt as stop:
        raise StoppedError(str(stop) or "stopped") from None


@contextmanager
def _bars(quiet: bool) -> Iterator[ProgressCallback]:
    console = Terminal(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda done, total, text: None
        return
    columns = (
        TextColumn("{task.description:<32}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def update(done: int, total: int, text: str) -> None:
            stage = text.split(":")[0]
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total, description=text)

        yield update


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def say(sentence: str) -> None:
    """Write one line on standard error, safe to show."""
    sys.stderr.write(f"qt: {visible(sentence)}\n")


def _command_of(error: Exception) -> str:
    """Name the command that an error of usage is about: its help lists the flags that it takes."""
    names, context = [], getattr(error, "ctx", None)
    while context is not None and context.parent is not None:
        names.append(context.info_name)
        context = context.parent
    return " ".join(["qt", *reversed(names)])


def guarded(command: Callable[[], Any]) -> int:
    """Run a command and return its exit code: 0 done, 1 a check failed, 2 the user's mistake, 3 our fault.

    `command` returns the code of a `typer.Exit`, or None.
    """
    try:
        return command() or 0
    except (KeyboardInterrupt, StoppedError) as stop:
        say(str(stop) or "stopped")
        return 130
    except typer.exceptions.TyperException as error:  # an unknown command or flag, a missing argument
        message = _wrong_value(error) or (error.format_message() if hasattr(error, "format_message") else str(error))
        said = message.rstrip(". ")
        end = "" if not said else " " if said.endswith("?") else ". "
        say(f"{said}{end}`{_command_of(error)} --help` lists commands and flags.")
        return 2
    except InputError as error:
        say(str(error))
        return 2
    except OSError as error:
        what = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
        say(f"the file system refused: {what}; free space or choose another --out")
        return 2
    except Exception as error:
        path = _write_traceback()
        say(f"our fault, {type(error).__name__}: {error}; details are in {path}")
        return 3


def _wrong_value(error: Exception) -> str:
    """Say a value of the wrong kind or size in one sentence that names it, "" where the error is another."""
    checked = getattr(error.__context__, "errors", None)  # of typer's checks
    if checked is None:
        return ""
    found, param = checked()[0], getattr(error, "param", None)
    name = max(getattr(param, "opts", [""]), key=len) if getattr(param, "param_type_name", "") == "option" else getattr(param, "name", "")
    limits: dict[str, Any] = found.get("ctx", {})
    rule = {"int_parsing": "a whole number", "float_parsing": "a number", "bool_parsing": "on or off"}.get(found["type"])
    rule = rule or next((f"{word} {limits[key]}" for key, word in LIMITS.items() if key in limits), found["msg"].lower())
    return f"{name} must be {rule}, was {found['input']!r}"


def _write_traceback() -> Path:
    """Keep the details in a new file that nobody else can read, or have put there before."""
    import tempfile
    import traceback

    number, path = tempfile.mkstemp(prefix=f"qt-{time.strftime('%Y%m%d-%H%M%S')}-", suffix=".log")
    with open(number, "w", encoding="utf-8") as file:
        file.write(visible(traceback.format_exc(), "\n"))
    return Path(path)
