"""Driver report: which driver ran the settings of a sweep. Both give the same bits, at speeds that differ several times over."""

from collections.abc import Iterable, Mapping

import numpy as np

from qtcore.sweep import Driver, drivers
from qtcore.sweep.rows import LEAST, driver_name
from research.runs.case import Case
from research.runs.space import Space

LANES = driver_name(Driver.LANES)
OWN = "own"
WHY = {  # why a setting does not run beside 63 others
    "regimes": "figures by regime are kept",
    "times": "the times of the bars are not exact in float64",
    "holes": "a bar has an open without a close, or the other way round",
    "horizons": "models of several horizons",
    "few": f"fewer than {LEAST} settings that differ in thresholds alone",
}


def count_drivers(space: Space, case: Case, parts: Iterable[tuple[int, int]]) -> dict[str, int]:
    """Count the settings of `parts`, each [first, last), by driver: `lanes`, or why the plain one, such as a parameter's name.

    They are cut as one worker does.

    >>> driver_words({"lanes": 640, "few": 3})
    'SIMD lanes, 64 settings side by side: 640; the plain driver: 3 (fewer than 24 settings that differ in thresholds alone)'
    """
    if case.own.chain:
        return {OWN: sum(last - first for first, last in parts)}
    counts = np.zeros(128, np.int64)
    for first, last in parts:
        drawn = space.draw(first, last)
        records, (markets, number) = space.records(drawn), space.markets(drawn)
        for i, params in enumerate(markets):
            mine = records[number == i]
            for some in case.cut(mine, params):
                counts += np.bincount(drivers(case.market(space.base), mine[some]), minlength=len(counts))
    return {driver_name(code): int(counts[code]) for code in np.flatnonzero(counts).tolist()}


def driver_words(counts: Mapping[str, int]) -> str:
    """Say who computed a sweep and, where it was not the quick driver, why."""
    if OWN in counts:
        return f"the engine, each setting alone, as the judge or the trade loop is your own: {counts[OWN]:,}"
    plain = [f"{n:,} ({WHY.get(name, f'a value of {name} that lanes do not take')})" for name, n in counts.items() if name != LANES]
    lanes = [f"SIMD lanes, 64 settings side by side: {counts[LANES]:,}"] if LANES in counts else []
    return "; ".join([*lanes, *(["the plain driver: " + ", ".join(plain)] if plain else [])]) or "nobody: no setting is done"
