"""Is a file of layers run, hashed and refused as it must be?"""

import sys

import pytest

import research
from research.errors import ConfigError
from research.training.models.base import model_target, register, registered, unregister
from research.training.models.layers import check_known, check_layers, in_use, load_layers, using
from tests.support.own_layers import write_layers


@pytest.fixture(autouse=True)
def undone(tmp_path_factory):
    """Leave no file in use behind."""
    yield
    with using(write_layers(tmp_path_factory.mktemp("empty"), "judge = len\n")):
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


def test_a_name_that_was_registered_means_that_again_afterwards(tmp_path):
    register("sides_model", "examples.forest:Forest")
    with using(write_layers(tmp_path)):
        assert model_target("sides_model") == "sides:Sides"
    assert model_target("sides_model") == "examples.forest:Forest"
    unregister("sides_model")


def test_a_name_of_ours_is_refused_in_a_file_and_in_a_configuration(tmp_path):
    before = model_target("lgbm")
    says = r"models of mine\.py must have names of their own, was 'lgbm', a model of ours; choose another name"
    with pytest.raises(ConfigError, match=says):
        load_layers(write_layers(tmp_path, "from sides import Sides\nmodels = {'forest': Sides, 'lgbm': Sides}\n"))
    with pytest.raises(ConfigError, match=says):
        load_layers(write_layers(tmp_path, "from sides import Sides\n"), {"lgbm": "Sides"})
    assert (model_target("lgbm"), "forest" in registered()) == (before, False)


def test_a_file_that_is_not_there_leaves_no_earlier_one_in_use(tmp_path):
    load_layers(write_layers(tmp_path))
    with pytest.raises(ConfigError, match="not found"):
        load_layers(tmp_path / "missing.py")
    assert (in_use().path, "sides_model" in registered()) == (None, False)


@pytest.mark.parametrize(
    ("text", "held"),
    [("from sides import Sides\nmodel = {'forest': Sides}\njudge = len\n", "no models"),
     ("from sides import Sides\nmodel = {'forest': Sides}\n", "no models"),
     ("from sides import Sides\nmodels = {'other': Sides}\n", "the models other")],
)  # fmt: skip
def test_a_model_that_the_file_does_not_hold_is_named(tmp_path, text, held):
    with using(write_layers(tmp_path, text)):
        check_known(["lgbm"])
        says = rf"run\.models must be of xgb, .*, was 'forest', and mine\.py holds {held} at its top \(it may hold models, .* or feeds\)"
        with pytest.raises(ConfigError, match=says):
            check_known(["lgbm", "forest"])
    check_known(["forest"])  # without a file `model_target` says what there is


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
        (
            "models = {'sides_model': len}\n",
            "models of mine.py must be classes, was sides_model = .*; give the class itself, such as models = ",
        ),
        (
            "def f():\n    class A: pass\n    return A\nmodels = {'sides_model': f()}\n",
            "must be classes at the top of a file, was sides_model = f.<locals>.A",
        ),
        ("feeds = {'mine': 3}\n", "feeds of mine.py must be prefixes with a function each"),
        ("feeds = {'replay': print}\n", "prefix in feeds of mine.py must be a new word .*, was 'replay', a feed of ours; choose another"),
        ("feeds = {'a:b': print}\n", "prefix in feeds of mine.py must be a new word .*, was 'a:b'; choose another"),
        ("feeds = {'mine': lambda: 1}\n", "feeds of mine.py must be functions that take a name and flags, was mine = <function"),
        ("class Own(BaseException): pass\nraise Own('x')\n", "which raised Own in line 2 of mine.py: x; correct it"),
        ("raise GeneratorExit\n", "which raised GeneratorExit in line 1 of mine.py; correct it"),
        ("class E(Exception):\n    def __str__(self): 1 / 0\nraise E\n", "which raised E in line 3 of mine.py; correct it"),
        ("assert False\n", "which raised AssertionError in line 1 of mine.py; correct it"),
        ("class R:\n    def __repr__(self): 1 / 0\njudge = R()\n", "must be a function .*, was of the kind R"),
        ("def __getattr__(name): raise RuntimeError(name)\n", "a file with models, .* at its top, was mine.py with none"),
        ("x = '\0'\n", "must be Python, was .*mine.py.* source code string"),
        ("# coding: nothing\n", "must be Python, was .* with a mistake in mine.py: "),
        ("from sides import Sides as A\nmodels = {'a': A, 'A': A}\n", "voters must have different names, .* was a, A; rename one"),
        ("features = (1 / 0 for _ in 'a')\n", "features of mine.py: features must be a list of .*, raised ZeroDivisionError"),
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


@pytest.mark.parametrize("path", [None, 5, b"x", [], "", "x\0.py", "a" * 5000 + ".py"])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(ConfigError, match=r"--layers must be a Python file, was .*; see docs/extending.md"):
        load_layers(path)


def test_a_link_to_itself_is_refused(tmp_path):
    (tmp_path / "loop.py").symlink_to(tmp_path / "loop.py")
    with pytest.raises(ConfigError, match=r"--layers must be a Python file, was .*; see docs/extending.md"):
        load_layers(tmp_path / "loop.py")


def test_an_interrupt_passes(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        load_layers(write_layers(tmp_path, "raise KeyboardInterrupt\n"))
    assert in_use().path is None


@pytest.mark.parametrize(
    ("helper", "how"),
    [
        ("late_help.py", "import importlib\nWHO = importlib.import_module('late_help').WHO\n"),
        ("late_help.py", "WHO = __import__('late_help').WHO\n"),
        ("spaced/late_help.py", "from spaced import late_help\nWHO = late_help.WHO\n"),
        ("spaced/late_help.py", "import importlib\nWHO = importlib.import_module('spaced.late_help').WHO\n"),
    ],
)
def test_a_helper_imported_by_any_name_is_hashed_and_run_anew(tmp_path, helper, how):
    file = write_layers(tmp_path, how + "judge = lambda votes, planes, params: WHO\n")
    (tmp_path / helper).parent.mkdir(exist_ok=True)
    seen = []
    for who in ("x", "y"):
        (tmp_path / helper).write_text(f"WHO = {who!r}\n")
        with using(file) as own:
            seen.append((own.judge(0, 0, 0), own.hash))
    assert [said for said, _ in seen] == ["x", "y"]
    assert seen[0][1] != seen[1][1]
    assert {"late_help", "spaced", "spaced.late_help"}.isdisjoint(sys.modules)


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
        ConfigError, match=rf"the run must have the file .*, mine.py \({about['hash'][:12]}\), was without; name .* --layers"
    ):
        check_layers(about, "the run")
    with (
        using(write_layers(tmp_path / "b", "judge = len\n")) as other,
        pytest.raises(ConfigError, match=f"was given mine.py .{other.hash[:12]}"),
    ):
        check_layers(about, "the run")
    check_layers(None, "the run")


def test_what_the_file_prints_is_not_part_of_the_result(tmp_path, capsys):
    load_layers(write_layers(tmp_path, "print('hello')\njudge = len\n"))
    assert capsys.readouterr() == ("", "hello\n")
