"""Is a file of layers run, hashed and refused as it must be?"""

import sys

import pytest

import research
from research.errors import ConfigError, ModelError
from research.training.models.base import model_target, registered
from research.training.models.layers import check_layers, in_use, load_layers, using
from tests.support.own_layers import write_layers


@pytest.fixture(autouse=True)
def undone():
    """Leave no file in use behind."""
    yield
    with using(None):
        pass


def test_a_file_of_layers_holds_what_stands_at_its_top(tmp_path):
    path = list(sys.path)
    with using(write_layers(tmp_path)) as own:
        assert own.models == {"sides_model": "sides:Sides"}
        assert [feature.name for feature in own.features] == ["drop"]
        assert (own.judge.__name__, list(own.feeds), list(own.chain)) == ("bold", ["mine"], ["judge", "trade"])
        assert own.about == {"file": "mine.py", "hash": own.hash}
        assert in_use() is own
        assert model_target("sides_model") == "sides:Sides"
    assert (in_use().path, "sides_model" in registered(), sys.path) == (None, False, path)
    assert {"qt_layers", "sides"}.isdisjoint(sys.modules)


def test_the_hash_is_of_the_bytes_wherever_they_lie(tmp_path):
    first, moved, renamed = (write_layers(tmp_path / name, name=file) for name, file in (("a", "mine.py"), ("b", "mine.py"), ("c", "x.py")))
    hashes = set()
    for file in (first, moved, renamed):
        with using(file) as own:
            hashes.add(own.hash)
    assert len(hashes) == 1
    (tmp_path / "b" / "sides.py").write_text((tmp_path / "a" / "sides.py").read_text() + "\n")
    with using(moved) as own:
        assert own.hash not in hashes  # of the helper too


def test_another_file_in_one_process_brings_its_own_helper(tmp_path):
    first, second = (write_layers(tmp_path / name, "from sides import WHO\njudge = lambda votes, planes, params: WHO\n") for name in "ab")
    for file in (first, second):
        (file.parent / "sides.py").write_text(f"WHO = {file.parent.name!r}")
        assert research.load_layers(file).judge(0, 0, 0) == file.parent.name


def test_a_name_of_ours_means_ours_again_afterwards(tmp_path):
    before = model_target("lgbm")
    with using(write_layers(tmp_path, "from sides import Sides\nmodels = {'lgbm': Sides}\n")):
        assert model_target("lgbm") == "sides:Sides"
    assert model_target("lgbm") == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1\n", "a file with models, features, judge, trade or feeds at its top, was mine.py with none"),
        ("judge = (\n", "must be Python, was .*mine.py with a mistake in line 1 of mine.py"),
        ("import sides\n\n1 / 0\n", "must run to its end, was .*, which raised ZeroDivisionError in line 3 of mine.py: division by zero"),
        ("import sys\nsys.exit(3)\n", "which raised SystemExit in line 2 of mine.py: 3"),
        ("import nothing_like_it\n", "raised ModuleNotFoundError in line 1 of mine.py: No module named"),
        ("judge = 3\n", r"judge of mine.py must be a function \(votes, planes, params\), was 3"),
        ("trade = 'x'\n", "trade of mine.py must be a trade loop such as"),
        (
            "features = [len]\n",
            r"features of mine.py: features must be a list of Feature\(name, .*\), was with the function len",
        ),
        ("models = [3]\n", "models of mine.py must be names with a class each"),
        ("models = {'sides_model': len}\n", "models of mine.py must be classes, was sides_model = "),
        (
            "def f():\n    class A: pass\n    return A\nmodels = {'sides_model': f()}\n",
            "must be classes at the top of a file, was sides_model = f.<locals>.A",
        ),
        ("feeds = {'mine': 3}\n", "feeds of mine.py must be prefixes with a function each"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_a_sentence(tmp_path, text, says):
    with pytest.raises(ConfigError, match=says):
        load_layers(write_layers(tmp_path, text))
    assert in_use().path is None


def test_a_helper_with_a_mistake_is_named_by_its_line(tmp_path):
    file = write_layers(tmp_path)
    for text, says in (("x = 1\n1 / 0\n", "ZeroDivisionError in line 2 of sides.py"), ("def\n", "a mistake in line 1 of sides.py")):
        (tmp_path / "sides.py").write_text(text)
        with pytest.raises(ConfigError, match=says):
            load_layers(file)


def test_a_helper_that_something_installed_hides_is_refused(tmp_path):
    file = write_layers(tmp_path, "import json\njudge = len\n")
    (tmp_path / "json.py").write_text("")
    with pytest.raises(ConfigError, match=r"a file beside mine\.py must have a name that nothing installed has, was json\.py, found"):
        load_layers(file)


def test_a_path_that_is_no_python_file_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("judge = len")
    for path, was in ((tmp_path, "a folder"), (tmp_path / "none.py", "not found"), (tmp_path / "mine.txt", "no .py file")):
        with pytest.raises(ConfigError, match=rf"--layers must be a Python file, was .* \({was}\)"):
            load_layers(path)


def test_a_configuration_names_classes_of_the_file_and_nothing_else(tmp_path):
    file = write_layers(tmp_path, "from sides import Sides\n")
    with using(file, {"sides_model": "Sides"}) as own:
        assert own.models == {"sides_model": "sides:Sides"}
    with pytest.raises(ConfigError, match=r"\[models\] sides_model must be a class at the top of mine.py \(Sides\), was 'Other'"):
        load_layers(file, {"sides_model": "Other"})
    with (
        pytest.raises(ConfigError, match=r"must name classes of a file of layers, was sides_model = 'Sides' without one"),
        using(None, {"sides_model": "Sides"}),
    ):
        pass


def test_what_was_made_with_a_file_needs_that_file(tmp_path):
    with using(write_layers(tmp_path / "a")) as own:
        about = own.about
        check_layers(about, "the run")
    with pytest.raises(
        ModelError, match=rf"the run must have the file .*, mine.py \({about['hash'][:12]}\), was without; name .* --layers"
    ):
        check_layers(about, "the run")
    with (
        using(write_layers(tmp_path / "b", "judge = len\n")) as other,
        pytest.raises(ModelError, match=f"was given mine.py .{other.hash[:12]}"),
    ):
        check_layers(about, "the run")
    check_layers(None, "the run")


def test_what_the_file_prints_is_not_part_of_the_result(tmp_path, capsys):
    load_layers(write_layers(tmp_path, "print('hello')\njudge = len\n"))
    assert capsys.readouterr() == ("", "hello\n")
