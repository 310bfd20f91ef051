"""Declarations of how lanes take a parameter: every parameter is changed, and lanes are compared with the plain driver."""

from dataclasses import fields
from functools import cache

import numpy as np
import pytest

from qtcore.choices import DecideRule
from qtcore.declare import OPINION, ROW, Lane
from qtcore.features import FEATURE_SETS, FeatureBank, chosen
from qtcore.params import LAYERS, lanes_of
from qtcore.sweep import Driver, drivers, sweep
from qtcore.sweep import rows as rows_module
from qtcore.sweep.layout import NUMBERS, SETTINGS, SWITCHES
from qtcore.sweep.rows import driver_name
from qtcore.types import ADVANCED, InputError
from tests.qtcore.test_sweep import FREE, WORLDS, driver, market_of, records, short_blocks  # noqa: F401 - a fixture
from tests.support import PUBLISHED
from tests.support.priced import PRICED

SPECS = {f"{layer.name}.{spec.name}": spec for layer in LAYERS for spec in fields(layer.default)}
USUAL = {name: getattr(getattr(PUBLISHED, layer), key) for name in SPECS for layer, key in [name.split(".")]}
CONTEXTS = (  # in which a parameter may matter: what it steers must be asked
    {},
    {"governor.min_confidence": 0.4, "governor.max_exposure": 2.0, "governor.max_daily_trades": 100},
    {"governor.min_confidence": 0.4, "governor.max_drawdown": 0.01, "governor.max_daily_trades": 100},
    {"governor.min_confidence": 0.4, "governor.max_exposure": 0.1, "governor.max_daily_trades": 100},
    {"meta.mode": "override"},
    {"meta.mode": "v5"},
    {"meta.variant": "learned"},
    {"meta.policy_base": "score"},
    {"ensemble.weights": [0.3, 0.3, 0.2, 0.2, 0.0]},
)
PRICED_CONTEXTS = (
    PRICED | {"ensemble.rule": "vote"},
    PRICED | {"governor.min_confidence": 0.5, "governor.order": "symbols", "governor.max_daily_trades": 100},
    PRICED | {"governor.book": "cross_section", "governor.max_daily_trades": 100, "governor.target_volatility": 0.1},
    PRICED | {"governor.book": "cross_section", "governor.neutral": "dollar_beta", "governor.max_exposure": 2.0},
)
CASES = [(world, context) for world in ("learned", "funded") for context in CONTEXTS]
CASES += [("priced", context) for context in ({}, *PRICED_CONTEXTS)]
TOGETHER = {("decide.rule", DecideRule.EDGE): {"meta.mode": "bet"}}  # what a value needs beside it
STARTS = (Lane.ROW, Lane.SWITCH, Lane.NUMBER, Lane.OPINION)


def others(name):
    """Other values of a parameter than the published one: near it and far from it, every one of an enum."""
    usual, meta = USUAL[name], SPECS[name].metadata
    if "enum" in meta:
        return [member for member in meta["enum"] if member != usual]
    if isinstance(usual, bool):
        return [not usual]
    if "length" in meta:
        turned = np.linspace(0.2, 1.5, meta["length"])
        return [tuple(turned.tolist()), tuple(turned[::-1].tolist())]
    found = [meta["low"], usual / 2, usual * 0.9, usual * 1.1, usual * 2, meta["high"]]
    clipped = [min(max(value, meta["low"]), meta["high"]) for value in found]
    values = {int(value) if isinstance(usual, int) else value for value in clipped} - {usual}
    return sorted(values - {0} if name == "broker.max_holding_bars" else values)


def compared(names):
    """Change each of `names` in every context: names whose lanes differ from the plain driver, and those that moved anything."""
    wrong, moved = set(), set()
    changes = [(name, value) for name in names for value in others(name)]
    for world, context in CASES:
        market, base = market_of(WORLDS[world]), PUBLISHED.with_values(FREE | context)
        rows = [(name, changed(base, name, value)) for name, value in changes]
        readable = [(name, row) for name, row in rows if row is not None and (world == "priced" or row.decide.rule != DecideRule.EDGE)]
        rows = [("", base), *readable]
        table = records([row for _, row in rows])
        with driver("lanes"):
            got = sweep(market, table)[0]
        with driver("plain"):
            want = sweep(market, table)[0]
        for i, (name, _) in enumerate(rows[1:], 1):
            wrong |= {name} if got[i].tobytes() != want[i].tobytes() else set()
            moved |= {name} if want[i].tobytes() != want[0].tobytes() else set()
    return wrong, moved


def changed(base, name, value):
    """Change one parameter, with what its value needs; None where it does not go with the others."""
    try:
        return base.with_values({name: value} | TOGETHER.get((name, value), {}))
    except InputError:
        return None


def first_changed(name, value):
    """Change one parameter of the first base that it goes with."""
    bases = (PUBLISHED.with_values(FREE), PUBLISHED.with_values(FREE | PRICED))
    return next(row for row in (changed(base, name, value) for base in bases) if row is not None)


@cache
def declared(*kinds):
    return tuple(name for name, lanes in lanes_of().items() if lanes.kind in kinds)


def test_every_parameter_of_the_lanes_has_the_bits_of_the_plain_driver_and_moves_something():
    names = declared(*STARTS)
    wrong, moved = compared(names)
    assert wrong == set()
    assert set(names) - moved == set()


@pytest.mark.parametrize("name", declared(*STARTS))
def test_what_is_declared_runs_in_lanes(name):
    lanes, market = lanes_of()[name], market_of(WORLDS["learned"])
    known = lanes.known(USUAL[name])
    with driver("lanes"):
        for value in others(name):
            row = first_changed(name, value)
            found = {driver_name(code) for code in drivers(market, records([row])).tolist()}
            assert found == ({"lanes"} if known is None or value in known else {name})


@pytest.mark.parametrize("name", declared(Lane.PLAIN))
def test_what_is_not_declared_takes_the_plain_driver_and_is_named(name):
    market = market_of(WORLDS["plain"])
    for value in others(name):
        row = first_changed(name, value)
        with driver("lanes"):
            assert {driver_name(code) for code in drivers(market, records([row])).tolist()} == {name}
    with driver("lanes"):
        assert set(drivers(market, records([PUBLISHED.with_values(FREE)])).tolist()) == {Driver.LANES}


@pytest.mark.parametrize(
    ("name", "lanes", "is_wrong"),
    [
        ("governor.flatten_on_kill", ROW, False),  # without a kill switch it changes nothing
        ("broker.fill", ROW, True),  # lanes fill at the next open alone
        ("broker.fill", OPINION, True),
    ],
)
def test_a_parameter_that_is_declared_and_ignored_is_found(monkeypatch, name, lanes, is_wrong):
    monkeypatch.setitem(rows_module.IN_LANES, name, lanes)
    wrong, moved = compared([name])
    assert (name in wrong) == is_wrong
    assert (name in moved) == is_wrong


def test_rows_switches_and_numbers_have_the_names_of_the_declarations():
    rows = {lanes.row or name.split(".")[1] for name, lanes in lanes_of().items() if lanes.kind == Lane.ROW}
    assert rows == set(SETTINGS)
    assert {name.split(".")[1] for name in declared(Lane.SWITCH)} == set(SWITCHES)
    assert {name.split(".")[1] for name in declared(Lane.NUMBER)} == set(NUMBERS)


@pytest.mark.parametrize("name", declared(Lane.MARKET))
def test_what_makes_the_market_changes_its_planes(name):
    bars = WORLDS["plain"].bars
    asked = (*(name for names in FEATURE_SETS.values() for name in names), *ADVANCED)

    def planes(params):
        made = FeatureBank(params, bars.symbols, bars.interval, asked).compute(bars)
        seen = chosen(params.features.every_set, len(bars.symbols))
        return [made.arbiter.tobytes(), made.valid.tobytes(), *(made[key].tobytes() for key in (*seen, *ADVANCED))]

    texts = {"features.benchmark": [bars.symbols[-1]], "features.sets": ["v5_rel,volatility", "flow"]}
    values = texts.get(name) or others(name)
    assert all(planes(PUBLISHED.with_values({name: value})) != planes(PUBLISHED) for value in values)


def test_every_parameter_of_the_features_makes_the_market():
    assert {name for name in SPECS if name.startswith("features.")} <= set(declared(Lane.MARKET))
