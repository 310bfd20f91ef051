"""Does a file appear whole or not at all, whatever happens while it is written?"""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from research.files import put_in_place, replacing, save_json, save_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_file_is_there_when_the_block_ends(tmp_path):
    path = tmp_path / "a.json"
    save_json(path, {"b": [1, None], "a": "x"})
    assert path.read_text() == '{\n "b": [\n  1,\n  null\n ],\n "a": "x"\n}\n'
    assert names(tmp_path) == ["a.json"]


def test_until_then_readers_see_the_earlier_one(tmp_path):
    path = tmp_path / "a.txt"
    save_text(path, "earlier")
    with replacing(path) as draft:
        draft.write_text("later")
        assert path.read_text() == "earlier"
        assert draft.parent == path.parent  # a rename across file systems copies
    assert path.read_text() == "later"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_cannot_be_written_leaves_the_earlier_file_alone(tmp_path, value):
    save_text(tmp_path / "a.json", "earlier")
    with pytest.raises((ValueError, TypeError)):
        save_json(tmp_path / "a.json", {"x": value})
    assert names(tmp_path) == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "earlier"


def test_a_block_that_fails_leaves_the_earlier_file_alone(tmp_path):
    def write_half():
        with replacing(tmp_path / "a") as draft:
            draft.write_text("half")
            raise ZeroDivisionError

    save_text(tmp_path / "a", "earlier")
    with pytest.raises(ZeroDivisionError):
        write_half()
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "earlier"


def test_a_full_disk_leaves_the_earlier_file_alone(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    save_text(tmp_path / "a", "earlier")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_text(tmp_path / "a", "later")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "earlier"


def test_it_is_on_the_disk_before_it_is_renamed(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "fsync", lambda file: seen.append((Path(file.name).read_text(), (tmp_path / "a").exists())))
    save_text(tmp_path / "a", "all of it")
    assert seen == [("all of it", False)]


def test_writers_at_the_same_time_do_not_mix(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: save_text(tmp_path / "a", str(i) * 50_000), range(8)))
    assert names(tmp_path) == ["a"]
    assert len(set((tmp_path / "a").read_text())) == 1


def test_a_killed_writer_leaves_the_earlier_file(tmp_path):
    save_text(tmp_path / "a", "earlier")
    code = "import os, sys; from pathlib import Path; from research.files import replacing\n"
    code += "with replacing(Path(sys.argv[1])) as draft: draft.write_text('half'); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], cwd=Path(__file__).resolve().parents[2])
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "a").read_text() == "earlier"


def test_the_mode_is_that_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    save_text(tmp_path / "a", "x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_takes_the_place_of_the_one_before(tmp_path):
    for text in ("first", "second"):
        (tmp_path / "draft").mkdir()
        (tmp_path / "draft" / text).write_text(text)
        put_in_place(tmp_path / "draft", tmp_path / "run")
        assert names(tmp_path / "run") == [text]
    assert names(tmp_path) == ["run"]
