"""Trials of own features and layers, run by themselves before they are used; what they found becomes part of the certificate.

A feature is tried by the rules of `check_layer` at the times and symbols of the user's bars, with other prices, and by the leak detectors
on the bars themselves. One that looks its values up, by the time of a bar, by its place or by its price, passes all of these whatever the
table holds: it is found because other times, another start or other prices move it where they should not (or leave it where they should
move it), and its values are then compared with the returns that follow. A calendar feature (hour, weekday) is none: 28 years later the
calendar is the same. Where no returns are known to the table, the certificate still says that its origin was not proven.

What a feature works out of prices may be a table in disguise, keyed by prices with an honest value beside it. So its values are compared
with later returns too, and may know as much as the ceilings allow to predictions (`research.evidence.plausibility`); candles that our
simulator gives again are exempt there and here.

Broken rules that tell of awkward data, not of knowledge (an infinite value, another order of the symbols, the last digits), are told and
fail nothing.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from qtcore import Feature, Params
from qtcore.own_code import said
from qtcore.types import F8, NS_PER_DAY, Bars
from research.data import made_again
from research.errors import ConfigError
from research.training.models.base import model_class, model_target
from research.training.models.layers import JUDGED
from research.training.scoring.ceilings import ceilings_of
from research.verify.causality import known, rewrite_future, same_bits
from research.verify.claims import Claim, Offender
from research.verify.layers import check_layer, one_plane
from research.verify.leaks import audit_features
from research.verify.models import check_model

ROWS = (240, 960, 3_840)  # of the trial: the first that leaves a feature a third of its rows after its warm-up
SYMBOLS = 4  # of the trial, the best known ones; all where the feature cannot do without
CELLS = 100_000  # that are compared with the returns after them
HORIZONS = (1, 2, 4, 8, 12, 24)  # bars
CALENDAR = 28 * 365 * NS_PER_DAY + 7 * NS_PER_DAY  # after which weekdays and leap years repeat
PLAUSIBLE = 0.10  # rank correlation of a table with the returns that follow; honest ones on liquid markets stay below
SIGMAS, BLOCKS = 4.0, 8  # standard errors, from the spread of at least so many blocks of twice the horizon
TOLD = ("nan_rows", "symbol_order", "rounding", "approves")  # speak of awkward data and last digits; the rest of parity and of the future

Checked = dict[str, Any]  # kind, name, rules (how many were tried), broken and told: sentences; looks_up: by what, "" for none


def try_features(features: Sequence[Feature], bars: Bars, params: Params) -> list[Checked]:
    """Try own features on the bars they are to be trained on. Raises UserError where one cannot be computed at all."""
    return [_try_feature(feature, bars, params) for feature in features]


def try_layer(kind: str, layer: Any, params: Params, custom: Sequence[Feature] = ()) -> Checked:
    """Try an own `judge`, `trade` or `meta_model` by the rules of `check_layer`. Raises ConfigError where it cannot be called at all.

    custom: own features that a judge reads.
    """
    if kind == "judge":
        _check_signature(layer)
    report = check_layer(layer, kind, params, custom=custom)
    if kind == "trade" and (stopped := [rule for rule in report.rules if rule.broken and rule.name == "runs"]):
        raise ConfigError(f"the own trade must run as a trade loop, {stopped[0].broken}; see research.check_layer(mine, 'trade')")
    broken = [str(rule) for rule in report.rules if rule.broken and rule.name not in TOLD]
    told = [str(rule) for rule in report.rules if rule.broken and rule.name in TOLD]
    return {"kind": kind, "name": kind, "rules": len(report.rules), "broken": broken, "told": told, "looks_up": ""}


def try_model(name: str, preset: str) -> Checked:
    """Try an own base model by the rules of `check_model`. Raises ConfigError where it cannot be fitted and asked at all."""
    report = check_model(model_class(model_target(name)), preset=preset)
    broken = [rule for rule in report.rules if rule.broken]
    if stopped := [rule for rule in broken if rule.name in ("protocol", "runs", "range")]:
        raise ConfigError(f"the own model {name} must keep the rules of a base model, was not so, {stopped[0]}; see research.check_model")
    told = {"kind": "model", "name": name, "rules": len(report.rules), "told": [], "looks_up": ""}
    return told | {"broken": [str(rule) for rule in broken]}


def _check_signature(judge: Any) -> None:
    """Raise ConfigError unless a judge can be asked with three things."""
    try:
        inspect.signature(judge).bind(None, None, None)
    except TypeError as error:
        was = f"{getattr(judge, '__name__', judge)}{inspect.signature(judge)}" if callable(judge) else repr(judge)
        raise ConfigError(f"the own judge must take {JUDGED}, was {was:.100}; see docs/extending.md") from error


def own_claims(checked: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """Turn what the trials found into claims of a certificate."""
    out = []
    for found in checked:
        broken = list(found["broken"])
        first = Offender(-1, "when it was tried", "", f"{found['name']}: {broken[0]}", float(len(broken))) if broken else None
        text = f"{_who(found)} keeps the rules of a layer and knows nothing of later bars"
        out.append(Claim("own", text, int(found["rules"]), len(broken), "rules", first))
    return out


def sentences(checked: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Say what each trial found that its user should know."""
    for found in checked:
        yield from (f"{_who(found)} breaks a rule, {line}; nothing that is made with it is proven" for line in found["broken"])
        yield from (f"{_who(found)}: {line}" for line in found["told"])
    yield from unproven(checked)


def unproven(checked: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Say which features look up what no trial can see."""
    for found in checked:
        if found["looks_up"] and not found["broken"]:
            yield f"{_who(found)} looks values up by {found['looks_up']}: when they became known cannot be seen in the candles"


def _who(found: Mapping[str, Any]) -> str:
    return f"the own {found['kind']}" + (f" {found['name']}" if found["name"] != found["kind"] else "")


def _try_feature(feature: Feature, bars: Bars, params: Params) -> Checked:
    compute = one_plane(feature, params)
    part, base = _sample(feature, compute, bars)
    report = check_layer(feature, "feature", params, like=part)
    unknown = "nan_rows: is NaN everywhere"  # on other prices, though these bars gave it values: a table of prices
    broken = [str(rule) for rule in report.rules if rule.broken and (rule.name not in TOLD or str(rule) == unknown)]
    told = [str(rule) for rule in report.rules if rule.broken and str(rule) not in broken]
    broken += [f"{found.detector}: {found.message}" for found in audit_features(compute, part)]
    looks_up = _looked_up(compute, part, base)
    n_rules = len(report.rules) + 2  # the leak detectors, and what it knows of the returns that follow
    if (looks_up or not made_again(bars)) and (knowledge := _knowledge(compute, bars, part.symbols, bool(looks_up))):
        broken.append(knowledge)
    return {"kind": "feature", "name": feature.name, "rules": n_rules, "broken": broken, "told": told, "looks_up": looks_up}


def _sample(feature: Feature, compute: Callable[[Bars], F8], bars: Bars) -> tuple[Bars, F8]:
    """Take the last rows of a few symbols on which the feature has values, and these values [n, S]."""
    best = np.sort(np.argsort(-known(bars.close).sum(axis=0), kind="stable")[:SYMBOLS])
    for columns in (best, np.arange(len(bars.symbols))):
        for n in ROWS:
            part = _columns(bars[max(0, bars.n - n - feature.lookback) :], columns)
            try:
                base = compute(part)
            except (Exception, SystemExit) as error:  # the feature is a stranger's code: it may need the other symbols
                problem = f"raised {said(error)}"
                break
            if known(base).any(axis=1).mean() > 1 / 3 or part.n == bars.n:
                return part, base
        else:
            return part, base
    raise ConfigError(f"the own feature {feature.name} must have values on these bars, was not so: it {problem}; mend it before training")


def _columns(bars: Bars, columns: Any) -> Bars:
    names = ("open", "high", "low", "close", "volume", *(("funding",) if bars.funding is not None else ()))
    planes: dict[str, Any] = {name: np.ascontiguousarray(getattr(bars, name)[:, columns]) for name in names}
    return replace(bars, symbols=tuple(bars.symbols[s] for s in columns), **planes)


def _looked_up(compute: Callable[[Bars], F8], part: Bars, base: F8) -> str:
    """Say by what the feature looks its values up: by time, place or price; "" when it works them out of prices and the calendar."""
    later = replace(part, open_time=part.open_time + CALENDAR, close_time=part.close_time + CALENDAR)
    if not _is_same(compute, later, base):
        return "time"
    varies = bool(known(base).any()) and float(np.nanmax(base)) > float(np.nanmin(base))
    try:
        other = compute(rewrite_future(part, 0, 0))
    except (Exception, SystemExit):  # see _sample
        return "price"
    both = known(base) & known(other)
    if not varies or not both.any():
        return "price" if varies else ""
    if bool(same_bits(base, other)[both].all()):
        cut = part.n // 3
        return "" if _is_same(compute, part[cut:], np.ascontiguousarray(base[cut:])) else "place"
    return "price" if float(np.nanmax(other)) == float(np.nanmin(other)) else ""


def _is_same(compute: Callable[[Bars], F8], world: Bars, expected: F8) -> bool:
    try:
        return bool(same_bits(compute(world), expected).all())
    except (Exception, SystemExit):  # a table that does not have these times
        return False


def _knowledge(compute: Callable[[Bars], F8], bars: Bars, symbols: tuple[str, ...], is_table: bool) -> str:
    """Say which return after a bar the feature knows more of than is plausible; "" when none."""
    plausible = PLAUSIBLE if is_table else ceilings_of(int(bars.interval)).lag_correlation
    columns = [bars.symbols.index(name) for name in symbols]
    part = _columns(bars[max(0, bars.n - CELLS // len(columns)) :], columns)
    with np.errstate(divide="ignore", invalid="ignore"):
        price = np.log(part.close)
    plane = compute(part)
    worst, text = plausible, ""
    for h in HORIZONS:
        correlation, error = _rank_correlation(plane, price, h)
        low = abs(correlation) - SIGMAS * error
        if low > worst:
            worst, span = low, "bar" if h == 1 else f"{h} bars"
            known_to = f"correlates {correlation:+.2f} with the return of the next {span}, at least {low:.2f}"
            text = f"looks_ahead: {known_to}; {plausible:.2f} is plausible"
    return text


def _rank_correlation(plane: F8, price: F8, h: int) -> tuple[float, float]:
    """Rank correlation of a plane [n, S] with the change of `price` over the next h rows, and its standard error; (0, inf) if unknown."""
    ahead = np.full(price.shape, np.nan)
    ahead[:-h] = price[h:] - price[:-h]
    both = known(plane) & known(ahead)
    x, y = (pd.DataFrame(np.where(both, values, np.nan)).rank() for values in (plane, ahead))
    products = ((x - x.mean()) / x.std() * (y - y.mean()) / y.std()).mean(axis=1).dropna().to_numpy()
    n_blocks = len(products) // (2 * h)
    if n_blocks < BLOCKS:
        return 0.0, np.inf
    blocks = products[: n_blocks * 2 * h].reshape(n_blocks, 2 * h).mean(axis=1)
    return float(products.mean()), float(blocks.std(ddof=1) / np.sqrt(n_blocks))
