"""Does `qt power` know beforehand what the verdict will find, and count overlap, common moves and earlier trials?"""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from research.cli.app import app
from research.data import simulate
from research.data.sketch import sketch
from research.errors import DataError
from research.evidence.ledger import Ledger
from research.evidence.power import Power, Z, _at_most, power, sentence, worth_of
from research.evidence.trials import Trial
from tests import verdict_rates
from tests.verdict_rates import BURN, Cell, market_bars


def daily(years: int, seed: int = 0):
    return market_bars(np.random.default_rng(seed), 365 * years)


def asked(years: int, **more) -> Power:
    """Ask of a history whose test is so many years."""
    return power(daily(years), train_share=(BURN + 0.5) / (BURN + 365 * years), **more)


def test_more_years_show_more_and_more_trials_hide_more():
    one, three, searched = asked(1, trials=1), asked(3, trials=1), asked(3, trials=100)
    assert one.years == pytest.approx(1.0)
    assert three.years == pytest.approx(3.0)
    assert one.sharpe > three.sharpe > 1.2
    assert searched.sharpe > 1.3 * three.sharpe
    assert searched.critical > 3.0 > 1.8 > three.critical
    assert one.years_needed[1.5] == pytest.approx(three.years_needed[1.5], rel=0.15)


@pytest.mark.parametrize("trials", [1, 100])
@pytest.mark.parametrize("years", [3, 8])
def test_it_agrees_with_the_published_rates(years, trials):
    """Within 5 points of what was measured on the verdict's own functions."""
    known = verdict_rates.read()["returns"].get(Cell("normal", years, 0.0).name)
    if known is None or known["worlds"] < 1_000:
        pytest.skip("docs/verdict_rates.json holds fewer than 1,000 worlds of this cell, too few to tell 5 points")
    found = asked(years, trials=trials).found
    for sharpe in verdict_rates.SHARPES:
        share = known["sums"][f"power {sharpe}"][known["trials"].index(trials)] / known["worlds"]
        assert found[sharpe] == pytest.approx(share, abs=0.05)


def test_trials_of_the_ledger_count(tmp_path):
    bars, ledger = simulate("random_walk", n_bars=3_000, n_symbols=2), Ledger(tmp_path / "trials.sqlite")
    alone = power(bars, ledger=ledger)
    assert alone.trials == 1
    ledger.record_many([Trial(sketch(bars), f"p{i}", "votes", 0.01, 0, np.empty(0, np.float32)) for i in range(50)])
    after = power(bars, ledger=ledger)
    assert after.trials == 51
    assert after.critical > alone.critical + 1.0
    assert after.sharpe > alone.sharpe


def test_symbols_that_move_together_are_worth_one_and_overlap_is_taken_off():
    rng = np.random.default_rng(3)
    own = rng.choice(np.array([0, 2], np.int8), (3_000, 4))
    same, held = np.repeat(own[:, :1], 4, axis=1), np.repeat(own[::5], 5, axis=0)
    n, worth = worth_of(own, 1)
    assert n == 12_000
    assert worth == pytest.approx(n, rel=0.25)
    assert worth_of(same, 1)[1] == pytest.approx(3_000, rel=0.25)
    assert worth_of(held, 5)[1] == pytest.approx(2_400, rel=0.4)
    assert worth_of(np.ones((100, 2), np.int8), 5) == (0, 0.0)


def test_a_history_without_a_test_is_refused_and_one_without_moves_is_told():
    bars = simulate("random_walk", n_bars=40, n_symbols=1)
    with pytest.raises(DataError, match="the test must have 15 blocks of time or more"):
        power(bars, trials=1)
    flat = replace(daily(1), **{name: np.full((365 + BURN, 1), 5.0) for name in ("open", "high", "low", "close")})
    assert sentence(power(flat, trials=1)).endswith("has no moves here.")


def test_the_command_says_it(monkeypatch, tmp_path):
    monkeypatch.setenv("QT_HOME", str(tmp_path))
    world = "simulated:random_walk?n_bars=3000&n_symbols=2"
    result = CliRunner().invoke(app, ["power", world, "--trials", "20", "--json"])
    found = json.loads(result.stdout)
    assert found["trials"] == 20
    assert found["found"]["2"] < 0.5
    assert set(found["found"]) == set(found["years_needed"]) == {"0.5", "1", "1.5", "2"}
    shown = CliRunner().invoke(app, ["power", world]).stdout
    assert "after 1 trial its t value must exceed 1." in shown
    assert "years of test" in shown
    assert not (tmp_path / "trials.sqlite").exists()


@pytest.mark.parametrize(
    ("n", "says"),
    [
        (1.0, "too few to tell an opinion"),
        (8.0, "too few to tell two layers apart"),
        (400.0, "better one must be right in 69.7 % of those"),
    ],
)
def test_what_being_always_right_would_not_show_is_no_figure(n, says):
    """Six moves once needed 100.8 % of right directions, and JSON was refused a NaN."""
    found = replace(asked(1, trials=1), n_effective=n, accuracy=_at_most(0.5, 0.5 * Z, n), layer_difference=_at_most(0.1, Z * 0.1**0.5, n))
    assert says in sentence(found)
    shown = json.dumps(replace(found, sharpe=np.nan, years_needed={1.5: np.nan}).to_dict(), allow_nan=False)
    assert json.loads(shown)["years_needed"] == {"1.5": None}
    for name, value in re.findall(r"must be right in ()([0-9.]+) %", sentence(found)):
        assert 50.0 < float(value) <= 100.0, name


def test_the_command_writes_json_where_nothing_can_be_shown(monkeypatch, tmp_path):
    monkeypatch.setenv("QT_HOME", str(tmp_path))
    result = CliRunner().invoke(app, ["power", "simulated:random_walk?n_bars=1200&n_symbols=1", "--trials", "1000000000", "--json"])
    assert json.loads(result.stdout)["sharpe"] is None
