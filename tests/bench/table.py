"""How fast is it, in the README? Writes what `make bench` measured between the README's markers: nobody types a number."""

import json
import platform
import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"


def rows(report: dict) -> list[str]:
    """One line a measurement: what was done, in which unit, how much."""
    lines = ["| workload | measured | value |", "| --- | --- | ---: |"]
    for bench in report["benchmarks"]:
        workload = bench["name"].removeprefix("test_").replace("_", " ").replace("[", " (").replace("]", ")")
        for unit, value in bench["extra_info"].items():
            lines.append(f"| {workload} | {unit} | {f'{value:,.3g}' if isinstance(value, float) else value} |")
    return lines


def main(path: str) -> None:
    """Replace the table in the README by the report at `path`."""
    report = json.loads(Path(path).read_text(encoding="utf-8"))
    machine = f"{platform.machine()}, Python {report['machine_info']['python_version']}, {report['datetime'][:10]}"
    block = "\n".join(
        ["<!-- bench -->", f"One thread, {machine}; a machine that does other work is slower.", "", *rows(report), "<!-- /bench -->"]
    )
    text = README.read_text(encoding="utf-8")
    README.write_text(re.sub(r"<!-- bench -->.*<!-- /bench -->", lambda _: block, text, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
