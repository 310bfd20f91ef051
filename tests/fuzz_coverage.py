"""Fuzzer that follows the branches it reaches: bytes of its own against every parser that reads one file. Needs atheris (extra `fuzz`).

`python -m tests.fuzz_coverage --seconds 60` gives each parser that long, beginning with a valid file, in a process of its own; exit code 1
when one ends otherwise than by reading the file or by one UserError. Input that fell is kept where the output says.
"""

import argparse
import contextlib
import io
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz import TARGETS, Target, make_seeds

# Parsers of one small file, by target: they run thousands of times a second, so branches are found that chance does not find.
NAMES = ("config", "candles", "predictions", "scenarios", "null worlds", "governor", "envelope")
SECONDS_A_TRY, MEGABYTES = 60, 6_000


def follow(target: Target, seeds: Path, work: Path, seconds: int) -> None:
    """Fuzz one parser in this process until the time is over, or die of what it found."""
    import atheris

    target.copy(seeds, work)
    path = work / target.files[0]
    with atheris.instrument_imports(include=["research"], enable_loader_override=False):
        target.work(work)  # imports what it needs, so that its branches are followed
    from qtcore.types import InputError
    from research.errors import UserError

    (corpus := work / "corpus").mkdir()
    (corpus / "valid").write_bytes(path.read_bytes())

    def one(data: bytes) -> None:
        path.write_bytes(data)
        with (
            contextlib.suppress(UserError, InputError),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            target.work(work)

    limits = [f"-max_total_time={seconds}", f"-timeout={SECONDS_A_TRY}", f"-rss_limit_mb={MEGABYTES}", "-max_len=20000", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={seeds.parent}/{target.name.replace(' ', '_')}_", str(corpus)], one)
    atheris.Fuzz()


def campaign(seconds: int, names: tuple[str, ...] = NAMES) -> list[str]:
    """Fuzz parser after parser in child processes; return what fell, a line each."""
    root = Path(tempfile.mkdtemp(prefix="qt_follow_"))
    (seeds := root / "seeds").mkdir()
    with contextlib.redirect_stdout(io.StringIO()):
        make_seeds(seeds, is_trained=False)
    fallen = []
    for name in names:
        command = [sys.executable, "-m", "tests.fuzz_coverage", "--child", name, "--seeds", str(seeds), "--seconds", str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        sys.stdout.write(f"{name:<12} {'held' if done.returncode == 0 else 'FELL'} {seconds} s\n")
        if done.returncode:
            fallen.append(f"{name}: {done.stdout[-2_000:]}{done.stderr[-1_000:]} (input in {root})")
    return fallen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--child", default="")
    parser.add_argument("--seeds", type=Path)
    asked = parser.parse_args()
    if asked.child:
        target = next(target for target in TARGETS if target.name == asked.child)
        with tempfile.TemporaryDirectory(prefix="qt_follow_") as work:
            follow(target, asked.seeds, Path(work), asked.seconds)
        return 0
    fallen = campaign(asked.seconds)
    sys.stdout.write("".join(f"{text}\n" for text in fallen))
    return 1 if fallen else 0


if __name__ == "__main__":
    sys.exit(main())
