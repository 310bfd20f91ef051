"""Driver report: which driver ran the settings of a sweep. Both give the same bits, at speeds that differ several times over."""

from collections.abc import Iterable, Mapping

import numpy as np

from qtcore.sweep import Driver, drivers
from qtcore.sweep.rows import LEAST
from research.runs.case import Case
from research.runs.space import Space

WHY = {  # why a setting does not run beside 63 others
    Driver.REGIMES: "figures by regime are kept",
    Driver.TIMES: "the times of the bars are not exact in float64",
    Driver.HOLES: "a bar has an open without a close, or the other way round",
    Driver.ORDER: "governor.order by_confidence sorts the candidates of a bar",
    Driver.SIZING: "governor.sizing_mode kelly_empirical looks at past trades",
    Driver.COOLDOWN: "governor.cooldown_scope last_50 looks at past trades",
    Driver.FILL: "broker.fill close",
    Driver.FEW: f"fewer than {LEAST} settings that differ in thresholds alone",
}


def count_drivers(space: Space, case: Case, parts: Iterable[tuple[int, int]]) -> dict[str, int]:
    """Count the settings of `parts`, each [first, last), by `Driver`: `lanes`, or what left them to the plain one. Cut as one worker does.

    >>> driver_words({"lanes": 640, "few": 3})
    'SIMD lanes, 64 settings side by side: 640; the plain driver: 3 (fewer than 24 settings that differ in thresholds alone)'
    """
    counts = np.zeros(len(Driver), np.int64)
    for first, last in parts:
        drawn = space.draw(first, last)
        records, (markets, number) = space.records(drawn), space.markets(drawn)
        for i in range(len(markets)):
            for some in case.cut(records[number == i]):
                counts += np.bincount(drivers(case.market(space.base), some), minlength=len(Driver))
    return {driver.name.lower(): int(counts[driver]) for driver in Driver if counts[driver]}


def driver_words(counts: Mapping[str, int]) -> str:
    """Say who computed a sweep and, where it was not the quick driver, why."""
    plain = [f"{counts[d.name.lower()]:,} ({why})" for d, why in WHY.items() if d.name.lower() in counts]
    lanes = [f"SIMD lanes, 64 settings side by side: {counts['lanes']:,}"] if "lanes" in counts else []
    return "; ".join([*lanes, *(["the plain driver: " + ", ".join(plain)] if plain else [])]) or "nobody: no setting is done"
