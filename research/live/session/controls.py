"""Runtime controls: who may change parameters while the chain runs, and when it holds. Commands in the journal, a kill-switch file.

Everything takes effect at the next bar and touches no position (`spec` 11.4). The kill switch blocks entries and drops pending ones, exits
go on; `now` also closes what is open at the next open. What was commanded survives a restart; the file acts while it exists. Parameters
that cannot hold together with the others are refused: by `command` at once, and by the runner, whose own may be others by then, with an
event; they change nothing from then on.
"""

import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qtcore import Params
from qtcore.reading import unread
from qtcore.types import InputError
from research.errors import ConfigError, UserError, refusing
from research.live.journal.journal import Journal
from research.live.records import Event
from research.live.storage.cells import command_of, params_of, rows_of, voters_of, voting_of
from research.live.storage.files import COMMAND_SECONDS, check_version, connect, guarded, read_about
from research.live.storage.place import resolved
from research.training.weights import Named, settled

FIXED = (
    "features.",
    "broker.",
    "meta.mode",
    "decide.rule",
    "ensemble.rule",
    "governor.book",
    "governor.neutral",
)  # what fills, models, their meta layer and maps were made with
STAGES = {0: (False, False), 1: (True, False), 2: (True, True), 3: (True, True)}  # meta, arbiter (`spec` 11.4)
STOP = {"governor.emergency_stop": True}
STOP_NOW = {**STOP, "governor.flatten_on_kill": True}
ENVIRONMENT = {
    "META_AGENT_ENABLED": "meta.enabled",
    "META_OVERRIDE_THRESHOLD": "meta.override_threshold",
    "META_V5_THRESHOLD": "meta.v5_threshold",
    "META_FAIL_OPEN": "meta.fail_open",
    "ARBITER_ENABLED": "arbiter.enabled",
    "ARBITER_THRESHOLD": "arbiter.gate_confidence",
    "GOVERNOR_MAX_DAILY_TRADES": "governor.max_daily_trades",
}
BOOLEANS = ("META_AGENT_ENABLED", "META_FAIL_OPEN", "ARBITER_ENABLED")


def from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters that the original's variables set; only what is set counts (`spec` 11.3, D-85).

    A boolean is on for `true` in any case and off for anything else. Raises UserError naming the variable that is out of bounds.

    >>> from_environment({"META_AGENT_ENABLED": "TRUE", "ARBITER_THRESHOLD": "0.8", "HOME": "x"})
    {'meta.enabled': True, 'arbiter.gate_confidence': 0.8}
    """
    found: dict[str, Any] = {}
    for name, parameter in ENVIRONMENT.items():
        if (text := environment.get(name)) is not None:
            value: Any = text.strip().lower() == "true" if name in BOOLEANS else text.strip()
            try:
                found[parameter] = Params().with_values({parameter: value}).flat()[parameter]
            except InputError as error:
                raise UserError(f"environment variable {name}: {error}") from error
    return found


def parse_stages(text: str) -> list[tuple[str, bool, bool]]:
    """Read `TIME=STAGE,TIME=STAGE` into rows (from, meta, arbiter); the times are checked with the parameters.

    >>> parse_stages("2024-03-01=1, 2024-03-08=2")
    [('2024-03-01', True, False), ('2024-03-08', True, True)]
    """
    found = []
    for part in text.split(","):
        time, sign, number = part.rpartition("=")
        if not sign or number.strip() not in map(str, STAGES):
            raise ConfigError(f"--stages must be TIME=STAGE with a stage of 0 to 3, was {part!r}")
        found.append((time.strip(), *STAGES[int(number)]))
    return found


@dataclass
class Controls:
    """Parameters between bars: `base`, then commands, then the kill-switch file; the later one wins.

    A commanded stage ends a schedule of stages.
    """

    journal: Journal
    base: Params
    kill_file: Path
    _set: dict[str, Any] = field(default_factory=dict)
    _refused: list[str] = field(default_factory=list)  # sentences that no event tells yet
    _is_killed: bool | None = None

    def __post_init__(self) -> None:
        for _, command in self.journal.commands(is_applied=True):
            self._take(command)  # one that a bar was sealed with is not marked: where it cannot hold with `base`, every start tells so

    def params(self, bar: int, now: int) -> tuple[Params, str] | None:
        """Return the parameters from `bar` on, which closed at `now` ns UTC, and why they differ, None where nothing changed."""
        commands = self.journal.commands()
        taken = {number: self._take(command) for number, command in commands}
        causes = [_said(command) for number, command in commands if taken[number]]
        if commands:
            self.journal.applied(taken, bar)
        if self._refused:
            self.journal.note([Event(now, "refused", text) for text in self._refused], bar)
            self._refused = []
        is_killed = self.kill_file.exists()
        if not commands and self._is_killed == is_killed:
            return None
        if self._is_killed is None and not causes:
            causes.append("started")
        if is_killed != bool(self._is_killed):
            causes.append(f"kill-switch file {'found' if is_killed else 'gone'}")
        self._is_killed = is_killed
        return with_commanded(self.base, self._set | (STOP if is_killed else {})), "; ".join(causes)

    def _take(self, command: dict[str, Any]) -> bool:
        """Follow a command that can hold with the others, and say whether it can."""
        values = after(self._set, command)
        try:
            with_commanded(self.base, values)
        except UserError as error:
            self._refused.append(f"{_said(command)}: refused, {error}")
            return False
        self._set = values
        return True


def _said(command: Mapping[str, Any]) -> str:
    return "command: " + " ".join(str(x) for x in command.values())


def after(values: Mapping[str, Any], command: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that are commanded after one more command."""
    if command["do"] == "set":
        return {**values, **command["values"]}
    if command["do"] == "stop":
        return {**values, **(STOP_NOW if command["now"] else STOP)}
    if command["do"] == "lift":
        return {name: value for name, value in values.items() if name not in STOP_NOW}
    return dict(values)


def with_commanded(params: Params, values: Mapping[str, Any]) -> Params:
    """Return the parameters of a run with what was commanded. Raises UserError where they cannot hold together, or with its voters."""
    with refusing(ConfigError):
        return settled(params.with_values(values), Named(*params.voters))


def kill_file_of(journal: Path) -> Path:
    """Name the file whose existence is the kill switch of a journal."""
    return journal.with_name(f"{journal.name}.kill")


def command(journal: Path, what: Mapping[str, Any]) -> tuple[str, ...]:
    """Leave a command for the runner of `journal`; it takes effect at the next bar. Returns a sentence on each that will not be read.

    Raises UserError where there is no journal, and on parameters that cannot hold with its voters and what was commanded before.
    """
    told: tuple[str, ...] = ()
    journal = resolved(journal)
    if not journal.exists():
        raise UserError(f"journal must be a file that `qt live` wrote, was missing: {journal}")
    with guarded(journal):
        db = connect(journal, patience=COMMAND_SECONDS, check=lambda db: check_version(db, journal))
        try:
            check_version(db, journal)
            if what["do"] == "set":
                told = check_set(db, what)
            db.execute("INSERT INTO control (time, command) VALUES (?, ?)", (time.time_ns(), json.dumps(dict(what))))
        except sqlite3.OperationalError as error:
            raise UserError(f"journal must be free for writing, was held by another process: {journal} ({error}); try again") from error
        finally:
            db.close()
    return told


def check_set(db: sqlite3.Connection, what: Mapping[str, Any]) -> tuple[str, ...]:
    """Raise UserError unless the newest parameters of a journal, with the commands that wait, can take one more; say what is not read."""
    about, found = read_about(db), rows_of(db.execute("SELECT params FROM versions ORDER BY id DESC LIMIT 1"))
    params = params_of(found[0][0]) if found else Params()
    params, values = params.for_voters(voters_of(about), voting_of(about)), dict[str, Any]()
    for (text,) in rows_of(db.execute("SELECT command FROM control WHERE applied_bar IS NULL ORDER BY id")):
        values = after(values, command_of(text))
    return unread(with_commanded(params, after(values, what)), what["values"])


def command_set(texts: list[str]) -> dict[str, Any]:
    """Check `layer.name=value` texts and return them as a command. Raises UserError on what cannot change while running.

    >>> command_set(["arbiter.enabled=false"])
    {'do': 'set', 'values': {'arbiter.enabled': False}}
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        name = name.strip()
        if not sign or name.startswith(FIXED):
            taken = "ensemble (but its rule), meta (but its mode), arbiter, decide (but its rule) or governor"
            raise UserError(f"a running chain takes layer.name=value of {taken}, was {text!r}")
        values[name] = Params().with_values({name: value.strip()}).flat()[name]
    return {"do": "set", "values": values}
