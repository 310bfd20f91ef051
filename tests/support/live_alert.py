"""What `--alert` runs in tests: `python live_alert.py FILE` adds the JSON object on its standard input to the file, a line each."""

import sys
from pathlib import Path

if __name__ == "__main__":  # pytest imports every file when it looks for doctests
    with Path(sys.argv[1]).open("a", encoding="utf-8") as file:
        file.write(sys.stdin.read() + "\n")
