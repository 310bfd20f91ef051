"""Certificate of a run: everything that can be proven from a finished run's folder, and what cannot."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtcore.choices import DecideRule
from research.errors import several
from research.training.models.inputs import own_features
from research.training.models.layers import NONE, Layers, in_use
from research.training.regime_weights import FACTORS
from research.verify.accounting import check_accounting
from research.verify.claims import Claim
from research.verify.evidence import Evidence, read_evidence
from research.verify.invariants import check_invariants
from research.verify.maps import are_of_these_bars, map_claims
from research.verify.meta import meta_claims, retrainable
from research.verify.own import own_claims, unproven
from research.verify.parity import check_parity, file_claims
from research.verify.rerun import check_reruns
from research.verify.serving import check_models, early_claim, known_claims, load_models, same_bars

SCHEMA_VERSION = 1
N_STEPS = 11

Progress = Callable[[int, int, str], Any]


def certify(
    folder: Path | str, progress: Progress | None = None, seed: int = 0, layers: Layers = NONE
) -> tuple[Evidence, dict[str, Any], bool]:
    """Prove a finished run from its folder, and the user's own layers where they are at hand; nothing is written.

    progress(done, total, text) is called before each step. layers: those that the run, its features and models were made
    with. Returns what was read of the run, the certificate, and whether the folder is the run that its manifest names. The certificate:
    `passed`, `checks` (name, checked, passed, detail, first offender), `covers` and
    `not_covered` in sentences. A run with layers of the user's own that are not at hand cannot be run again, and own features that were
    never tried prove nothing: `passed` is None unless something is wrong, and `not_covered` says so first. Raises UserError when the folder
    is incomplete, or the layers are of another file.
    """
    started, done = time.perf_counter(), 0

    def report(text: str) -> None:
        nonlocal done
        if progress is not None:
            progress(done, N_STEPS, f"verify: {text}")
        done += 1

    report("read the folder")
    run = read_evidence(folder, layers)
    models = None if run.predictions.imported else load_models(run)
    groups, n_single = {}, 0
    if run.lacking:
        groups["parity"] = file_claims(run)
    else:
        parity, whole, n_single = check_parity(run, seed, report)
        groups |= {"parity": parity, "causality": check_reruns(run, whole, seed, report), "invariants": check_invariants(run)}
    known = None if models is None or codeless(run, models) else models  # what can be asked here
    groups["models"] = [early_claim(run), *known_claims(run), *(check_models(run, known, seed, report) if known is not None else [])]
    groups["models"] += meta_claims(run, seed, report)
    groups["models"] += map_claims(run, known, seed, report)
    groups["own"] = own_claims(own_checks(run, models))
    report("count the invariants and the money")
    groups["accounting"] = check_accounting(run)
    certificate = _certificate(run, groups, models, n_single, seed) | {"proves": run.files.proves}
    certificate["seconds"] = round(time.perf_counter() - started, 2)
    is_the_run = all(claim.holds for claim in groups["parity"] if claim.id in ("files", "tables"))
    return run, certificate, is_the_run


def _certificate(run: Evidence, groups: dict[str, list[Claim]], models: Any, n_single: int, seed: int) -> dict[str, Any]:
    checks = [
        {
            "name": f"{claim.id}: {claim.text}",
            "group": group,
            "checked": several(claim.checked, claim.unit) if claim.checked or claim.violated else "does not apply",
            "passed": claim.holds,
            "detail": claim.complaint,
            **claim.to_dict(),
        }
        for group, claims in groups.items()
        for claim in claims
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "passed": False
        if not all(check["passed"] for check in checks)
        else None
        if run.lacking or untried(models) or lost(models)
        else True,
        "bars": run.bars.n,
        "symbols": len(run.bars.symbols),
        "seed": seed,
        "checks": checks,
        "covers": [*covered(run, n_single), *(claim.text for claim in groups["models"])],
        "not_covered": not_covered(run, models),
    }


def own_checks(run: Evidence, models: Any) -> list[dict[str, Any]]:
    """List what the trials of own layers found before the run, and those of own features before the training."""
    return [*run.own_checks, *(() if models is None else models.config.get("own_checks", ()))]


def untried(models: Any) -> tuple[str, ...]:
    """Name own features that the base models read and nobody tried before the training."""
    if models is None:
        return ()
    tried = {found["name"] for found in models.config.get("own_checks", ())}
    return tuple(name for name in own_features(models.feature_names) if name not in tried)


def lost(models: Any) -> bool:
    """Whether the code of a base model is in a file of layers that is not at hand."""
    return models is not None and models.layers is not None and models.layers["hash"] != in_use().hash


def codeless(run: Evidence, models: Any) -> tuple[str, ...]:
    """Name what the base models need and the folder does not hold, as far as it is not at hand: own features, the code of models."""
    known = {feature.name for feature in run.own.features}
    features = tuple(name for name in own_features(models.feature_names) if name not in known)
    return (*features, models.layers["file"]) if lost(models) else features


def covered(run: Evidence, n_single: int) -> list[str]:
    """Say what was proven, over how much."""
    n, width = run.bars.n, len(run.bars.symbols)
    if run.lacking:
        return ["every stored array compared with its hash; balance, equity and PnL worked out again from the fills"]
    how = "all of them" if n_single == n else f"{n_single:,} of them, in stretches that start from carried state"
    return [
        f"{n:,} bars of {width} symbols ({n * width:,} cells) replayed in one block and in random blocks, every array compared by bits",
        f"bars replayed one at a time: {how}",
        "the future rewritten after random bars, the past compared by bits",
        "every decision checked against the invariants; balance, equity and PnL worked out again from the fills",
    ]


def not_covered(run: Evidence, models: Any) -> list[str]:
    """Say where the proof ends."""
    out = []
    if run.lacking:
        names = ", ".join(run.lacking)
        out.append(f"the decisions: the run used an own {names}, which the folder does not hold, so nothing could be run again")
    if names := " and ".join(run.own.chain):
        out.append(f"the rules of our own opinion or governor that the own {names} took the place of")
    if models is not None and lost(models):
        out.append(f"the base models: the code of some is in {models.layers['file']}, which was not at hand; name it with --layers")
    if names := ", ".join(untried(models)):
        out.append(f"the own features {names}: nobody tried them before the training; train with research.train")
    out += unproven(own_checks(run, models))
    if run.meta is not None and not retrainable(run):
        out.append("the training of the meta models: they were made from other bars than these")
    if run.predictions.maps is not None and run.params.decide.rule == DecideRule.EDGE and not are_of_these_bars(run, models):
        out.append("the maps from opinion to money: they were fitted on other bars than these")
    if any(name == FACTORS for stage in run.params.stages for name, _ in stage.values):
        out.append("the weights by regime that begin with a fold: they were taken as stored, not fitted again")
    if run.predictions.imported:
        told = ", nor whether what they are said to know is all" if run.predictions.knows_until is not None else ""
        out.append(f"the origin of the imported predictions: whether they were made before their bars closed cannot be seen in them{told}")
    elif models is not None and lost(models):
        pass  # said above
    elif models is not None and (own := codeless(run, models)):
        names = ", ".join(own)
        out.append(f"the base models: they read own features ({names}), which the folder does not hold; predictions were taken as stored")
    elif models is not None and not same_bars(run, models):
        out.append("the training of the base models: they were made from other bars than these")
    elif models is None:
        out.append("the base models: their artefacts are not in the run's folder, so predictions were taken as stored")
    else:
        out.append("training beyond the retrained fold; refits on other machines or library versions may differ in bits")
    out += [
        "the candles themselves: revisions by the exchange, survivorship in the choice of symbols",
        "live fills: real slippage, partial fills and rejected orders",
        "whether the result would repeat: that is what the verdict and its evidence are about",
    ]
    return out
