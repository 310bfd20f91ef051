"""Reading of parameters: which of them a run reads, and what to say of one that is set and is not read.

The declarations say when (`qtcore.declare.When`); a test changes what they call unread, and no bit of a run may move.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from qtcore.declare import When, value_text
from qtcore.params import BY_NAME, LAYERS, Params
from qtcore.types import InputError

NEAREST = ("published", "default")  # profiles that a remedy may name, the fixed one first
WHEN: dict[str, When] = {
    f"{layer.name}.{spec.name}": spec.metadata["when"]
    for layer in LAYERS
    for spec in fields(layer.default)  # type: ignore[arg-type]
    if spec.metadata.get("when")
}

DECIDES = frozenset(name for when in WHEN.values() for alternative in when for name in alternative)  # whether others are read


def is_read(params: Params, name: str, tried: Mapping[str, Sequence[Any]] | None = None) -> bool:
    """Say whether the chain reads a parameter, in one of the stages at least.

    name: `layer.name`, or a weight by name. tried: checked values of parameters that are tried beside each other, by `layer.name`; one
    setting that reads it is enough.
    """
    when = WHEN.get(_declared(name), ())
    return not when or any(not _unmet(part, alternative, tried or {}) for part in params.staged for alternative in when)


def unread(params: Params, names: Iterable[str] | None = None, tried: Mapping[str, Sequence[Any]] | None = None) -> tuple[str, ...]:
    """Say what is set and not read, one sentence each.

    names: what was set; None: what differs from the profile that `params` are made of. tried: as in `is_read`.

    >>> unread(Params.profile("published").with_values({"governor.sizing_mode": "kelly_confidence", "governor.win_rate": 0.6}))
    ('governor.win_rate is set and not read where governor.sizing_mode is kelly_confidence; set governor.sizing_mode=kelly_win_rate',)
    """
    if names is None:
        usual, mine = Params.profile(params.made_of).flat(), params.flat()
        names = [name for name in mine if mine[name] != usual.get(name)]
    return tuple(f"{name} is set and not read {why_unread(params, name)}" for name in names if not is_read(params, name, tried))


def why_unread(params: Params, name: str) -> str:
    """Say of a parameter that is not read where that is so, and the shortest remedy."""
    when = WHEN[_declared(name)]
    remedies = [
        (len(values) + (base is not params), base, values)
        for base in (params, *map(Params.profile, NEAREST))
        for values in ({n: known[0] for n, known in _unmet(base, alternative, {}).items()} for alternative in when)
        if _goes_together(base, values)
    ]
    _, base, values = min(remedies, key=lambda remedy: remedy[0])
    nearest = min((_unmet(params.staged[0], alternative, {}) for alternative in when), key=len)
    steps = [] if base is params else [f"take --profile {base.made_of}"]
    steps += [f"set {' and '.join(f'{n}={value_text(value)}' for n, value in values.items())}"] if values else []
    at = next(iter(nearest))
    return f"where {at} is {value_text(_value(params.staged[0], at))}; {' and '.join(steps)}"


def _unmet(params: Params, alternative: Mapping[str, Sequence[Any]], tried: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """Return the conditions of an alternative that no value meets."""
    return {
        name: values
        for name, values in alternative.items()
        if not any(value in values for value in tried.get(name, (_value(params, name),)))
    }


def _goes_together(params: Params, values: Mapping[str, Any]) -> bool:
    try:
        params.with_values(values)
    except InputError:
        return False
    return True


def _value(params: Params, name: str) -> Any:
    layer, key = name.split(".")
    return getattr(getattr(params, layer), key)


def _declared(name: str) -> str:
    return next((parameter for parameter, first in BY_NAME.items() if name.startswith(first)), name)
