"""Are the published error rates of the verdict those of today's code, and within what they promise?"""

import numpy as np
import pytest
from scipy.stats import binom

from docs.rates import PAGES, filled
from qtcore.sweep.hedge import Hedged
from research.evidence.finding import EVER
from tests import verdict_rates
from tests.verdict_rates import (
    BESIDE,
    CELLS,
    EXEMPT,
    FIRST,
    LAWS,
    NOISE,
    PLANTED,
    SHARPES,
    TRIALS,
    USUAL,
    Cell,
    World,
    beside,
    counted,
    judged,
)

LEVEL, SURE = 0.05, 0.999
HELD = ("normal", "t5", "AR(1) 0.2", "GARCH with jumps")
ENOUGH = 100


def stored(cell: Cell) -> dict:
    known = verdict_rates.read()["returns"].get(cell.name)
    if known is None or known["worlds"] < min(ENOUGH, cell.worlds):
        pytest.skip(f"docs/verdict_rates.json holds too few worlds of {cell.name}; python -m tests.verdict_rates returns")
    return known


@pytest.mark.parametrize(
    "cell", [Cell("normal", 1, 0.0), Cell("GARCH with jumps", 1, 0.6), Cell("skewed to the left, 10 % of days", 1, 0.0)]
)
def test_the_first_worlds_of_a_cell_are_those_of_today(cell):
    assert stored(cell)["first"] == counted(cell, 0, FIRST, judged)


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell.law in HELD], ids=lambda cell: cell.name)
def test_luck_is_no_edge_more_often_than_promised(cell):
    """No cell above its binomial bound at 1 in 1,000: with all 2,000 worlds 6.6 %."""
    known = stored(cell)
    assert max(known["sums"]["last"]) <= binom.ppf(SURE, known["worlds"], LEVEL)


def test_luck_is_an_edge_in_5_percent_over_all_cells():
    known = [(stored(cell), cell) for cell in CELLS if cell.law in HELD and cell.trials == TRIALS]
    rates = [n / each["worlds"] for each, _ in known for n in each["sums"]["last"]]
    assert np.mean(rates) <= 0.053


@pytest.mark.parametrize("law", ["normal", "t5", "GARCH with jumps"])
def test_eight_years_and_a_hundred_trials_find_what_is_promised(law):
    known = stored(Cell(law, 8, 0.0))
    for name, least in (("power 1.5", 0.77), ("power 1.0", 0.27)):
        assert known["sums"][name][-1] / known["worlds"] >= least


def test_a_declared_number_of_trials_keeps_the_rate_of_every_look():
    for cell in CELLS:
        if cell.law in HELD and cell.trials == TRIALS:
            known = stored(cell)
            assert max(known["sums"]["declared"]) <= binom.ppf(SURE, known["worlds"], LEVEL), cell.name


def test_the_laws_have_no_mean_and_a_deviation_of_one():
    rng = np.random.default_rng(1)
    for name, law in (LAWS | EXEMPT).items():
        returns = law(rng, 400, 3_000)
        assert abs(returns.mean()) < 0.01, name
        assert returns.std() == pytest.approx(1.0, abs=0.04), name


def test_a_planted_edge_is_found_and_its_trials_are_the_same_worlds():
    worlds = [World(Cell("normal", 8, 0.0), seed) for seed in range(10)]
    assert sum(world.found()["power 1.5"][0] for world in worlds) >= 9
    assert not all(world.found()["power 1.0"][-1] for world in worlds)
    np.testing.assert_array_equal(worlds[0].t, World(Cell("normal", 8, 0.0), 0).t)


def test_noise_is_traded_by_the_profile_that_takes_every_opinion():
    """A product that holds nothing in noise is never wrong there: its rate would say nothing."""
    assert verdict_rates.findings("random_walk", 3)["published"] == "no edge"


def whole_worlds(kinds, profile) -> list[str]:
    known = verdict_rates.read()["product"]
    if any(len(known.get(kind, {"findings": {profile: []}})["findings"][profile]) < worlds for kind, worlds in kinds.items()):
        pytest.skip("docs/verdict_rates.json holds too few worlds of candles; python -m tests.verdict_rates product")
    return [each for kind in kinds for each in known[kind]["findings"][profile]]


@pytest.mark.parametrize("profile", verdict_rates.PROFILES)
def test_the_whole_product_calls_luck_an_edge_in_at_most_5_percent(profile):
    found = whole_worlds(NOISE, profile)
    assert found.count("edge") <= binom.ppf(SURE, len(found), LEVEL)


def test_the_whole_product_finds_what_is_planted():
    """The profile default declines: four months do not show what an opinion is worth. The page says so, and is to change with it."""
    assert whole_worlds(PLANTED, "published").count("edge") >= 50
    assert set(whole_worlds(PLANTED, "default")) == {"not enough data"}


def test_what_asking_after_every_trial_costs_is_what_was_measured():
    """The sentence of a verdict names the mean over the laws; within 2 points."""
    known = [stored(cell) for cell in CELLS if cell.law in HELD and cell.trials == TRIALS and not cell.correlation]
    for k, n in enumerate(TRIALS):
        assert EVER[n] == pytest.approx(np.mean([each["sums"]["ever"][k] / each["worlds"] for each in known]), abs=0.02)


def test_the_tables_of_the_pages_are_made_of_what_was_measured():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert filled(text, verdict_rates.read()) == text, f"{page.name} is older than docs/verdict_rates.json; run docs/rates.py"


# beside StepM


def stepm() -> dict[str, dict]:
    known = verdict_rates.read()["stepm"]
    if any(known.get(cell.name, {"worlds": 0})["worlds"] < ENOUGH for cell in BESIDE):
        pytest.skip("docs/verdict_rates.json holds too few worlds beside StepM; python -m tests.verdict_rates stepm")
    return known


def test_the_first_worlds_beside_stepm_are_those_of_today():
    cell = Cell("t5", 1, 0.6)
    assert stepm()[cell.name]["first"] == counted(cell, 0, FIRST, beside)


def test_the_series_that_stepm_takes_are_those_whose_blocks_are_tested():
    world = World(Cell("GARCH with jumps", 3, 0.6), 3)
    sums = np.add.reduceat(world.hedged(world.noise), world.hedge.edges[:-1], axis=1)
    t = sums.sum(axis=1) / np.sqrt((sums**2).sum(axis=1))
    raw = world.hedge.outcome(world.equity(world.noise), np.ones(len(world.noise))).measured[:, Hedged.T_RAW]
    np.testing.assert_allclose(t, raw, atol=1e-4)  # sums are rounded to whole numbers


@pytest.mark.parametrize("law", USUAL)
@pytest.mark.parametrize("sharpe", SHARPES)
@pytest.mark.parametrize("years", [(8,), (1, 3, 8)])
def test_stepm_finds_at_most_three_points_more(law, sharpe, years):
    """In the mean over cells and trials; most on one year, where StepM calls up to 13 % of luck an edge."""
    gaps = [
        (theirs - ours) / stepm()[cell.name]["worlds"]
        for cell in BESIDE
        if cell.law == law and cell.years in years
        for ours, theirs in zip(*(stepm()[cell.name]["sums"][f"{whose}power {sharpe}"] for whose in ("", "stepm ")), strict=True)
    ]
    assert np.mean(gaps) <= 0.03
