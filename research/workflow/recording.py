"""Recording of runs and proofs: what each leaves in the run's folder, in its verdict and in the trial ledger.

A run is in the ledger before its folder is whole and before its proof: an interrupt hides nothing; what the proof finds is appended.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from research.errors import ProofError
from research.evidence import summarise
from research.evidence.ledger import Ledger, trial_of
from research.evidence.standing import result_of
from research.evidence.trials import TrialName, name_trial
from research.report import build
from research.runs.folder import check_output, own_source, read_run, write_certificate, write_run
from research.runs.verdict import UNPROVEN, combined, stated
from research.training.models.layers import Layers, in_use
from research.verify.certificate import Progress, certify
from research.verify.reproduce import make_again

if TYPE_CHECKING:
    from research.workflow.run import Run


def save_run(run: "Run", folder: Path, *, record: bool = True) -> Path:
    """Write a run's folder, whole or not at all, and return it; an earlier run of that name is replaced.

    record: count the run in the trial ledger. Sets `run.manifest`. Raises UserError when the disk is full or the folder is not ours.
    """
    check_output(folder)
    certificate = run.verification or UNPROVEN
    summary = combined(run.summary, certificate) | {"run_id": folder.name}
    if record:
        Ledger().record(trial_of(run, summary["evidence"]["sharpe"]), result_of(summary, certificate, own_source()))
    return write_run(run, folder, summary, certificate)


def save_certificate(folder: Path, certificate: dict[str, Any], trial: TrialName | None = None) -> bool:
    """Put a proof into a finished run, and the verdict that follows into its summary and the ledger; say whether it had a page.

    trial: the run as the ledger may know it.
    """
    summary, had_page = write_certificate(folder, certificate)
    if trial is not None:
        Ledger().settle(trial, result_of(summary, certificate, own_source()))
    return had_page


def verify_run(folder: Path | str, progress: Progress | None = None, seed: int = 0, layers: Layers | None = None) -> dict[str, Any]:
    """Prove a finished run and write `verify.json` into its folder; verdict, page and ledger follow.

    Returns the certificate of `research.verify.certify`, which says what the parameters mean; layers: by default those of the file in
    use. A proof that failed stays where the run's own layers are not at hand, unless more is found: then it is returned as it was, with a
    sentence in `not_covered`. Raises UserError when the folder is incomplete, or the trial ledger damaged or gone, and where a proof would
    take the place of a better one because the run's file of layers is not at hand.
    """
    Ledger().resets()  # one that is damaged or gone is told before the work
    given, files = in_use() if layers is None else layers, read_run(folder)
    if (known := files.manifest.get("layers")) and given.about is None and files.verify["passed"]:
        remedy = "name it with --layers (the proof that there is stays)"
        raise ProofError(f"{folder} must be proven with its file of layers, {known['file']}, was without; {remedy}")
    run, certificate, is_the_run = certify(folder, progress, seed, given)
    if files.verify["passed"] is False and certificate["passed"] is None and (run.lacking or (known and given.about is None)):
        needed = f"its file of layers, {known['file']}; name it with --layers" if known else "its own layers at hand (Run.verify)"
        kept = f"whether what failed is mended: that takes {needed} (the proof that failed stays)"
        return files.verify | {"not_covered": [kept, *files.verify.get("not_covered", [])]}
    # a copy that was altered says nothing of the trial
    trial = name_trial(run.bars, run.params, run.votes, run.meta, run.planes["meta_action"], run.files.layers_hash) if is_the_run else None
    if save_certificate(run.files.path, certificate, trial):
        build(run.files.path)
    return certificate


def reproduce(folder: Path | str, *, is_training: bool = True, progress: Any = None) -> dict[str, Any]:
    """Make a run again: the report of `research.verify.reproduce.make_again`, with the `verdict` (stored, again, and why to doubt it).

    A run that was made with a file of layers needs that in use (`research.load_layers`).
    """
    record, report = make_again(folder, is_training=is_training, layers=in_use(), progress=progress)
    again = combined(summarise(record), record.verification)
    said = {"again": again["verdict"], "declined": again["evidence"]["declined"], "condition": stated(again)["condition"]}
    said |= {"figures": again["figures"]}
    return report | {"verdict": {"stored": report.pop("stored"), **said}}
