"""Verdict of a run: evidence and proof combined. What may a reader believe?

Evidence says what the figures show (`evidence["finding"]`: edge, no edge, not enough data; `evidence["reason"]`: the numbers that decided)
and which of them are too good (`evidence["plausibility"]`); the proof says whether the run is what it says it is (the certificate of
`research.verify`). Here alone the two become one word, the first of these that holds:

1. `invalid`: a check of the proof failed, so no figure of the run is evidence;
2. `implausible`: a figure lies above what honest work reaches, and nobody said why it should;
3. `not enough data`, `edge`, `no edge`: what evidence found. Without a passed proof `edge` reads `not proven`, and the others say so too.
   To people `not enough data` of a chain that declined every trade reads `declined` (`told`), and `edge` of predictions whose maker did not
   say what he knew reads `edge, if ...`: `evidence["condition"]` says on what it hangs.

Everything here is a function of the two dictionaries, so that a verdict is the same whoever asks for it: the terminal, the page, JSON.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

INVALID, IMPLAUSIBLE = "invalid", "implausible"
FAILING = (INVALID, IMPLAUSIBLE)  # verdicts with which a command exits 1
NOT_PROVEN = "not proven"
NOT_ENOUGH = "not enough data"
OWN_WORK = ("parity", "causality", "invariants", "accounting")  # groups of checks of what a run did, whoever predicted
UNPROVEN: dict[str, Any] = {"passed": None, "checks": []}  # the certificate of a run that nobody has proven


@dataclass(frozen=True)
class Judgement:
    """One verdict. failed_check: name of the first check of the proof that failed, None when none did.

    condition: on what an edge hangs that nothing here can show, None for none.
    """

    verdict: str
    proven: bool
    failed_check: str | None
    sentence: str
    condition: str | None = None

    @property
    def fails(self) -> bool:
        """Whether a command that ends with this verdict must exit 1."""
        return self.verdict in FAILING


def judge(evidence: Mapping[str, Any], certificate: Mapping[str, Any]) -> Judgement:
    """Combine what evidence found with what was proven.

    evidence: that of a summary; an older one tells finding and reason as `verdict` and `sentence`.
    certificate: `verify.json`; empty, or `passed: None` with perhaps a `why`, for a run that was not proven.
    """
    finding, reason = found(evidence)
    if certificate.get("passed") is False:
        return Judgement(INVALID, False, *_failure(certificate))
    proven = certificate.get("passed") is True
    aside = "" if proven else f", {NOT_PROVEN}"
    condition = evidence.get("condition") if finding == "edge" else None
    if (text := too_good(evidence)) is not None:
        return Judgement(IMPLAUSIBLE, proven, None, f"Implausible{aside}: {text}")
    if finding == "edge" and not proven:
        alone = f"by its figures alone, and if {condition}" if condition else "by its figures alone"
        return Judgement(NOT_PROVEN, False, None, f"Not proven: {_missing(certificate)}; {alone}, {reason}", condition)
    return Judgement(finding, proven, None, f"{told(finding, evidence).capitalize()}{aside}: {reason}", condition)


def told(verdict: str, evidence: Mapping[str, Any]) -> str:
    """Return the word of a verdict for people: a chain that saw its edges and wished for no trade did not lack data.

    >>> told("not enough data", {"declined": True}), told("not enough data", {}), told("invalid", {"declined": True})
    ('declined', 'not enough data', 'invalid')
    >>> told("edge", {"condition": "the maker looked at no later bar"})
    'edge, if the maker looked at no later bar'
    """
    if verdict == "edge" and evidence.get("condition"):
        return f"edge, if {evidence['condition']}"
    return "declined" if verdict == NOT_ENOUGH and evidence.get("declined") else verdict


def found(evidence: Mapping[str, Any]) -> tuple[str, str]:
    """Return what evidence found, and the numbers that decided."""
    if "finding" in evidence:
        return evidence["finding"], evidence["reason"]
    return evidence["verdict"], evidence["sentence"].partition(":")[2].strip()


def too_good(evidence: Mapping[str, Any]) -> str | None:
    """Say which figure is above its ceiling, the first one; None when none is, the run is exempt, or its user turned the ceilings off."""
    checked = evidence.get("plausibility") or {}
    is_told = checked.get("findings") and not (checked.get("exempt") or checked.get("off"))
    return str(checked["findings"][0]["text"]) if is_told else None


def doubt(said: Judgement) -> str | None:
    """Say in some words why no figure of a run may be believed, or not yet; None where its proof passed and nothing is too good."""
    if said.verdict == INVALID:
        return "not to be believed: the proof failed"
    if said.verdict == IMPLAUSIBLE:
        return "not to be believed: one is above what honest work reaches"
    return None if said.proven else NOT_PROVEN


def combined(summary: Mapping[str, Any], certificate: Mapping[str, Any]) -> dict[str, Any]:
    """Return a summary with the verdict that evidence and proof give together; the summary may have had another one before.

    Sets `verdict`, `proven`, `failed_check`, `figures` (why they are in doubt, or None), `verify.passed`, and in `evidence` the
    `verdict` with its `sentence`.
    """
    evidence = summary["evidence"]
    finding, reason = found(evidence)
    said = judge(evidence, certificate)
    told = {"verdict": said.verdict, "proven": said.proven, "failed_check": said.failed_check, "figures": doubt(said)}
    return {
        **told,
        **summary,
        **told,
        "evidence": {**evidence, "finding": finding, "reason": reason, "verdict": said.verdict, "sentence": said.sentence},
        "verify": {"passed": certificate.get("passed")},
    }


def stated(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what every view of a run opens with: `verdict`, its `sentence`, on what an edge hangs and why its `figures` are in doubt.

    The last two, `condition` and `figures`, are None where there is none.
    """
    evidence, verdict = summary["evidence"], summary["verdict"]
    condition = evidence.get("condition") if verdict in ("edge", NOT_PROVEN) else None
    return {"verdict": verdict, "sentence": evidence["sentence"], "condition": condition, "figures": summary["figures"]}


def proof_text(certificate: Mapping[str, Any]) -> str:
    """Say in some words what became of the proof."""
    if certificate.get("passed") is False:
        return f"proof FAILED: {_failure(certificate)[0] or 'a check'}"
    return "proof passed" if certificate.get("passed") else NOT_PROVEN


def _failure(certificate: Mapping[str, Any]) -> tuple[str | None, str]:
    """Name the first check that failed, and say in a sentence what it found."""
    failed = [check for check in certificate.get("checks", []) if not check["passed"]]
    end = "No figure of this run is evidence."
    if not failed:
        return None, f"Invalid: the proof failed. {end}"
    more = f", and {len(failed) - 1} more check{'' if len(failed) == 2 else 's'}" if len(failed) > 1 else ""
    name, detail = failed[0]["name"], failed[0].get("detail") or ""
    is_named = detail.startswith(name.partition(":")[0])
    return name, f"Invalid: the proof failed at the check {detail if is_named else ': '.join(filter(None, (name, detail)))}{more}. {end}"


def _missing(certificate: Mapping[str, Any]) -> str:
    """Say why a run is not proven."""
    if why := certificate.get("why"):
        return str(why)
    if certificate.get("checks"):
        return f"no check failed, but the proof leaves open {next(iter(certificate.get('not_covered', [])), 'what it could not run again')}"
    return "the proof was not made (`qt verify` makes it), and without it nothing reads edge"
