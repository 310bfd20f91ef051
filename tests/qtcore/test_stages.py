"""Do stages of the rollout hold from their time on, keep the state, and change nothing else (`spec` D-85, 11.4)?"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qtcore as qt
import research
from qtcore import InputError
from qtcore.declare import time_text
from qtcore.stages import stages_text
from qtcore.types import DECISION_COLUMNS, Source, Verdict
from research.report import build
from research.runs.config import load_config
from research.training.predictions import Predictions
from research.verify.evidence import read_evidence
from research.verify.invariants import check_invariants
from research.workflow.recording import verify_run
from tests.conftest import assert_same_bits, awkward_bars
from tests.qtcore.test_engine import run_in_blocks
from tests.support import PUBLISHED

N = 400
BARS = awkward_bars(N)
OFF = {"meta.enabled": False, "arbiter.enabled": False, "governor.max_drawdown": 1.0}
OUTCOMES = ("final_action", "governor_reason", "size", "pnl", "equity", "balance", "exposure", "worth", "fills")


def time_of(bar: int) -> str:
    """Decision time of a bar, as a user writes it."""
    return time_text(int(BARS.close_time[bar]))


STAGES = [(time_of(120), True, False), (time_of(250), True, True)]
STAGED = PUBLISHED.with_values({**OFF, "stages": STAGES})


def test_every_stage_decides_with_its_own_switches() -> None:
    votes = Predictions.random(BARS, seed=3).votes()
    staged = qt.Engine(STAGED).run(BARS, votes)
    for rows, values in (
        (slice(0, 120), {}),
        (slice(120, 250), {"meta.enabled": True}),
        (slice(250, N), {"meta.enabled": True, "arbiter.enabled": True}),
    ):
        whole = qt.Engine(PUBLISHED.with_values(OFF | values)).run(BARS, votes)
        for name in DECISION_COLUMNS:
            assert_same_bits(getattr(staged.decisions, name)[rows], getattr(whole.decisions, name)[rows], name)
    assert not (staged.decisions.verdict[:120] != Verdict.NONE).any()
    assert (staged.decisions.source[250:] == Source.ARBITER).any()


@settings(max_examples=5, deadline=None)
@given(cuts=st.lists(st.integers(1, N - 1), max_size=6))
def test_cutting_changes_nothing_across_stages(cuts: list[int]) -> None:
    whole, parts = run_in_blocks([], STAGED)[0], run_in_blocks(cuts, STAGED)[0]
    for name, array in whole.items():
        assert_same_bits(array, parts[name], name)


def test_stage_one_logs_and_changes_no_outcome() -> None:
    """O-4: the policy is evaluated from bar 120 on; every order, fill and figure is that of stage 0."""
    predictions = Predictions.random(BARS, seed=3)
    before = research.backtest(BARS, predictions, PUBLISHED.with_values(OFF)).result
    after = research.backtest(BARS, predictions, PUBLISHED.with_values(OFF), stages=STAGES[:1]).result
    for name in OUTCOMES:
        assert_same_bits(getattr(before, name), getattr(after, name), name)
    assert (after.decisions.verdict[120:] == Verdict.ESCALATE).any()
    assert len(after.fills) > 50


def test_rolling_back_keeps_positions_and_takes_effect_on_the_next_bar() -> None:
    votes = Predictions.random(BARS, seed=3).votes()
    on = PUBLISHED.with_values({"governor.max_drawdown": 1.0})
    back = qt.Engine(on.with_values({"stages": [(time_of(200), False, False)]})).run(BARS, votes)
    kept = qt.Engine(on).run(BARS, votes)
    assert_same_bits(back.equity[:201], kept.equity[:201])  # what bar 200 decides is filled at the open of 201
    assert (back.decisions.source[200:] == Source.ENSEMBLE).all()
    assert not np.array_equal(back.equity, kept.equity)


def test_a_value_set_later_holds_in_every_stage() -> None:
    assert STAGED.with_values({"meta.enabled": True}).flat()["stages"][0] == {"from": time_of(120), "arbiter.enabled": False}
    assert STAGED.with_values({"meta.enabled": False, "arbiter.enabled": False}).stages == ()
    assert PUBLISHED.with_values(STAGED.flat()) == STAGED
    assert hash(STAGED) != hash(PUBLISHED)
    assert STAGED.with_values({"governor.max_drawdown": 0.2}).stages == STAGED.stages


def test_the_configuration_has_a_table_for_each_stage(tmp_path) -> None:
    file = tmp_path / "qt.toml"
    file.write_text(
        "[[stage]]\nfrom = 2024-03-01\nmeta = true\narbiter = false\n\n[[stage]]\nfrom = 2024-04-01T12:00:00Z\narbiter = true\n"
    )
    assert load_config("original", file).params.flat()["stages"] == [
        {"from": "2024-03-01", "meta.enabled": True, "arbiter.enabled": False},
        {"from": "2024-04-01T12:00", "arbiter.enabled": True},
    ]


def test_the_command_that_reproduces_a_run_names_its_stages() -> None:
    config = load_config("published", sets=["stages=2024-03-01 meta=on arbiter=off; 2024-04-01T06:00 arbiter=on"])
    assert config.params.flat()["stages"][1] == {"from": "2024-04-01T06:00", "arbiter.enabled": True}
    assert config.changes() == ["stages=2024-03-01 meta=on arbiter=off; 2024-04-01T06:00 arbiter=on"]
    factors = {"from": "2024-05-01", "ensemble.regime_factors": [1.25] * 45}
    fitted = PUBLISHED.with_values({"stages": [factors]})
    assert PUBLISHED.with_values({"stages": stages_text(fitted.stages)}) == fitted


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([("soon", True, True)], "must be an ISO time in UTC such as 2024-03-01 or 2024-03-01T12:00, was 'soon'"),
        ([("2024-03-01", True)], r"a stage must be \(from, meta, arbiter\), was"),
        ("2024-03-01", "must have a time `from` and some of meta, arbiter, .*, was from"),
        ([{"meta": True}], "must have a time `from`"),
        ([{"from": "2024-03-01", "governor.max_drawdown": 0.2}], "some of meta, arbiter, ensemble.regime_factors, was from, governor"),
        ([("2024-03-01", True, "perhaps")], "arbiter.enabled must be on or off"),
        ([("2024-03-01", True, True), ("2024-03-01", True, False)], "stages must be in order of time, was 2024-03-01 after"),
    ],
)
def test_a_bad_stage_is_named(stages, message) -> None:
    with pytest.raises(InputError, match=message):
        PUBLISHED.with_values({"stages": stages})


def test_the_stepper_refuses_stages() -> None:
    engine = qt.Engine(STAGED)
    engine.run(BARS[:10])
    with pytest.raises(InputError, match="stepper must run one set of parameters, was asked for 2 stages; use run"):
        engine.stepper()


def test_a_staged_run_is_recorded_proved_and_told(tmp_path) -> None:
    run = research.backtest(BARS, Predictions.random(BARS, seed=3), PUBLISHED.with_values(OFF), stages=STAGES)
    folder = run.save(tmp_path / "run", record=False)
    certificate = verify_run(folder)
    assert [c["detail"] for c in certificate["checks"] if not c["passed"]] == []
    assert f"from {time_of(120).replace('T', ' ')[:16]} UTC meta on, arbiter off" in build(folder).read_text()
    evidence = read_evidence(folder)
    assert evidence.params == run.params
    never = replace(evidence, params=evidence.params.with_values({"arbiter.enabled": False}))
    assert "O-3" in [claim.id for claim in check_invariants(never) if not claim.holds]
