"""Does every parser read a changed file, or refuse it in one sentence? The long campaign is `python -m tests.fuzz`."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import TARGETS, attempt, campaign, make_seeds

TRAINED = {"models", "meta", "registry", "fits", "sweep"}  # need a training, which takes half a minute
SLOW = {"verify", "report", "compare", "explain"}  # run the chain, or draw pages
QUICK = tuple(target for target in TARGETS if target.name not in TRAINED | SLOW)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeds")
    make_seeds(folder, is_trained=False)
    return folder


@pytest.mark.parametrize("target", QUICK, ids=lambda target: target.name)
@settings(max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, 2**32 - 1))
def test_a_changed_file_is_read_or_refused_in_one_sentence(seeds, target, number):
    done = attempt(target, seeds, 7, number)
    assert done["faults"] == [], done


@pytest.mark.slow
def test_a_long_campaign_in_children_finds_nothing():
    assert campaign(1_500, seed=3) == {}
