"""Is a hostile model file refused before its library sees it? Hashes are right in every case: only the structure tells."""

import io
import json
import struct
import zipfile

import numpy as np
import pytest

from research.training.meta.estimators import Rows, fit_meta
from research.training.meta.fitted import FITS
from research.training.models.base import ModelAbsentError, Scaler, make_model, model_target, scaler_path
from research.training.models.structure import check_lightgbm, check_safetensors, check_xgboost

NAMES = ("alpha", "beta", "gamma", "delta")
ASKED = np.random.default_rng(3).normal(size=(8, 4)).astype(np.float32)


def rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    return x, np.digitize(x[:, 0] + rng.normal(0.0, 0.5, n), (-0.6, 0.6)).astype(np.int8)


@pytest.fixture(scope="module")
def trees() -> dict[str, bytes]:
    """A small model of each library, as its file holds it."""
    out = {}
    for slot in ("xgb", "lgbm"):
        model = make_model(model_target(slot), NAMES, "tiny")
        model.fit(*rows(600, 0), *rows(200, 1), 42)
        out[slot] = model._write()
    return out


@pytest.fixture(scope="module")
def metas() -> dict[str, tuple[bytes, Scaler]]:
    """A small meta model of each kind that is stored in a library's format."""
    names = tuple(f"f{k}" for k in range(4))
    train, held = (Rows(x.astype(np.float64), y) for x, y in (rows(900, 0), rows(300, 1)))
    made = {kind: fit_meta(kind, names, train, held) for kind in ("logistic", "forest", "xgboost", "lightgbm")}
    return {kind: (fit.dump(), fit.scaler) for kind, fit in made.items()}


def absent(slot: str, data: bytes, folder) -> str:
    """Store a model with a scaler that vouches for it, and say why it is refused."""
    path = folder / f"model{make_model(model_target(slot), NAMES, 'tiny').suffix}"
    path.write_bytes(data)
    scaler_path(path).write_text(Scaler(np.zeros(4), np.ones(4)).to_json(NAMES, data))
    with pytest.raises(ModelAbsentError) as error:
        make_model(model_target(slot), NAMES, "tiny").load(path).predict_proba(ASKED.copy())
    assert "\n" not in str(error.value)
    return str(error.value)


def of_key(data: bytes, name: str, k: int = 0) -> int:
    """Place behind the k-th key `name` of UBJSON."""
    key, at = b"L" + len(name).to_bytes(8, "big") + name.encode(), -1
    for _ in range(k + 1):
        at = data.index(key, at + 1)
    return at + len(key)


def put(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def item(data: bytes, name: str, i: int, value: int) -> bytes:
    """Write whole number i of the first list `name` of int32."""
    return put(data, of_key(data, name) + len(b"[$l#L") + 8 + 4 * i, struct.pack(">i", value))


HOSTILE = {
    "child beyond the tree": lambda d: item(d, "left_children", 0, 1_000_000),
    "child far below zero": lambda d: item(d, "left_children", 0, -1_000_000),
    "child that is its own parent": lambda d: item(d, "left_children", 0, 0),
    "leaf on one side alone": lambda d: item(d, "right_children", 0, -1),
    "column that is not there": lambda d: item(d, "split_indices", 0, 4),
    "column far away": lambda d: item(d, "split_indices", 0, 2**31 - 1),
    "list longer than the file": lambda d: put(d, of_key(d, "left_children") + 5, struct.pack(">q", 2**40)),
    "list of a negative length": lambda d: put(d, of_key(d, "left_children") + 5, struct.pack(">q", -1)),
    "list of one node less": lambda d: put(d, of_key(d, "split_type") + 5, struct.pack(">q", 1)),
    "name longer than the file": lambda d: put(d, 2, struct.pack(">q", 2**62)),
    "tree in another's place": lambda d: put(d, of_key(d, "id", 1) + 1, b"\x00"),
    "another booster": lambda d: d.replace(b"gbtree", b"gblina"),
    "another objective": lambda d: d.replace(b"multi:softprob", b"multi:softmaxx"),
    "no number": lambda d: put(d, of_key(d, "split_conditions") + 13, struct.pack(">f", float("nan"))),
    "categories": lambda d: put(d, of_key(d, "split_type") + 13, b"\x01"),
    "open end": lambda d: d[:-1],
    "half": lambda d: d[: len(d) // 2],
    "nothing": lambda d: b"",
    "one byte": lambda d: b"{",
    "something behind": lambda d: d + b"}",
    "deep": lambda d: b"{" + b"L\x00\x00\x00\x00\x00\x00\x00\x01a{" * 100_000,
    "json": lambda d: b'{"learner": {}}',
    "text": lambda d: b"binf" + d,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_trees_of_xgboost_are_refused(trees, tmp_path, name):
    changed = HOSTILE[name](trees["xgb"])
    assert changed != trees["xgb"]
    assert "must be a .ubj file of its library, was not" in absent("xgb", changed, tmp_path)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_trees_of_a_meta_model_are_refused(metas, name):
    data, scaler = metas["xgboost"]
    with pytest.raises(ModelAbsentError, match="meta model must be a ubj file of XGBoost, was not"):
        FITS["xgboost"].parse(HOSTILE[name](data), tuple(f"f{k}" for k in range(4)), scaler)


def line(data: bytes, name: str, value: str | None, k: int = 0) -> bytes:
    """Put another value on line `name` of tree k, sizes put right; None: without the line."""
    head, *blocks = data.decode().split("\nTree=")
    last, end, tail = blocks[-1].partition("\nend of trees\n")
    blocks[-1] = last
    lines = blocks[k].split("\n")
    at = next(i for i, text in enumerate(lines) if text.startswith(f"{name}="))
    lines[at : at + 1] = [] if value is None else [f"{name}={value}"]
    blocks[k] = "\n".join(lines)
    sizes = " ".join(str(len(f"Tree={block}\n")) for block in blocks)
    head = "\n".join(f"tree_sizes={sizes}" if text.startswith("tree_sizes=") else text for text in head.split("\n"))
    return ("\nTree=".join([head, *blocks]) + end + tail).encode()


def first(data: bytes, name: str, value: str) -> bytes:
    """Put another first number on the list `name` of the first tree."""
    text = data.decode()
    at = text.index(f"\n{name}=") + len(name) + 2
    rest = text[at : text.index("\n", at)].split(" ")
    return line(data, name, " ".join([value, *rest[1:]]))


UNSOUND = {
    "child beyond the tree": lambda d: first(d, "left_child", "1000000"),
    "leaf beyond the tree": lambda d: first(d, "right_child", "-1000000"),
    "child that is its own parent": lambda d: first(d, "left_child", "0"),
    "column that is not there": lambda d: first(d, "split_feature", "4"),
    "column below zero": lambda d: first(d, "split_feature", "-1"),
    "fewer leaves": lambda d: line(d, "num_leaves", "2"),
    "more leaves": lambda d: line(d, "num_leaves", "1000000"),
    "no leaves": lambda d: line(d, "num_leaves", "0"),
    "categories": lambda d: line(d, "num_cat", "1"),
    "a list that is missing": lambda d: line(d, "threshold", None),
    "text": lambda d: first(d, "threshold", "abc"),
    "no number": lambda d: first(d, "leaf_value", "nan"),
    "two dots": lambda d: first(d, "threshold", "1.2.3"),
    "half a child": lambda d: first(d, "left_child", "1.5"),
    "a categorical split": lambda d: first(d, "decision_type", "1"),
    "sizes beyond the file": lambda d: d.replace(b"tree_sizes=", b"tree_sizes=9"),
    "more columns": lambda d: d.replace(b"max_feature_idx=3", b"max_feature_idx=9"),
    "another objective": lambda d: d.replace(b"objective=multiclass ", b"objective=regression "),
    "half": lambda d: d[: len(d) // 2],
    "nothing": lambda d: b"",
    "bytes": lambda d: d.replace(b"Column_0", b"C\xff"),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_unsound_trees_of_lightgbm_are_refused(trees, tmp_path, name):
    changed = UNSOUND[name](trees["lgbm"])
    assert changed != trees["lgbm"]
    assert "must be a .txt file of its library, was not" in absent("lgbm", changed, tmp_path)


@pytest.mark.parametrize("slot", ["xgb", "lgbm"])
def test_any_changed_byte_is_refused_or_harmless(trees, slot):
    """What passes the check may be asked: it answers or raises, it never ends the process."""
    rng, check = np.random.default_rng(11), {"xgb": check_xgboost, "lgbm": check_lightgbm}[slot]
    check(trees[slot], 4)
    for _ in range(60):
        changed = bytearray(trees[slot])
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
        model = make_model(model_target(slot), NAMES, "tiny")
        model.scaler = Scaler(np.zeros(4), np.ones(4))
        try:
            model._read(bytes(changed))
        except Exception:  # each library has errors of its own
            continue
        assert model.predict_proba(ASKED.copy()).shape == (8, 3)


def tensors(header: dict, size: int) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(size)


RIGHT = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "b": {"dtype": "F32", "shape": [2], "data_offsets": [24, 32]}}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        (2**63).to_bytes(8, "little") + b"{}",
        tensors(RIGHT, 31),
        tensors(RIGHT, 33),
        tensors({"a": RIGHT["a"]}, 24),
        tensors(RIGHT | {"c": RIGHT["b"]}, 32),
        tensors(RIGHT | {"a": {**RIGHT["a"], "dtype": "F64"}}, 32),
        tensors(RIGHT | {"a": {**RIGHT["a"], "shape": [3, 2]}}, 32),
        tensors(RIGHT | {"a": {**RIGHT["a"], "data_offsets": [8, 32]}}, 32),
        tensors(RIGHT | {"a": {**RIGHT["a"], "data_offsets": "x"}}, 32),
        tensors(RIGHT, 28) + struct.pack("<f", float("nan")),
    ],
)
def test_unsound_weights_are_refused(data):
    check_safetensors(tensors(RIGHT, 32), {"a": (2, 3), "b": (2,)})
    with pytest.raises(ValueError):
        check_safetensors(data, {"a": (2, 3), "b": (2,)})


def test_a_hostile_forest_is_refused(metas):
    """The arrays of a tree lie in the archive as they are: a child that points beyond it is written there."""
    data, scaler = metas["forest"]
    names = tuple(f"f{k}" for k in range(4))
    assert np.isfinite(FITS["forest"].parse(data, names, scaler).answer(ASKED.astype(np.float64))).all()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    nodes = [name for name, content in members.items() if b"left_child" in content[:400] and name.endswith(".npy")]
    assert nodes
    for value in (10**9, -(10**9), 0):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, content in members.items():
                start = content.index(b"\n") + 1
                archive.writestr(name, put(content, start, struct.pack("<q", value)) if name in nodes else content)
        with pytest.raises(ModelAbsentError, match="forest must be a skops archive, was not"):
            FITS["forest"].parse(out.getvalue(), names, scaler)


@pytest.mark.parametrize("kind", ["logistic", "forest", "lightgbm"])
def test_a_damaged_archive_is_refused(metas, kind):
    data, scaler = metas[kind]
    rng = np.random.default_rng(5)
    for _ in range(40):
        changed = bytearray(data)
        at = int(rng.integers(len(changed)))
        changed[at : at + 3] = bytes(int(x) for x in rng.integers(0, 256, 3))
        try:
            fit = FITS[kind].parse(bytes(changed), tuple(f"f{k}" for k in range(4)), scaler)
        except ModelAbsentError:
            continue
        fit.answer(ASKED.astype(np.float64))
