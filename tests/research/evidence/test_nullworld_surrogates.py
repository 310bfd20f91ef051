"""Do surrogate markets keep what they promise and destroy what they must, and does an interrupted test go on where it was?"""

import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

import research
from qtcore.profiles import PROFILES
from research.errors import UserError
from research.evidence.nullworlds import NullWorlds, Procedure, _describe, null_worlds, search
from research.evidence.surrogates import KINDS, candles_of, moves_of, surrogate
from tests.conftest import assert_same_bits, awkward_bars
from tests.support import PUBLISHED

PLANES = ("open", "high", "low", "close", "volume")


@pytest.fixture(scope="module")
def bars():
    return awkward_bars(600)


def log_returns(bars):
    moves = moves_of(bars)
    return moves.gap + moves.body


def test_taken_apart_and_put_together_it_is_the_same_market(bars):
    again = candles_of(bars, moves_of(bars), np.isnan(bars.close))
    for name in PLANES:
        np.testing.assert_allclose(getattr(again, name), getattr(bars, name), rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_surrogates_are_candles_and_seeded(bars, kind):
    made, same, other = surrogate(bars, kind, seed=1), surrogate(bars, kind, seed=1), surrogate(bars, kind, seed=2)
    with np.errstate(invalid="ignore"):
        known = ~np.isnan(made.close)
        assert np.array_equal(known, ~np.isnan(made.open))
        assert (made.low[known] <= np.minimum(made.open, made.close)[known]).all()
        assert (made.high[known] >= np.maximum(made.open, made.close)[known]).all()
        assert (made.low[known] > 0.0).all()
    for name in PLANES:
        assert_same_bits(getattr(made, name), getattr(same, name), name)
    assert not np.array_equal(made.close, other.close, equal_nan=True)
    assert made.symbols == bars.symbols
    assert np.array_equal(made.close_time, bars.close_time)
    if kind != "bootstrap":
        assert np.array_equal(np.isnan(made.close), np.isnan(bars.close))


@pytest.mark.parametrize("kind", KINDS)
def test_symbols_stay_tied_together(kind):
    bars = research.simulate("random_walk", seed=1, n_bars=3_000, n_symbols=3, correlation=0.7)
    before, after = (np.corrcoef(log_returns(b), rowvar=False) for b in (bars, surrogate(bars, kind, seed=3)))
    np.testing.assert_allclose(after, before, atol=0.08)


def test_mirroring_keeps_sizes_and_phases_keep_the_spectrum(bars):
    np.testing.assert_allclose(np.abs(log_returns(surrogate(bars, "sign_flip", seed=4))), np.abs(log_returns(bars)), atol=1e-12)
    plain = research.simulate("random_walk", seed=2, n_bars=512, n_symbols=2)
    theirs, ours = (np.abs(np.fft.rfft(log_returns(b), axis=0)) for b in (plain, surrogate(plain, "phase", seed=4)))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)


def test_a_bootstrap_draws_whole_rows():
    bars = research.simulate("gaps", seed=2, n_bars=300, n_symbols=3)
    made = surrogate(bars, "bootstrap", seed=5, block=10.0)
    before, after = (np.nan_to_num(b.volume, nan=-1.0) for b in (bars, made))
    at = {tuple(row): t for t, row in enumerate(before)}
    drawn = [at[tuple(row)] for row in after]  # a row that was not there would be a KeyError
    follows = np.mean(np.diff(drawn) == 1)
    assert follows > 0.75  # blocks of ten in the mean


def test_direction_cannot_be_foreseen_in_any_of_them():
    """The planted state tells the next move of the real world, of no surrogate."""
    from research.data.worlds import planted_signal

    bars = research.simulate("planted_edge", seed=1, n_bars=4_000, n_symbols=4)

    def skill(b):
        moved, said = log_returns(b)[1:], planted_signal(b.volume)[:-1]
        return float(np.corrcoef(moved[said != 0.0], said[said != 0.0])[0, 1])

    assert skill(bars) > 0.3
    for kind in KINDS:
        assert abs(np.mean([skill(surrogate(bars, kind, seed=seed)) for seed in range(8)])) < 0.08, kind


class Foresight:
    """A procedure whose statistic is the correlation of the planted signal with the next move."""

    def __init__(self, stop_after=None):
        self.calls, self.stop_after = 0, stop_after

    def __repr__(self):
        return "Foresight"

    def __call__(self, bars):
        from research.data.worlds import planted_signal

        if self.calls == self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        return float(np.corrcoef(log_returns(bars)[1:].ravel(), planted_signal(bars.volume)[:-1].ravel())[0, 1])


@pytest.fixture(scope="module")
def planted():
    return research.simulate("planted_edge", seed=1, n_bars=1_500, n_symbols=3)


def test_an_edge_stands_out_and_a_fair_market_does_not(planted):
    found = null_worlds(planted, Foresight(), n_worlds=39)
    assert found.p_value == pytest.approx(1 / 40)
    assert found.sentence.startswith("More than luck")
    assert found.kinds[:4] == ("sign_flip", "phase", "bootstrap", "sign_flip")
    p = [
        null_worlds(research.simulate("random_walk", seed=s, n_bars=400, n_symbols=2), Foresight(), n_worlds=19).p_value for s in range(20)
    ]
    assert np.mean(np.array(p) <= 0.05) <= 0.2
    few = null_worlds(planted, Foresight(), n_worlds=5)
    assert few.sentence.startswith("Not enough data")
    assert NullWorlds(1.0, np.array([1.0, 2.0, 0.0]), ("phase",) * 3).p_value == pytest.approx(3 / 4)


def test_an_interrupted_test_goes_on_and_its_file_is_its_own(planted, tmp_path):
    out, seen = tmp_path / "deep" / "worlds.jsonl", []
    with pytest.raises(KeyboardInterrupt):
        null_worlds(planted, Foresight(stop_after=4), n_worlds=9, out=out)
    assert len(out.read_text().splitlines()) == 4
    with out.open("a") as file:
        file.write('{"key": "cut o')  # the machine went down while a line was written
    rest = Foresight()
    found = null_worlds(planted, rest, n_worlds=9, out=out, progress=lambda *step: seen.append(step))
    assert rest.calls == 6
    assert found.null.tolist() == null_worlds(planted, Foresight(), n_worlds=9).null.tolist()
    assert seen[0][:2] == (4, 10)
    assert seen[-1][:2] == (10, 10)
    assert len([json.loads(line) for line in out.read_text().splitlines()]) == 10
    with pytest.raises(UserError, match="must be of this procedure and market, was of another"):
        null_worlds(planted, Foresight(), n_worlds=9, seed=1, out=out)
    out.write_text("nonsense\n" + out.read_text())
    with pytest.raises(UserError, match=r"line 1 of .* must be a null world in a line of JSON, was no JSON"):
        null_worlds(planted, Foresight(), n_worlds=9, out=out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_worlds": 0}, "1 or more"),
        ({"kinds": ("shuffle",)}, "must be one of sign_flip, phase, bootstrap, was 'shuffle'"),
        ({"kinds": ()}, "must be one of sign_flip, phase, bootstrap"),
        ({"block": 0.5}, r"block \(--block\) must be 1 row"),
        ({"block": math.nan}, r"block \(--block\) must be 1 row"),
    ],
)
def test_bad_arguments_are_one_sentence(planted, arguments, words):
    def procedure(_):
        raise AssertionError("the work began")

    with pytest.raises(UserError, match=words):
        null_worlds(planted, procedure, **{"n_worlds": 2} | arguments)


def test_the_default_procedure_tries_its_whole_grid(planted):
    predictions = research.Predictions.random(planted, seed=1)
    found = search(planted, predictions, research.backtest(planted, predictions, PUBLISHED).params, Procedure(profile="published").grid)
    assert len(found) == 15
    assert len(set(found)) > 5
    assert all(np.isfinite(found))


@pytest.mark.slow
def test_the_command_trains_searches_and_goes_on(tmp_path):
    from research.cli import app

    arguments = ["audit", "nullworlds", "simulated:planted_edge?n_bars=1200&n_symbols=3&seed=1", "--worlds", "3", "--json"]
    arguments += ["--out", str(tmp_path / "worlds.jsonl"), "--folds", "2", "--set", "governor.min_confidence=0.5"]
    first, second = (CliRunner().invoke(app, arguments) for _ in range(2))
    assert first.exit_code == second.exit_code == 0, first.output
    assert json.loads(first.output) == json.loads(second.output)
    assert len(json.loads(first.output)["worlds"]) == 3


def test_a_procedure_is_known_by_what_its_parameters_are_whatever_the_defaults():
    told = _describe(Procedure(profile="published"))  # as it was told when these were the defaults
    assert told["values"] == {}
    assert "governor.min_confidence" in told["grid"]
    assert "profile" not in told
    assert _describe(Procedure(values={"governor.stop_loss": 0.1}, profile="published"))["values"] == {"governor.stop_loss": 0.1}
    assert _describe(Procedure())["profile"] == "default"


def test_every_profile_tries_what_it_reads(planted):
    predictions = research.Predictions.random(planted, seed=1)
    for profile, procedure in ((name, Procedure(profile=name)) for name in PROFILES):
        found = search(planted, predictions, procedure.params, procedure.grid)
        assert len(found) == 15, profile
        assert "decide.min_edge" in procedure.grid or profile != "default"
