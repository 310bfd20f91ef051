"""Does the scenario file hold, and is a broken one refused in a sentence?"""

import json
import re
from pathlib import Path

import pytest

from qtcore.params import Params
from research.errors import UserError
from research.runs.reason_text import arbiter_text, entropy_text, reason_text
from research.verify.scenario_chain import meta_features_32_original
from research.verify.scenarios import DEFECTS, run_scenarios
from tests.conftest import SCENARIOS, scenario_cases
from tests.support import PUBLISHED

NAN = float("nan")


def test_the_original_profile_holds():
    report = run_scenarios(SCENARIOS, "original")
    assert [f"{case.id}: {case.detail}" for case in report.outcomes if case.outcome == "failed"] == []
    assert report.summary == "228 passed, 0 failed, 13 skipped"
    skipped = [case for case in report.outcomes if case.outcome == "skipped"]
    assert all(any(f"{name} (" in line for name in DEFECTS) for case in skipped for line in case.detail)


def test_cases_without_switches_hold_in_the_published_profile():
    report = run_scenarios(SCENARIOS)
    assert report.summary == "147 passed, 0 failed, 94 skipped"
    plain = {c["id"] for c in json.loads(SCENARIOS.read_text())["cases"] if not c["switches"] and c["config"].get("order") != "model_first"}
    assert len(plain) > 100
    assert {case.id for case in report.outcomes if case.outcome == "passed"} >= plain


def test_the_report_is_a_table_and_json():
    report = run_scenarios(SCENARIOS, "original")
    assert sum(row["passed"] + row["failed"] + row["skipped"] for row in report.table()) == len(report.outcomes) == 241
    content = json.loads(report.to_json())
    assert (content["passed"], content["skipped"], len(content["cases"])) == (228, 13, 241)
    assert [case.outcome for case in report.notable()] == ["skipped"] * 13


@pytest.mark.parametrize("earlier", [None, {}, "absent"])
def test_without_a_bar_before_the_change_rate_is_zero(earlier):
    case = scenario_cases("meta_features_32_original")[0]
    del case["input"]["previous_predictions"]
    if earlier != "absent":
        case["input"]["previous_predictions"] = earlier
    vector = meta_features_32_original(case, Params.profile("original"))
    at = vector["feature_names"].index("prediction_change_rate")
    assert vector["vector"][at] == 0.0
    rest = [x for i, x in enumerate(case["expected"]["vector"]) if i != at]
    assert [x for i, x in enumerate(vector["vector"]) if i != at] == pytest.approx(rest, rel=1e-9)


CASE = {
    "id": "EV-1",
    "component": "ensemble_vote",
    "title": "one vote",
    "switches": [],
    "config": {},
    "input": {"predictions": {"nhits": {"action": "BUY", "confidence": 0.8}}},
    "expected": {
        "action": "BUY",
        "confidence": 0.8,
        "consensus": "unanimous",
        "consensus_count": 1,
        "votes": {"BUY": 0.3, "SELL": 0.0, "HOLD": 0.0},
    },
}


def write(tmp_path: Path, *cases: object, **top: object) -> Path:
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"schema_version": 1, "cases": cases, **top}))
    return path


def test_a_difference_is_named(tmp_path):
    wrong = {**CASE, "id": "EV-2", "expected": {**CASE["expected"], "confidence": 0.81, "consensus": "split"}}
    report = run_scenarios(write(tmp_path, CASE, wrong))
    assert report.summary == "1 passed, 1 failed, 0 skipped"
    assert report.notable()[0].detail == ("confidence: 0.8, expected 0.81", "consensus: 'unanimous', expected 'split'")


def test_a_switch_that_stands_differently_skips(tmp_path):
    path = write(tmp_path, {**CASE, "switches": ["tie_break"]}, switch_values_in_profile_original={"tie_break": "order"})
    assert run_scenarios(path, "original").summary == "1 passed, 0 failed, 0 skipped"
    report = run_scenarios(path, "published")
    assert report.notable()[0].detail == ("the case is about ensemble.tie_break = order, the profile has hold",)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"component": "astrology"}, "component must be one of"),
        ({"input": {}}, "case EV-1 must hold what its component needs"),
        ({"input": {"predictions": {"oracle": {"action": "BUY", "confidence": 1.0}}}}, "case EV-1"),
        ({"config": None}, "case EV-1"),
    ],
)
def test_a_malformed_case_has_failed_and_the_rest_runs(tmp_path, change, match):
    report = run_scenarios(write(tmp_path, {**CASE, **change}, CASE))
    assert report.summary == "1 passed, 1 failed, 0 skipped"
    assert re.search(match, report.notable()[0].detail[0])


@pytest.mark.parametrize("case", [None, 7, [], {}, {"id": "EV-9"}, {**CASE, "component": ["ensemble_vote"]}, {**CASE, "expected": 10**400}])
def test_whatever_stands_in_the_place_of_a_case_is_a_failed_one(tmp_path, case):
    assert run_scenarios(write(tmp_path, case, CASE)).summary == "1 passed, 1 failed, 0 skipped"


def test_a_malformed_file_is_refused(tmp_path):
    for text, match in (
        ("{", "was no JSON"),
        ("[]", "a list named cases"),
        ('{"cases": []}', "schema_version 1"),
        ('{"schema_version": 1, "cases": [], "float_tolerance": [1]}', "float_tolerance as"),
    ):
        path = tmp_path / "bad.json"
        path.write_text(text)
        with pytest.raises(UserError, match=match):
            run_scenarios(path)
    with pytest.raises(UserError, match="was not found"):
        run_scenarios(tmp_path / "missing.json")
    for profile in ("default", "lucky"):
        with pytest.raises(UserError, match=rf"profile \(--profile\) must be one of published, original: .*, was '{profile}'; leave"):
            run_scenarios(write(tmp_path), profile)


def test_reasons_in_words():
    assert reason_text(1) == "strong_consensus_sell"
    assert reason_text(33, None, {"meta_confidence": 0.58}) == "meta_low_confidence_0.58"
    assert reason_text(45, PUBLISHED, {"arbiter_confidence": 0.695}) == "defer_low_confidence (0.695 < 0.70)"
    assert reason_text(46) == "defer_action_is_HOLD"
    assert reason_text(64, PUBLISHED, {"drawdown": 0.2}) == "MAX_DRAWDOWN_EXCEEDED (20.0% > 15.0%)"
    assert reason_text(65, PUBLISHED, {"trades_today": 20.0}) == "DAILY_TRADE_LIMIT_REACHED (20/20)"
    assert reason_text(66, PUBLISHED, {"exposure": 5500.0, "most_exposure": 5000.0}) == "MAX_EXPOSURE_EXCEEDED (5500 > 5000)"
    assert reason_text(67, PUBLISHED, {"cooldown_left": 30.0}) == "COOLDOWN_ACTIVE (30.0m remaining)"
    assert entropy_text(-9e-11) == "0.000"


def test_the_arbiters_reasons():
    neutral = (50.0, 0.0, 0.0, 0.5, 1.0, 0.0)
    assert arbiter_text(neutral, 1, -0.0001) == "neutral_market: score=-0.000 in neutral zone"
    assert arbiter_text((10.0, 0.08, 0.0, 0.1, 2.0, 0.03), 2, 0.5) == "buy_signal: oversold_rsi, bullish_macd, strong_momentum"
    assert arbiter_text((92.0, -0.08, 0.0, 0.95, 2.0, -0.03), 0, -0.5) == "sell_signal: overbought_rsi, bearish_macd, negative_momentum"
    assert arbiter_text((50.0, 0.05, 0.0, -0.3, 1.0, 0.0), 2, 0.2) == "buy_signal: technical_alignment"
    assert arbiter_text((NAN,) * 6, 1, NAN) == "no_market_data"
    assert arbiter_text((50.0, NAN, 0.0, 0.5, 1.0, 0.0), 1, NAN) == "analysis_error"
