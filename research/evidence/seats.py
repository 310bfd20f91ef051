"""Seats of a run: which layers could act in which period, the newest evidence for it, and at which parameters it was found."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.chain.price import maps_on
from qtcore.types import F8, MAP
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
    """Return the map that each bar of some rows was decided with, MAP [H, m], of each horizon."""
    maps, time = run.result.votes.maps, run.bars.close_time[rows]
    known = maps_on(np.empty(0, MAP) if maps is None else maps, time, 1)
    each = known.reshape(np.count_nonzero(known["first"] == known["first"][0]), -1)
    found: NDArray = each[:, np.searchsorted(each[0]["first"], np.arange(len(time)), side="right") - 1]
    return found


def slopes(run: RunRecord, rows: slice, first: F8, later: Sequence[F8]) -> F8:
    """Return the slope that counts in each cell of some rows, [m, S], of the horizon that speaks there.

    first [m], later [m] for each further horizon: a slope for each bar.
    """
    out = np.repeat(first[:, None], len(run.bars.symbols), axis=1)
    for bars, own in zip(run.predictions.later, later):
        assert run.result.decisions.holding is not None
        out = np.where(run.result.decisions.holding[rows] == bars, own[:, None], out)
    return out


def seats_at(row: Any, told: Told, names: Sequence[str]) -> dict[str, tuple[bool, str]]:
    """Say of the ensemble, each voter, arbiter and meta layer whether a map lets it act, and on what evidence. names: of the voters."""
    found = {"ensemble": (bool(row["slope"] > 0.0), map_text(told["ensemble"], float(row["slope"])))}
    for m, name in enumerate(names):
        if name in told.get("voters", {}):
            found[name] = (bool(row["factors"][m] > 0.0), place_text(told["voters"][name]))
    for layer, is_seated in (("arbiter", bool(row["arbiter_slope"] > 0.0)), ("meta", bool(row["is_seated"] > 0))):
        text = seat_text(told[layer], is_seated) if layer in told else "no seat: the maps were found without a learned model of it"
        found[layer] = (is_seated, text)
    return found


def seats(run: RunRecord, rows: slice) -> list[dict[str, Any]]:
    """Say of each layer and each voter in which periods of some rows it could act, oldest first, and on what newest evidence."""
    periods = [seats_at(row, told, run.result.votes.names) for row, told in served(run, rows)]
    if not periods:
        return []
    params = [part for _, part in run.params.spans(run.bars.close_time[rows])]
    is_off = {name: not any(getattr(part, name).enabled for part in params) for name in ("arbiter", "meta")}

    def of(name: str, evidence: str) -> dict[str, Any]:
        if is_off.get(name):
            return {"layer": name, "acts": [False] * len(periods), "evidence": f"{name}.enabled is off"}
        return {"layer": name, "acts": [each.get(name, (False, ""))[0] for each in periods], "evidence": evidence}

    return [of(name, evidence) for name, (_, evidence) in periods[-1].items()] + _later(run, rows)


def _later(run: RunRecord, rows: slice) -> list[dict[str, Any]]:
    """Say in which periods of some rows the ensemble has a map at each later horizon, as `seats`."""
    used = {int(row["start"]) for row, _ in served(run, rows)}
    out = []
    for bars, schedule in () if run.predictions.maps is None else run.predictions.maps.later:
        found = [(row, told) for row, told in zip(schedule.maps, schedule.evidence, strict=True) if int(row["start"]) in used]
        text = map_text(found[-1][1]["ensemble"], float(found[-1][0]["slope"]))
        out.append({"layer": f"ensemble at {bars} bars", "acts": [bool(row["slope"] > 0.0) for row, _ in found], "evidence": text})
    return out


def fitted_at(run: RunRecord) -> dict[str, list[Any]]:
    """Parameters at which maps and seats were found, where this run has others: [found at, here]. Features are those of the models."""
    if run.predictions.maps is None:
        return {}
    then, here = dict(run.predictions.maps.params), run.params.flat()
    return {name: [value, here[name]] for name, value in then.items() if name in here and here[name] != value}
