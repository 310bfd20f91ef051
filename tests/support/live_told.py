"""`qt live` as a process of its own that says how its files sync: `python -m tests.support.live_told TOLD live ...`.

TOLD gets a line of JSON when the runner begins: `synchronous` and `journal_mode` of journal and paper account, read from the connections
that write them.
"""

import json
import sys
from pathlib import Path

from research.cli import main
from research.live.session.runner import Runner


def tell(path: Path) -> None:
    """Let the runner tell before it runs."""
    run = Runner.run

    def told(self: Runner):
        kept = {"journal": self.journal.db, "paper": self.broker.db}
        settings = ("synchronous", "journal_mode")
        said = {file: {name: db.execute(f"PRAGMA {name}").fetchone()[0] for name in settings} for file, db in kept.items()}
        with path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(said) + "\n")
        return run(self)

    Runner.run = told


if __name__ == "__main__":
    tell(Path(sys.argv.pop(1)))
    main()
