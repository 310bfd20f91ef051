"""Parameter schedules: stages of a rollout, and weights that were fitted along the way (`spec` D-85, D-36)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from qtcore.declare import time_text
from qtcore.types import InputError

STAGED = ("meta.enabled", "arbiter.enabled", "ensemble.regime_factors")  # read by the opinion alone, so no state is bound to them
SWITCHES = {"meta": "meta.enabled", "arbiter": "arbiter.enabled"}  # short names


@dataclass(frozen=True)
class Stage:
    """Parameters of the opinion that hold from a decision time on, until a later stage says otherwise."""

    start: int  # ns UTC
    values: tuple[tuple[str, Any], ...]  # names are in STAGED


def stage_tables(stages: Iterable[Any] | str) -> list[dict[str, Any]]:
    """Bring stages to `{"from": time, "layer.name": value}`. Raises InputError on another shape and on names that are not in STAGED.

    stages: such tables, where `meta` and `arbiter` stand for the switches, `(from, meta, arbiter)`, or a text.

    >>> stage_tables("2024-03-01 meta=on arbiter=off; 2024-04-01 arbiter=on")[1]
    {'from': '2024-04-01', 'arbiter.enabled': 'on'}
    """
    out = []
    if not isinstance(stages, str | Iterable):
        raise InputError(f"stages must be a list of tables, was {stages!r}")
    for given in _split(stages) if isinstance(stages, str) else stages:
        if not isinstance(given, Mapping):
            if not isinstance(given, tuple | list) or len(given) != 3:
                raise InputError(f"a stage must be (from, meta, arbiter), was {given!r}")
            given = dict(zip(("from", "meta", "arbiter"), given, strict=True))
        table = {SWITCHES.get(name, name): value for name, value in given.items()}
        if "from" not in table or not set(table) - {"from"} <= set(STAGED) or len(table) < 2:
            raise InputError(f"a stage must have a time `from` and some of meta, arbiter, {STAGED[2]}, was {', '.join(map(str, given))}")
        out.append(table)
    return out


def _split(text: str) -> list[dict[str, str]]:
    stages = [item.split() for item in text.split(";") if item.strip()]
    return [{"from": words[0]} | {name: value for name, _, value in (word.partition("=") for word in words[1:])} for words in stages]


def stages_text(stages: Iterable[Stage]) -> str:
    """Write stages as the text that `stage_tables` reads."""
    short = {name: word for word, name in SWITCHES.items()}
    parts = []
    for stage in stages:
        values = [(name, ("off", "on")[v] if isinstance(v, bool) else ",".join(map(str, v))) for name, v in stage.values]
        parts.append(" ".join([time_text(stage.start), *(f"{short.get(name, name)}={value}" for name, value in values)]))
    return "; ".join(parts)
