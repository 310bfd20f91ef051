"""Table of rules: every reason declared once and whole."""

from collections import Counter
from pathlib import Path

import pytest

from qtcore.choices import MetaMode
from qtcore.params import NUMBERS
from qtcore.rules import RULES, Reason, refusals, rule_of, rules_of
from tests.support import PUBLISHED
from tests.support.rule_gaps import gaps

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("reason", list(Reason), ids=lambda reason: reason.name)
def test_every_reason_has_one_rule(reason):
    assert [rule.reason for rule in RULES].count(reason) == 1
    assert rule_of(reason).layer in ("meta", "arbiter", "governor", "exit", "word")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.reason.name)
def test_what_a_rule_declares_exists(rule):
    values = PUBLISHED.flat()
    assert bool(rule.modes) <= (rule.layer == "meta")
    assert not rule.parameter or rule.parameter in values
    assert (rule.off is None) or PUBLISHED.with_values({rule.parameter: rule.off}).flat()[rule.parameter] == rule.off
    assert not rule.never or not rule.parameter or rule.off is not None
    assert not rule.limit or rule.parameter in NUMBERS, (
        f"qtcore/rules.py: {rule.name} has a limit, which says a number; {rule.parameter} is none"
    )
    assert (rule.layer in ("governor", "exit")) == (Reason.APPROVED <= rule.reason < 256)  # a byte; from 60 on permission


def test_every_code_that_the_chain_writes_stands_in_the_layer_that_asks():
    ranges = {"meta": range(39), "arbiter": {*range(40, 48), *range(49, 51)}, "governor": range(60, 72)}
    for layer, within in ranges.items():
        missing = {r for r in Reason if r in within} - {rule.reason for rule in rules_of(layer)}
        assert missing <= {Reason.TIE, Reason.NEUTRAL_MARKET}
    assert {Reason.ZERO_SIZE, Reason.LIQUIDATED, Reason.GOVERNOR_ERROR} <= {rule.reason for rule in refusals()}
    assert all(rules_of("meta", mode) for mode in MetaMode)


def test_names_in_the_attribution_are_unique():
    names = Counter(rule.switch[0] for rule in RULES if rule.switch)
    assert set(names.values()) == {1}


def test_no_rule_of_the_account_has_a_gap():
    """Code, row, parameter, kernel, twin and case: what one file says, the others know."""
    assert gaps(ROOT) == []
