"""Feed registry: who opens what `--feed PREFIX:NAME` names. A feed of one's own is registered beside ours.

    register_feed("broker", open_broker, flags=("symbols", "poll"))     ->  --feed broker:NAME --symbols A,B --poll 5

The opener gets the name and the flags that the user gave, and returns a `Feed`; a flag that it does not take is refused by name.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtcore.own_code import own_code, shown
from research.errors import ConfigError, refusing
from research.live.feeds.feeds import Feed, ReplayFeed, parse_speed
from research.training.models.layers import FEEDS, PREFIX, in_use

USUAL: Mapping[str, Any] = {"speed": "max", "adjusted": False}  # values of flags that nobody gave; None of all others
SPELT = {"start": "from", "end": "to"}  # flags that are called otherwise on the command line
UNSEEN = ("patience",)  # no flag: who does not take it does without
LOADING = ("symbols", "start", "end", "time_label", "calendar", "funding", "interval", "time_zone", "day_start", "adjusted")

MEMBERS = ("symbols", "interval", "history", "arrivals", "close")  # of a feed


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
    if not PREFIX.fullmatch(prefix):
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
    kinds = _KINDS | {mine: Kind(opener, flags_of(opener), f"{mine}:NAME") for mine, opener in in_use().feeds.items()}
    kind = kinds.get(prefix)
    if kind is None or not name:
        remedy = "; a feed of your own comes with --layers" if kind is None else ""
        raise ConfigError(f"--feed must be {_listed(kinds.values())}, was {text!r}{remedy}")
    asked = {"live_from": live_from, **how, "speed": speed, **(exchange or {})}
    given = {flag: value for flag, value in asked.items() if value is not None and not (flag in USUAL and value == USUAL[flag])}
    for flag in given:
        if flag not in (*kind.flags, *UNSEEN):
            if prefix not in FEEDS:
                rule = f"{_spelt(flag)} must be an argument {flag} of the function that opens {prefix}:"
                raise ConfigError(f"{rule}, was given with {text!r}, which takes none; add it there, or leave the flag out")
            takers = _listed(other for other in kinds.values() if flag in other.flags) or "another feed"
            raise ConfigError(f"{_spelt(flag)} must go with {takers}, was given with {text!r}; leave it out")
    with feed_code(text):
        feed = kind.opener(name, **{flag: value for flag, value in given.items() if flag in kind.flags})
    if prefix not in FEEDS:
        _check_feed(feed, text)
    return feed


@contextmanager
def feed_code(text: str) -> Iterator[None]:
    """Run code of the feed that `--feed` names. Raises ConfigError that names it for whatever an own one raises."""
    if text.partition(":")[0] in FEEDS:
        yield
        return
    with refusing(ConfigError), own_code(f"the own feed {text} must run without errors"):
        yield


def _check_feed(feed: Any, text: str) -> None:
    """Raise ConfigError unless what an own opener returned can be asked as a feed."""
    with feed_code(text):
        lacks = [name for name in MEMBERS if not hasattr(feed, name)]
    if lacks:
        rule = f"what opens the own feed {text} must return a Feed"
        raise ConfigError(f"{rule}, was {shown(feed)} without {', '.join(lacks)}; see docs/extending.md")
    with feed_code(text):
        symbols, interval, is_replay = feed.symbols, feed.interval, getattr(feed, "is_replay", False)
    if not isinstance(symbols, tuple) or not symbols or not all(isinstance(name, str) for name in symbols):
        raise ConfigError(f"symbols of the own feed {text} must be a tuple of names, was {shown(symbols)}; correct it")
    if not isinstance(interval, int) or interval <= 0:
        raise ConfigError(f"interval of the own feed {text} must be a whole number of ns above 0, was {shown(interval)}; correct it")
    if not isinstance(is_replay, bool):
        raise ConfigError(f"is_replay of the own feed {text} must be True or False, was {shown(is_replay)}; correct it")


def _spelt(flag: str) -> str:
    return f"--{SPELT.get(flag, flag).replace('_', '-')}"


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
