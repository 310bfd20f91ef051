"""Scenario tests: runs the cases of a scenario file through the chain's own kernels and compares (`spec` 15).

A case is skipped, and says why, if it asks for a documented defect of the original system, or if it names a switch that the profile
sets to another value than the original's.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtcore.params import Params
from research.errors import ConfigError, ProofError
from research.files import Kind, read_json
from research.verify import scenario_chain, scenario_layers
from research.verify.scenario_layers import Case

SCHEMA_VERSION = 1
SCENARIOS = Kind(
    "a scenario file with a list named cases",
    "write {schema_version: 1, cases: [{id, title, component, switches, config, input, expected}, ...]}",
    {"cases": list, "float_tolerance?": dict, "switch_values_in_profile_original?": dict},
    has_large=True,
)
COMPONENTS: dict[str, Callable[[Case, Params], dict[str, Any]]] = {
    "ensemble_vote": scenario_layers.ensemble_vote,
    "weighted_score": scenario_layers.weighted_score,
    "disagreement": scenario_layers.disagreement,
    "meta_features_26": scenario_layers.meta_features_26,
    "meta_policy": scenario_layers.meta_policy,
    "meta_override": scenario_layers.meta_override,
    "arbiter": scenario_layers.arbiter,
    "gate": scenario_layers.gate,
    "arbiter_from_ohlcv": scenario_chain.arbiter_from_ohlcv,
    "kelly": scenario_chain.kelly,
    "governor": scenario_chain.governor,
    "chain_v5": scenario_chain.chain_v5,
    "chain_v2": scenario_chain.chain_v2,
    "features_v5_original": scenario_chain.features_v5_original,
    "meta_features_32_original": scenario_chain.meta_features_32_original,
}
DEFECTS = {  # spec 0.3: reproduced in no profile
    "empty_predictions": "SELL at 0.0 on empty input",
    "arbiter_none_regime": "a missing regime raises",
    "arbiter_volume_zero": "high volume is bearish at a MACD difference of zero",
    "model_first": "a second copy of the policy asks the model first",
}
SWITCHES = {  # switch of the file -> parameter
    "tie_break": "ensemble.tie_break",
    "policy_base": "meta.policy_base",
    "missing_fill": "meta.missing_fill",
    "macd_units": "arbiter.macd_units",
    "sizing_mode": "governor.sizing_mode",
    "cooldown_scope": "governor.cooldown_scope",
    "exposure_mode": "governor.exposure_mode",
}
PINNED = {"meta.consensus_guard": False, "features.warmup": 20, "features.feature_set": "v5_trained"}  # of these two, spec 0.3
PINNED_COMPONENTS = ("chain_v5", "features_v5_original")
SPECIFIED = ("published", "original")  # profiles


@dataclass(frozen=True)
class CaseResult:
    """What became of one case. outcome: `passed`, `failed` or `skipped`; detail: differences, or why it was skipped."""

    id: str
    component: str
    title: str
    outcome: str
    detail: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScenarioReport:
    """What became of a scenario file under a profile."""

    path: str
    profile: str
    outcomes: tuple[CaseResult, ...]

    def count(self, outcome: str) -> int:
        """Count the cases that `passed`, `failed` or were `skipped`."""
        return sum(case.outcome == outcome for case in self.outcomes)

    @property
    def summary(self) -> str:
        """One line: `N passed, M failed, K skipped`."""
        return f"{self.count('passed')} passed, {self.count('failed')} failed, {self.count('skipped')} skipped"

    def table(self) -> list[dict[str, Any]]:
        """One row per component: name and the three counts."""
        names = dict.fromkeys(case.component for case in self.outcomes)
        part = {name: ScenarioReport(self.path, self.profile, tuple(c for c in self.outcomes if c.component == name)) for name in names}
        return [{"component": name, **{o: r.count(o) for o in ("passed", "failed", "skipped")}} for name, r in part.items()]

    def notable(self) -> list[CaseResult]:
        """List the failed cases, then the skipped ones."""
        return [c for wanted in ("failed", "skipped") for c in self.outcomes if c.outcome == wanted]

    def to_json(self) -> str:
        """Return everything as JSON text."""
        counts = {outcome: self.count(outcome) for outcome in ("passed", "failed", "skipped")}
        cases = [{**vars(case), "detail": list(case.detail)} for case in self.outcomes]
        return json.dumps({"path": self.path, "profile": self.profile, **counts, "cases": cases}, indent=2)


def run_scenarios(path: str | Path, profile: str = "published") -> ScenarioReport:
    """Run every case of a scenario file under a profile; a malformed case has failed. Raises UserError on an unreadable file."""
    if profile not in SPECIFIED:
        remedy = "leave --profile out, or name one of them"
        raise ConfigError(f"profile (--profile) must be one of {', '.join(SPECIFIED)}: no case is about another, was {profile!r}; {remedy}")
    content = _read(Path(path))
    params, tolerance, original = Params.profile(profile), content["float_tolerance"], content["switch_values_in_profile_original"]
    outcomes = tuple(_attempt(number, case, params, original, tolerance) for number, case in enumerate(content["cases"]))
    return ScenarioReport(str(path), profile, outcomes)


def _attempt(number: int, case: Any, params: Params, original: Mapping[str, Any], tolerance: Mapping[str, float]) -> CaseResult:
    """Run one case, so that a malformed one does not keep the others from running."""
    try:
        return _run_case(case, params, original, tolerance)
    except Exception as error:  # the case is a stranger's data: whatever it makes a component raise is the finding
        about = case if isinstance(case, dict) else {}
        id_ = str(about.get("id", f"number {number}"))
        detail = f"case {id_} must hold what its component needs (spec 15), was malformed: {type(error).__name__}: {error}"
        return CaseResult(id_, str(about.get("component", "?")), str(about.get("title", "")), "failed", (detail,))


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = {"float_tolerance": {}, "switch_values_in_profile_original": {}} | read_json(path, SCENARIOS)
    if content.get("schema_version") != SCHEMA_VERSION:
        raise ProofError(f"scenario file must have schema_version {SCHEMA_VERSION}, was {content.get('schema_version')!r} in {path}")
    return content


def _run_case(case: Case, params: Params, original: Mapping[str, Any], tolerance: Mapping[str, float]) -> CaseResult:
    component = case["component"]
    if component not in COMPONENTS:
        raise ValueError(f"component must be one of {', '.join(COMPONENTS)}, was {component!r}")
    about = (case["id"], component, case["title"])
    if reasons := _reasons_to_skip(case, params, original):
        return CaseResult(*about, "skipped", tuple(reasons))
    if component in PINNED_COMPONENTS:
        params = params.with_values(PINNED)
    got, expected = COMPONENTS[component](case, params), case["expected"]
    bounds = (tolerance.get(component, tolerance.get("rel", 1e-9)), tolerance.get(component, tolerance.get("abs", 1e-9)))
    differences = list(_differences(got, expected, "", bounds))
    if "cooldown_reason" in case["switches"]:
        differences = [line for line in differences if not (line.split(":")[0].endswith("reason") and "COOLDOWN_ACTIVE" in line)]
    return CaseResult(*about, "failed" if differences else "passed", tuple(differences))


def _reasons_to_skip(case: Case, params: Params, original: Mapping[str, Any]) -> list[str]:
    """Name the documented defects a case asks for, or the switches that stand differently than the case expects."""
    named = [*case["switches"], case["config"].get("order", "")]
    if defects := [f"documented defect, not reproduced: {name} ({DEFECTS[name]})" for name in named if name in DEFECTS]:
        return defects
    values = params.flat()
    switched = [s for s in case["switches"] if s in SWITCHES and s not in case["config"] and values[SWITCHES[s]] != original[s]]
    return [f"the case is about {SWITCHES[s]} = {original[s]}, the profile has {values[SWITCHES[s]]}" for s in switched]


def _differences(got: Any, expected: Any, at: str, bounds: tuple[float, float]) -> Any:
    """Yield a line per difference; an absent key, None and False are the same (`spec` 15)."""
    if isinstance(expected, Mapping) and isinstance(got, Mapping):
        for key in dict.fromkeys((*expected, *got)):
            yield from _differences(got.get(key), expected.get(key), f"{at}.{key}" if at else str(key), bounds)
    elif isinstance(expected, list) and isinstance(got, list) and len(got) == len(expected):
        for i, (a, b) in enumerate(zip(got, expected, strict=True)):
            yield from _differences(a, b, f"{at}[{i}]", bounds)
    elif isinstance(expected, float | int) and isinstance(got, float | int) and not isinstance(expected, bool):
        if not math.isclose(got, expected, rel_tol=bounds[0], abs_tol=bounds[1]):
            yield f"{at}: {got!r}, expected {expected!r}"
    elif not (_is_absent(got) and _is_absent(expected)) and got != expected:
        yield f"{at}: {got!r}, expected {expected!r}"


def _is_absent(value: Any) -> bool:
    return value is None or value is False or value == {}
