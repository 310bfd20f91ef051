"""Seats of a run: which layers could act in which period, the newest evidence for it, and at which parameters it was found."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.chain.price import maps_on
from qtcore.types import MAP
from research.runs.price_text import map_text, place_text, seat_text
from research.runs.record import RunRecord

Told = dict[str, Any]


def served(run: RunRecord, rows: slice) -> list[tuple[Any, Told]]:
    """List the map of each period of some rows with what it was fitted on; nothing where the run has no evidence, as a journal's."""
    maps, schedule = run.result.votes.maps, run.predictions.maps
    if schedule is None:
        return []
    used = maps_on(np.empty(0, MAP) if maps is None else maps, run.bars.close_time[rows], 1)["start"]
    return [(row, told) for row, told in zip(schedule.maps, schedule.evidence, strict=True) if row["start"] in used]


def map_rows(run: RunRecord, rows: slice) -> NDArray:
    """Return the map that each bar of some rows was decided with, MAP [m]."""
    maps, time = run.result.votes.maps, run.bars.close_time[rows]
    known = maps_on(np.empty(0, MAP) if maps is None else maps, time, 1)
    found: NDArray = known[np.searchsorted(known["first"], np.arange(len(time)), side="right") - 1]
    return found


def seats(run: RunRecord, rows: slice) -> list[dict[str, Any]]:
    """Say of each layer and each voter in which periods of some rows it could act, oldest first, and on what newest evidence."""
    periods = served(run, rows)
    if not periods:
        return []

    def of(name: str, acts: Callable[[Any], bool], text: Callable[[Told, Any], str]) -> dict[str, Any]:
        row, told = periods[-1]
        return {"layer": name, "acts": [bool(acts(each)) for each, _ in periods], "evidence": text(told, row)}

    def voter(m: int) -> dict[str, Any]:
        name = run.result.votes.names[m]
        return of(name, lambda row: row["factors"][m] > 0.0, lambda told, row: place_text(told["voters"][name]))

    def seat(name: str, acts: Callable[[Any], bool]) -> dict[str, Any]:
        if not any(getattr(part, name).enabled for _, part in run.params.spans(run.bars.close_time[rows])):
            return of(name, lambda row: False, lambda told, row: f"{name}.enabled is off")
        return of(name, acts, lambda told, row: _seat(told, name, acts(row)))

    names = run.result.votes.names
    voters = [voter(m) for m in range(len(names)) if names[m] in periods[-1][1].get("voters", {})]
    ensemble = of("ensemble", lambda row: row["slope"] > 0.0, lambda told, row: map_text(told["ensemble"], float(row["slope"])))
    arbiter = seat("arbiter", lambda row: row["arbiter_slope"] > 0.0)
    return [ensemble, *voters, arbiter, seat("meta", lambda row: row["is_seated"] > 0)]


def fitted_at(run: RunRecord) -> dict[str, list[Any]]:
    """Parameters at which maps and seats were found, where this run has others: [found at, here]. Features are those of the models."""
    if run.predictions.maps is None:
        return {}
    then, here = dict(run.predictions.maps.params), run.params.flat()
    return {name: [value, here[name]] for name, value in then.items() if name in here and here[name] != value}


def _seat(told: Told, layer: str, is_seated: bool) -> str:
    return seat_text(told[layer], is_seated) if layer in told else "no seat: it has no learned model"
