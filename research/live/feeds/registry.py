"""Feed registry: who opens what `--feed PREFIX:NAME` names. A feed of one's own is registered beside ours.

    register_feed("broker", open_broker, flags=("symbols", "poll"))     ->  --feed broker:NAME --symbols A,B --poll 5

The opener gets the name and the flags that the user gave, and returns a `Feed`; a flag that it does not take is refused by name.
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from research.errors import ConfigError
from research.live.feeds.feeds import Feed, ReplayFeed, parse_speed

USUAL: Mapping[str, Any] = {"speed": "max", "adjusted": False}  # values of flags that nobody gave; None of all others
SPELT = {"start": "from", "end": "to"}  # flags that are called otherwise on the command line
UNSEEN = ("patience",)  # no flag: who does not take it does without
LOADING = ("symbols", "start", "end", "time_label", "calendar", "funding", "interval", "time_zone", "day_start", "adjusted")


@dataclass(frozen=True)
class Kind:
    """A kind of feed: its opener, the flags it takes, and how it is written after `--feed`."""

    opener: Callable[..., Feed]
    flags: tuple[str, ...]
    form: str


_KINDS: dict[str, Kind] = {}


def register_feed(prefix: str, opener: Callable[..., Feed], flags: Sequence[str] = (), form: str = "") -> None:
    """Let `--feed PREFIX:NAME` open a feed: `opener(name, **given)`, with those of its `flags` that were given.

    flags: `symbols`, `start`, `end`, `timeframe`, `poll`, `live_from`, `speed` and others of `qt live`. form: how messages write it,
    `PREFIX:NAME` unless told. A prefix that is known already is opened by the new one. Raises UserError on a prefix that is no word.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", prefix):
        raise ConfigError(f"prefix of a feed must be a word of small letters, digits, - and _, was {prefix!r}")
    _KINDS[prefix] = Kind(opener, tuple(flags), form or f"{prefix}:NAME")


def flags_of(opener: Callable[..., Feed]) -> tuple[str, ...]:
    """Return the flags that an opener takes: the names of its arguments after the first."""
    return tuple(inspect.signature(opener).parameters)[1:]


def open_feed(text: str, speed: str = "max", live_from: Any = None, exchange: Mapping[str, Any] | None = None, **how: Any) -> Feed:
    """Open what `--feed` names. how: flags of `load` (symbols, start, end, calendar, funding, ...); exchange: timeframe and poll.

    Raises UserError on an unknown kind, and on flags that do not go with it.
    """
    prefix, _, name = text.partition(":")
    kind = _KINDS.get(prefix)
    if kind is None or not name:
        raise ConfigError(f"--feed must be {_listed(_KINDS.values())}, was {text!r}")
    asked = {"live_from": live_from, **how, "speed": speed, **(exchange or {})}
    given = {flag: value for flag, value in asked.items() if value is not None and not (flag in USUAL and value == USUAL[flag])}
    for flag in given:
        if flag not in (*kind.flags, *UNSEEN):
            takers = _listed(other for other in _KINDS.values() if flag in other.flags) or "another feed"
            raise ConfigError(f"--{SPELT.get(flag, flag).replace('_', '-')} must go with {takers}, was given with {text!r}; leave it out")
    return kind.opener(name, **{flag: value for flag, value in given.items() if flag in kind.flags})


def _listed(kinds: Any) -> str:
    forms = [kind.form for kind in kinds]
    return " or ".join([", ".join(forms[:-1]), forms[-1]] if len(forms) > 1 else forms)


def _open_replay(name: str, speed: str = "max", live_from: Any = None, **how: Any) -> Feed:
    from research.data import load
    from research.data.clock import parse_time

    pace, since = parse_speed(speed), None if live_from is None else parse_time(live_from, "--live-from")
    loaded = load(name if name == "sample" or name.startswith("simulated:") else str(Path(name)), **how)
    feed = ReplayFeed(loaded.bars, pace, since, loaded.report.issues)
    feed.notes, feed.lacked = list(loaded.report.notes), list(loaded.report.lacked)
    return feed


def _open_exchange(name: str, symbols: Sequence[str] = (), **how: Any) -> Feed:
    from research.live.feeds.exchange import open_exchange

    return open_exchange(name, symbols, **how)


register_feed("replay", _open_replay, ("speed", "live_from", *LOADING), "replay:FILE")
register_feed("ccxt", _open_exchange, ("symbols", "start", "timeframe", "poll", "patience"), "ccxt:EXCHANGE")
