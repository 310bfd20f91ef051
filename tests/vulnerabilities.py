"""Known vulnerabilities of the installed libraries, as pip-audit finds them: `python -m tests.vulnerabilities`. Is a locked version unsafe?

Exit 1 where the service knows a vulnerability. Where it cannot be reached, or knows none of the libraries, one sentence says that nothing
was looked at: that is no failure, and no finding.
"""

import json
import re
import subprocess
import sys

UNREACHED = re.compile(r"ConnectionError|ProxyError|ConnectTimeout|ReadTimeout|SSLError|ServiceError|HTTPError")


def judge(stdout: str, stderr: str) -> tuple[int, str]:
    """Return exit code and text for what pip-audit wrote."""
    try:
        libraries = json.loads(stdout)["dependencies"]
    except ValueError:
        if not UNREACHED.search(stderr):
            return 1, f"pip-audit failed: {stderr.strip()[-500:]}"
        return 0, "libraries were not audited: the service of pip-audit could not be reached"
    audited = [library for library in libraries if "vulns" in library]
    if not audited:
        return 0, "libraries were not audited: the service that pip-audit reached knows none of them"
    bad = [
        f"{library['name']} {library['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'no version yet'}"
        for library in audited
        for found in library["vulns"]
    ]
    head = f"{len(audited)} of {len(libraries)} libraries were audited: {len(bad)} known vulnerabilities"
    return int(bool(bad)), "\n".join([head, *bad])


def main() -> int:
    """Audit this environment."""
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--skip-editable"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    code, text = judge(done.stdout, done.stderr)
    print(text)
    return code


if __name__ == "__main__":
    sys.exit(main())
