"""Is whatever is wrong with a file of ours one sentence, and whatever is right read as it is?"""

import io
import os
import stat
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from research.errors import UserError
from research.files import (
    TEXT,
    TIME,
    Kind,
    hash_file,
    misfit,
    parse_json,
    read_bytes,
    read_json,
    read_table,
    read_text,
    read_toml,
    unpack_arrays,
)
from research.runs.config import load_config

KIND = Kind("a thing", "make it again")
TABLE = Kind("a table", "make it again", {"time": TIME, "symbol": TEXT, "x": float, "n": int})
ARRAYS = Kind("an archive", "make it again", {"a": ("f8", 2), "k": ("i8", 1)})


def refused(work, *words: str) -> str:
    with pytest.raises(UserError) as error:
        work()
    text = str(error.value)
    assert "\n" not in text
    assert ", was " in text
    assert text.endswith("; make it again")
    for word in words:
        assert word in text, text
    return text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", ["no JSON"]),
        (b'{"a": 1', ["no JSON"]),
        (b'{"a": NaN}', ["finite"]),
        (b'{"a": -Infinity}', ["finite"]),
        (b'{"a": 1e999}', ["finite"]),
        (b'{"a": 1, "a": 2}', ["'a' stands twice"]),
        (b'{"a": 123456789012345678901}', ["64 bits"]),
        (b'{"a": ' + b"9" * 5000 + b"}", ["64 bits"]),
        (b'{"a": "\\ud800"}', ["half a character"]),
        (b'{"a": "\xff"}', ["UTF-8"]),
        ('{"a": 1}'.encode("utf-16"), ["UTF-8"]),
        (b"[" * 200_000, []),
        (b"[" * 100 + b"]" * 100, ["deeper than 64"]),
        (b"[1]", ["not a table"]),
        (b"\x00", ["no JSON"]),
    ],
)
def test_what_is_no_strict_json_is_refused(tmp_path, text, words):
    (tmp_path / "a.json").write_bytes(text)
    refused(lambda: read_json(tmp_path / "a.json", KIND), str(tmp_path / "a.json"), "must be a thing", *words)


def test_json_is_read_as_it_is(tmp_path):
    (tmp_path / "a.json").write_text('{"a": [1, -2.5, null, true, "\\u00e9\\ud83d\\ude00"], "n": 18446744073709551615}')
    assert read_json(tmp_path / "a.json", KIND) == {"a": [1, -2.5, None, True, "\u00e9\U0001f600"], "n": 2**64 - 1}


@pytest.mark.parametrize(
    ("value", "shape", "text"),
    [
        ({"a": 1}, {"a": int, "b?": str}, ""),
        ({"a": 1, "b": None}, {"a": int, "b?": str}, "b as None, not text"),
        ({}, {"a": int}, "without a"),
        ({"t": {"x": [1, "2"]}}, {"t": {"x": [float]}}, "t.x[1] as '2', not a number"),
        ({"a": True}, {"a": int}, "a as True, not a whole number"),
        ({"a": 1}, {"a": bool}, "a as 1, not true or false"),
        ({"a": 1.0}, {"a": int}, "a as 1.0, not a whole number"),
        ({"a": float("nan")}, {"a": float}, "a as nan, not a finite number"),
        ({"a": None}, {"a": (float, None)}, ""),
        ({"a": "x"}, {"a": (float, None)}, "a as 'x', not a number"),
        ({"a": {"b": 1}}, {"a": str}, "a as {'b': 1}, not text"),
        ({"p": {"q": 1, "r": "s"}}, {"p": {...: int}}, "p.r as 's', not a whole number"),
        ([], {}, "its content as [], not a table of names and values"),
        ({"a": "x" * 500}, {"a": int}, f"a as '{'x' * 59}..., not a whole number"),
    ],
)
def test_a_shape_says_where_it_does_not_fit(value, shape, text):
    assert misfit(value, shape) == text


def test_what_is_no_plain_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    places = {
        tmp_path: "a folder",
        tmp_path / "pipe": "a pipe or a device",
        Path("/dev/zero"): "a pipe or a device",
        tmp_path / "link": "not found",
        tmp_path / "circle": "symbolic links",
        tmp_path / "nothing" / "a": "not found",
        Path("a\0b"): "null",
        Path("\ud800"): "encode",
        tmp_path / ("x" * 300): "too long",
    }
    for read in (read_bytes, read_text, read_json, read_toml, read_table, hash_file):
        for place, words in places.items():
            refused(lambda place=place, read=read: read(place, KIND), words)
    (tmp_path / "large").write_bytes(bytes(100))
    refused(lambda: read_bytes(tmp_path / "large", KIND, 99), "100 bytes")


@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may read everything")
def test_what_may_not_be_read_is_refused(tmp_path):
    (tmp_path / "a").write_text("{}")
    (tmp_path / "a").chmod(stat.S_IWUSR)
    refused(lambda: read_json(tmp_path / "a", KIND), "permission denied")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a = ", "no TOML"),
        (b"a = 1\na = 2", "no TOML"),
        (b"a = nan", "finite"),
        (b"a = inf", "finite"),
        (b"a = " + b"[" * 5000, ""),
        (b"a = " + b"[" * 100 + b"]" * 100, "deeper"),
        (b"a = " + b"9" * 5000, "no TOML"),
        (b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_what_is_no_toml_is_refused(tmp_path, text, words):
    (tmp_path / "a.toml").write_bytes(text)
    refused(lambda: read_toml(tmp_path / "a.toml", KIND), words)


@pytest.mark.parametrize(
    "line",
    [
        'folds = "x"',
        "folds = [3]",
        "folds = 2.7",
        "folds = true",
        "folds = {a = 1}",
        "folds = -1",
        "folds = 99999999999999999999",
        "seed = -1",
        "seed = 4294967296",
        "train_share = 1.5",
        "train_share = [0.4]",
        "models = 3",
        "models = [1, 2]",
        "models = {a = 1}",
        "label = {a = 1}",
        "label = [1]",
        "embargo = -3",
        "embargo = 999999999999999999999",
        "rolling = 3",
        "rolling = [true]",
        "max_train_rows = -5",
        "folds = 2024-01-01",
        "provenance_budget = 2",
        "retrain_every = [7]",
        "preset = 3",
    ],
)
def test_a_setting_of_another_type_is_named(tmp_path, line):
    (tmp_path / "qt.toml").write_text(f"[run]\n{line}\n")
    with pytest.raises(ValueError, match=rf"run\.{line.split()[0]}( \(--[a-z]+\))? must be"):
        load_config(path=tmp_path / "qt.toml")


@pytest.mark.parametrize(
    "text",
    [
        "[ensemble]\nweights = 3",
        "[ensemble]\nweights = {a = [1]}",
        "[ensemble]\nweights = {a = {b = 1}}",
        "[ensemble]\nweights = [[1]]",
        "[governor]\nmin_confidence = [0.5]",
        "[governor]\nmin_confidence = {a = 1}",
        "[features]\nbenchmark = 3",
        "[features]\nbenchmark = {a = 1}",
        "stage = 3",
        "[stage]\nfrom = 3",
        "[[stage]]\nfrom = 9999-01-01\nmeta = true",
        "stage = [[1]]",
        "stage = [3]",
        "[ensemble]\nregime_weights = 3",
        "run = 3",
        "[governor]\nmax_daily_trades = 1e300",
        "[governor]\nmax_daily_trades = 9223372036854775808",
    ],
)
def test_a_parameter_of_another_type_is_named(tmp_path, text):
    (tmp_path / "qt.toml").write_text(text)
    with pytest.raises(ValueError, match=" must "):
        load_config(path=tmp_path / "qt.toml")


def archive(**arrays) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def member(name: str, header: bytes, size: int = 0, method: int = zipfile.ZIP_STORED) -> bytes:
    """Write an archive with one array whose header was made by hand."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        file.writestr(name, b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(size))
    return out.getvalue()


RIGHT = {"a": np.ones((2, 3)), "k": np.arange(4)}


def test_arrays_are_read_as_they_are():
    stored = unpack_arrays(archive(**RIGHT), ARRAYS, "here")
    assert stored.keys() == RIGHT.keys()
    assert all(np.array_equal(stored[name], RIGHT[name]) for name in RIGHT)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x05\x06" + bytes(18),
        archive(a=np.ones((2, 3))),
        archive(a=np.ones(3), k=np.arange(4)),
        archive(a=np.ones((2, 3), np.float32), k=np.arange(4)),
        archive(a=np.array([["x"]]), k=np.arange(4)),
        archive(a=np.array([[{}]], object), k=np.arange(4)),
        archive(**RIGHT)[:-40],
        archive(**RIGHT)[40:],
        member("a.npy", b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 1000000), }\n"),
        member("a.npy", b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 2), }\n", 16),
        member("a.npy", b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n", 8),
        member("a.npy", b"(((((((((" * 500, 8),
        member(
            "a.npy", b"{'descr': '<f8', 'fortran_order': False, 'shape': (300000000,), }\n", 2_400_000_000 // 1000, zipfile.ZIP_DEFLATED
        ),
        member("a.txt", b"x"),
    ],
)
def test_damaged_archives_are_refused(data):
    refused(lambda: unpack_arrays(data, ARRAYS, "here"), "here must be an archive")


def test_every_changed_byte_of_an_archive_is_refused_or_changes_nothing():
    data = archive(**RIGHT)
    rng = np.random.default_rng(7)
    for at in rng.choice(len(data), 300, replace=False):
        changed = bytearray(data)
        changed[at] ^= 1 << int(rng.integers(8))
        try:
            stored = unpack_arrays(bytes(changed), ARRAYS, "here")
        except UserError:
            continue
        assert all(stored[name].tobytes() == RIGHT[name].tobytes() for name in RIGHT), at


def test_an_archive_that_would_fill_the_memory_is_refused():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (2500000,), }\n"
        file.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(20_000_000))
    refused(lambda: unpack_arrays(out.getvalue(), KIND, "here", limit=1_000_000), "1,000,000 bytes")


def a_table(**changed) -> pa.Table:
    columns = {"time": pa.array([1, 2], pa.timestamp("ns", "UTC")), "symbol": ["A", "B"], "x": [1.0, 2.0], "n": [1, 2]} | changed
    return pa.table({name: column for name, column in columns.items() if column is not None})


def test_a_table_is_read_as_it_is(tmp_path):
    pq.write_table(a_table(), tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet", TABLE).equals(a_table())
    assert read_table(tmp_path / "a.parquet", TABLE, ["x"]).column_names == ["x"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"x": None}, "without the column x"),
        ({"x": ["1", "2"]}, "x as string, not numbers"),
        ({"n": [1.0, 2.0]}, "n as double"),
        ({"time": [1, 2]}, "not a time"),
        ({"symbol": [1, 2]}, "not text"),
        ({"x": pa.array([[1.0], [2.0]])}, "x as list"),
    ],
)
def test_a_table_of_other_columns_is_refused(tmp_path, changed, words):
    pq.write_table(a_table(**changed), tmp_path / "a.parquet")
    refused(lambda: read_table(tmp_path / "a.parquet", TABLE), words)


def test_a_table_with_a_column_twice_is_refused(tmp_path):
    twice = pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], names=["x", "x"])
    pq.write_table(twice, tmp_path / "a.parquet")
    refused(lambda: read_table(tmp_path / "a.parquet", TABLE, ["x"]), "twice")


def test_a_cut_table_is_refused(tmp_path):
    pq.write_table(a_table(), tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    for length in (0, 1, 4, 8, len(data) // 2, len(data) - 9, len(data) - 1):
        (tmp_path / "a.parquet").write_bytes(data[:length])
        refused(lambda: read_table(tmp_path / "a.parquet", TABLE), "damaged or no Parquet file")


def test_a_line_is_named_by_whoever_reads_it():
    refused(lambda: parse_json("{", KIND, "line 3 of x"), "line 3 of x must be a thing")
    for text in ("0", "1.5", "null", "true", '"x"', "[]"):
        refused(lambda text=text: parse_json(text, KIND, "line 3 of x"), "line 3 of x must be a thing", "not a table of names and values")
