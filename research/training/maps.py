"""Map schedule: what the opinions of a training are worth, fold by fold. `research.training.map_fit` fits them, the chain reads them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from qtcore.choices import DecideRule
from qtcore.params import Params
from qtcore.types import MAP, Bars
from research.errors import ModelError
from research.files import misfit

JUDGED = "judge"  # in place of a fingerprint: maps of what an own judge said, which are nobody else's
FIELDS = tuple(name for name in MAP.names or () if name not in ("first", "bars"))  # those that a fit gives
SEAT = ("is_seated", "skip", "full")  # those of the learned meta layer
SHAPE = {"maps": [dict], "evidence": [dict], "params": dict, "data": str, "later?": [{"bars": int}]}


@dataclass(frozen=True)
class MapSchedule:
    """Fitted maps. maps: MAP [F] by `start`; evidence [F]: what each was fitted on, as JSON holds it; params: at which they were earned.

    later: of each further horizon of the models, its length in bars and its maps, of the same periods. data: fingerprint of the bars on
    which imported predictions were priced, `JUDGED` where an own judge was, empty for those of a training.
    """

    maps: NDArray
    evidence: tuple[dict[str, Any], ...]
    params: Mapping[str, Any]
    data: str = ""
    later: tuple[tuple[int, "MapSchedule"], ...] = ()

    @property
    def every(self) -> NDArray:
        """Maps of all horizons, MAP [H * F] as `Votes` hold them; the learned meta layer's seat is the same in each."""
        parts = [self.maps]
        for bars, schedule in self.later:
            own = schedule.maps.copy()
            own["bars"] = bars
            for name in SEAT:
                own[name] = self.maps[name]
            parts.append(own)
        return np.concatenate(parts) if self.later else self.maps

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` reads: every number exact, None for NaN."""
        rows = [{name: _plain(row[name].tolist()) for name in FIELDS} for row in self.maps]
        later = [{"bars": bars} | schedule.to_dict() for bars, schedule in self.later]
        told = {"maps": rows, "evidence": list(self.evidence), "params": dict(self.params), "data": self.data}
        return told | ({"later": later} if later else {})

    @classmethod
    def from_dict(cls, stored: Any) -> Self:
        """Read `to_dict`. Raises ModelError on anything else."""
        if wrong := misfit(stored, SHAPE):
            raise ModelError(f"maps of a training must be as `qt train` stores them, was {wrong}; train again")
        maps = np.zeros(len(stored["maps"]), MAP)
        try:
            for row, told in zip(maps, stored["maps"]):
                for name in FIELDS:
                    row[name] = np.array(told[name], MAP[name].base)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"maps of a training must hold {', '.join(FIELDS)}, was without ({error}); train again") from None
        is_whole = len(maps) == len(stored["evidence"]) > 0 and all("ensemble" in told for told in stored["evidence"])
        if not is_whole or np.any(np.diff(maps["start"]) <= 0) or "ensemble.rule" not in stored["params"]:
            what = "maps of a training must have periods in their order, the evidence for each, and parameters, was without"
            raise ModelError(f"{what}; train again")
        later = tuple((int(told["bars"]), cls.from_dict(told)) for told in stored.get("later", ()))
        if any(bars < 1 or not np.array_equal(own.maps["start"], maps["start"]) for bars, own in later):
            raise ModelError("maps of a training must be of the same periods for each horizon of 1 bar or more, was otherwise; train again")
        return cls(maps, tuple(stored["evidence"]), stored["params"], stored["data"], later)

    def at(self, time: int) -> tuple[Any, dict[str, Any]]:
        """Return the map that holds at a close time, ns UTC, and its evidence; None and nothing before the first."""
        f = int(np.searchsorted(self.maps["start"], time, side="right")) - 1
        return (None, {}) if f < 0 else (self.maps[f], self.evidence[f])

    def since(self, time: int) -> Self:
        """Return the maps from a close time on, ns UTC: the one in force there begins there, and before it there is no edge."""
        first = max(0, int(np.searchsorted(self.maps["start"], time, side="right")) - 1)
        maps = self.maps[first:].copy()
        maps["start"][:1] = np.maximum(maps["start"][:1], time)
        later = tuple((bars, schedule.since(time)) for bars, schedule in self.later)
        return replace(self, maps=maps, evidence=self.evidence[first:], later=later)

    def of(self, bars: float) -> "MapSchedule":
        """Return the maps of the horizon that lasts so many bars; those of the first where it is none of the later."""
        return next((schedule for length, schedule in self.later if length == bars), self)

    @property
    def hash(self) -> str:
        """Name the maps by content."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:32]


def is_priced(params: Params, predictions: Any, bars: Bars) -> bool:
    """Say whether predictions know what their opinions are worth under the `ensemble.rule` of `params`; imported ones, on these bars."""
    from research.data import fingerprint

    maps = predictions.maps
    if maps is None or _kind(maps.params) != _kind(params.flat()):
        return False
    return bool(maps.data == (fingerprint(bars) if predictions.imported else ""))


def _kind(params: Mapping[str, Any]) -> tuple[str, bool]:
    """Return what opinions are worth depends on: how they are formed, and whether the book hedges the market (`Params.hedges_market`)."""
    return params["ensemble.rule"], params.get("governor.book") == "cross_section" and params["governor.neutral"] != "none"


def unseated(maps: MapSchedule | None) -> MapSchedule | None:
    """Return maps in which no learned meta layer has a seat; those of one that is not there are no other's."""
    from qtcore.chain.price import no_map

    if maps is None or not any("meta" in told for told in maps.evidence):
        return maps
    rows, nobody = maps.maps.copy(), no_map()
    for name in SEAT:
        rows[name] = nobody[name]
    evidence = tuple({name: each for name, each in told.items() if name != "meta"} for told in maps.evidence)
    return replace(maps, maps=rows, evidence=evidence)


def check_priced(params: Params, voters: Any) -> None:
    """Raise ModelError where opinions need a price that those of a training do not have. voters: predictions, or a schedule of models."""
    if params.decide.rule != DecideRule.EDGE or getattr(voters, "imported", False):
        return
    maps = getattr(voters, "map_schedule", voters.maps)
    if maps is None or maps.data == JUDGED:
        what = "models and predictions of a training must say what their opinions are worth, was without"
        raise ModelError(f"{what}; train again (`qt train`), or run them with --profile published")
    (then, hedged), (now, hedges) = _kind(maps.params), _kind(params.flat())
    if then != now:
        what = f"ensemble.rule must be that under which the worth of opinions was found, {then}, was {now}"
        raise ModelError(f"{what}; train with --set ensemble.rule={now}, or run with --set ensemble.rule={then}")
    if hedged != hedges:
        found, wanted = (f"a book that {'hedges' if each else 'does not hedge'} the market" for each in (hedged, hedges))
        what = f"governor.book and governor.neutral must be as when the worth of opinions was found, for {found}, was for {wanted}"
        raise ModelError(f"{what}; train with the same --set governor.book and governor.neutral as you run")


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, list) else None if value != value else value
