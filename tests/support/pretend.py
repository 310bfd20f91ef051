"""Pretended rule of the governor: what a newcomer would add to the table, for as long as a test lasts."""

import pytest

from qtcore import rules
from qtcore.rules import Kind, Reason, Rule

CODE, NAME = 90, "PRETEND_RULE"


def pretend_reason(patch: pytest.MonkeyPatch) -> Reason:
    """Give `Reason` one more member."""
    reason = int.__new__(Reason, CODE)
    reason._name_, reason._value_ = NAME, CODE
    patch.setitem(Reason._member_map_, NAME, reason)
    patch.setitem(Reason._value2member_map_, CODE, reason)
    patch.setattr(Reason, "_member_names_", [*Reason._member_names_, NAME])
    return reason


def pretend_rule(patch: pytest.MonkeyPatch) -> Rule:
    """Put one entry into the table, before the approvals, with a parameter that no rule has."""
    rule = Rule(
        pretend_reason(patch), "governor", Kind.REFUSAL, parameter="governor.kelly_fraction", off=1.0, label="pretended rule",
        limit="{percent} of pretence", text="{name} ({confidence:.2f} of {limit:.2f})",
    )  # fmt: skip
    at = next(i for i, known in enumerate(rules.RULES) if known.reason == Reason.APPROVED)
    patch.setattr(rules, "RULES", (*rules.RULES[:at], rule, *rules.RULES[at:]))
    return rule
