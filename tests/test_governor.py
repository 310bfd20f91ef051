"""Does the governor say what the specification says, case by case?"""

import json
import os
import re
from pathlib import Path

import pytest

from qtcore.params import Params
from research.governor_state import GovernorState, position_pct, with_risk

SCENARIOS = Path(os.environ.get("QT_SPEC", Path(__file__).resolve().parents[2] / "shared" / "spec" / "scenarios.json"))
SCENARIOS = SCENARIOS / "scenarios.json" if SCENARIOS.is_dir() else SCENARIOS
TOLERANCE = 1e-9


def cases(component: str) -> list[dict]:
    if not SCENARIOS.exists():
        pytest.skip(f"{SCENARIOS.name} is not in {SCENARIOS.parent}; set QT_SPEC to the folder with the scenario files")
    return [case for case in json.loads(SCENARIOS.read_text())["cases"] if case["component"] == component]


def differences(expected, got, path=""):
    """Where `got` lacks or differs from what is expected; floats to 1e-9, absolute or relative."""
    if isinstance(expected, dict):
        return [d for key, value in expected.items() for d in differences(value, got.get(key, "missing"), f"{path}.{key}")]
    if isinstance(expected, list):
        if len(expected) != len(got):
            return [f"{path}: {len(expected)} against {len(got)}"]
        return [d for i, (a, b) in enumerate(zip(expected, got)) for d in differences(a, b, f"{path}[{i}]")]
    if isinstance(expected, float) or isinstance(got, float):
        close = abs(expected - got) <= TOLERANCE * max(1.0, abs(expected))
        return [] if close else [f"{path}: {expected} against {got}"]
    return [] if expected == got else [f"{path}: {expected!r} against {got!r}"]


def play(case: dict, params: Params) -> dict:
    """Answer a governor case step by step."""
    governor = GovernorState.load(case["input"]["state"], with_risk(params, case["config"]))
    steps = []
    for step in case["input"]["steps"]:
        account = governor.account[0]
        if step["op"] == "allocate":
            out = {"allocation": governor.allocate(*(step[k] for k in ("symbol", "action", "confidence", "now")), step.get("balance"))}
            out["daily_trade_count"] = int(account["trades_today"])
        elif step["op"] == "record":
            out = {"trade": governor.record_trade_result(step, step["now"])}
        else:
            out = {"stats": governor.stats()}
        balances = {"current_balance": float(account["balance"]), "peak_balance": float(account["peak"])}
        steps.append({"op": step["op"], **out, **balances})
    return {"steps": steps, "saved_state": governor.saved_state()}


def without_cooldown_text(answer: dict) -> dict:
    """Cut the minutes from cooldown reasons: the original prints the remaining ones as "ago"."""
    text = json.dumps(answer)
    return json.loads(re.sub(r"COOLDOWN_ACTIVE \([^)]*\)", "COOLDOWN_ACTIVE", text))


@pytest.mark.parametrize("profile", ["original", "default"])
def test_governor_scenarios(profile):
    known = cases("governor")
    assert len(known) == 39
    wrong = {}
    for case in known:
        if profile == "default" and set(case["switches"]) - {"cooldown_reason"}:
            continue
        found = differences(without_cooldown_text(case["expected"]), without_cooldown_text(play(case, Params.profile(profile))))
        if found:
            wrong[case["id"]] = found
    assert wrong == {}


@pytest.mark.parametrize("profile", ["original", "default"])
def test_kelly_scenarios(profile):
    known = cases("kelly")
    assert len(known) == 19
    for case in known:
        if profile == "default" and case["switches"]:
            continue
        got = position_pct(case["input"]["confidence"], with_risk(Params.profile(profile), case["config"]))
        assert differences(case["expected"]["position_pct"], got, case["id"]) == []
