"""Run loader: `load_run(folder)` brings a finished run back. The chain runs again over what the folder holds, and the bits are compared."""

from pathlib import Path

from research.errors import UserError
from research.runs.backtest import backtest
from research.runs.folder import array_hashes, read_run
from research.training.models.layers import NONE, Layers
from research.workflow.run import Run


def load_run(folder: str | Path, layers: Layers = NONE) -> Run:
    """Return the `Run` of a folder that `qt backtest`, `Run.save` or `qt status --export` wrote.

    Candles, predictions, parameters and the learned meta layer are read, the chain runs again (milliseconds), and every array must have the
    hash that the manifest names. Nothing is written, and the trial ledger does not count it. layers: of `research.load_layers`, for a run
    that was made with some. Raises UserError when the folder is incomplete, when an array differs (`qt reproduce` names the first stage),
    and where layers are lacking.
    """
    files = read_run(folder)
    own = files.own(layers)
    bars, predictions, params, meta = files.chain(own)
    run = Run.of(backtest(bars, predictions, params, meta=meta, **own.engine, ceilings=files.ceilings))
    run.profile, run.command, run.folder = files.manifest["profile"], files.manifest["command"], files.path
    run.manifest, run.verification = files.manifest, files.verify
    run.notes, run.lacked = tuple(files.manifest["notes"]), tuple(files.manifest.get("lacked", ()))
    again = array_hashes(run)
    if differing := [name for name, value in files.manifest["arrays"].items() if again.get(name) != value]:
        text = f"run must come out again as it was written, was {files.path} with {len(differing)} other arrays ({differing[0]} first)"
        raise UserError(f"{text}; see `qt reproduce {files.path}`")
    return run


def export_run(journal: Path, folder: Path, meta: Path | None = None) -> Run:
    """Write a journal as a run's folder and return the run. meta: folder of its meta layer, where that lies elsewhere by now.

    Raises UserError where the journal is empty or does not give itself again.
    """
    from research.live.monitoring.export import journal_record
    from research.training.meta.schedule import MetaSchedule

    run = Run.of(journal_record(journal, None if meta is None else MetaSchedule.load(meta)))
    run.command = f"{run.command} --export {folder}"
    run.save(folder, record=False)
    run.report(folder / "report.html")
    return run
