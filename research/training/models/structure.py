"""Structure of foreign model files: checked before a library sees them.

Libraries trust their own formats: a child beyond its tree, a count larger than its array or a tree without a place ends the whole process
(xgboost 3.2, lightgbm 4.7). A hash says that a file is the one its schedule names, not that an honest program wrote both. Each check raises
ValueError with what is wrong; it knows what our own training writes, and refuses anything else.
"""

import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.types import I8
from research.files import Kind, misfit, parse_json

Arrays = Mapping[str, NDArray]
MAX_LEVELS = 12  # of tables inside each other in UBJSON
NUMBERS = {"i": ("b", "i1"), "U": ("B", "u1"), "I": ("h", "i2"), "l": ("i", "i4"), "L": ("q", "i8"), "d": ("f", "f4"), "D": ("d", "f8")}
SCALARS = {ord(marker): struct.Struct(f">{code}") for marker, (code, _) in NUMBERS.items()}
TYPES = {ord(marker): np.dtype(f">{name}") for marker, (_, name) in NUMBERS.items()}
LENGTH = struct.Struct(">q")

PER_NODE = {
    **dict.fromkeys(("base_weights", "loss_changes", "split_conditions", "sum_hessian"), ">f4"),
    **dict.fromkeys(("left_children", "right_children", "parents", "split_indices"), ">i4"),
    **dict.fromkeys(("default_left", "split_type"), "u1"),
}
ROOT = 2**31 - 1  # parent of the first node
CATEGORIES = ("categories", "categories_nodes", "categories_segments", "categories_sizes")
TREE_PARAM = {"num_deleted": str, "num_feature": str, "num_nodes": str, "size_leaf_vector": str}
XGBOOST = {
    "learner": {
        "attributes": {...: str},
        "feature_names": Any,
        "feature_types": Any,
        "gradient_booster": {
            "model": {
                "cats?": {"enc": Any, "feature_segments": Any, "sorted_idx": Any},
                "gbtree_model_param": {"num_parallel_tree": str, "num_trees": str},
                "iteration_indptr": Any,
                "tree_info": Any,
                "trees": Any,
            },
            "name": str,
        },
        "learner_model_param": {"base_score": str, "boost_from_average": str, "num_class": str, "num_feature": str, "num_target": str},
        "objective": {
            "name": str,
            "softmax_multiclass_param?": {"num_class": str},
            "reg_loss_param?": {"scale_pos_weight": str},
        },
    },
    "version": Any,
}

OBJECTIVES = {
    3: {"name": "multi:softprob", "softmax_multiclass_param": {"num_class": "3"}},
    1: {"name": "reg:squarederror", "reg_loss_param": {"scale_pos_weight": "1"}},
}


def check_xgboost(data: bytes, n_features: int, n_outputs: int = 3) -> None:
    """Raise ValueError unless `data` is UBJSON of boosted trees over `n_features` columns, every tree sound.

    n_outputs: 3 of classes, 1 of a score.
    """
    try:
        document, end = _value(data, 1, data[0], 0)
    except (struct.error, IndexError) as error:
        raise ValueError("it is cut short") from error
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes follow its end")
    _no_others(document, XGBOOST, "")
    learner = document["learner"]
    model, param = learner["gradient_booster"]["model"], learner["learner_model_param"]
    said = {
        "booster": (learner["gradient_booster"]["name"], "gbtree"),
        "objective": (learner["objective"], OBJECTIVES[n_outputs]),
        "num_class": (param["num_class"], "3" if n_outputs == 3 else "0"),
        "num_target": (param["num_target"], "1"),
        "num_feature": (param["num_feature"], str(n_features)),
        "num_parallel_tree": (model["gbtree_model_param"]["num_parallel_tree"], "1"),
        "num_trees": (model["gbtree_model_param"]["num_trees"], str(len(_items(model["trees"])))),
        "boost_from_average": (param["boost_from_average"] in ("0", "1"), True),
    }
    for name, (found, wanted) in said.items():
        if found != wanted:
            raise ValueError(f"its {name} is {str(found)[:40]!r}, not {wanted!r}")
    number = r"[-+]?\d(\.\d{1,20})?(E[-+]?\d{1,2})?"
    if not re.fullmatch(rf"{number}|\[{number}(,{number}){{{n_outputs - 1}}}\]", param["base_score"]):
        raise ValueError(f"its base_score is {param['base_score'][:40]!r}")
    if any(_items(part) for part in (learner["feature_names"], learner["feature_types"], *model.get("cats", {}).values())):
        raise ValueError("it has names, types or categories of features")
    trees, rounds, info = (_items(model[name]) for name in ("trees", "iteration_indptr", "tree_info"))
    if rounds != [*range(0, len(trees) + 1, n_outputs)] or info != [k % n_outputs for k in range(len(trees))]:
        raise ValueError(f"its rounds are not of {n_outputs} trees each")
    _check_trees(trees, n_features)


def _items(value: Any) -> list[Any]:
    """Return a list as it is and an array as one. Raises ValueError where it is neither."""
    if not isinstance(value, list | np.ndarray):
        raise ValueError(f"it has {str(value)[:40]!r} where a list belongs")
    return list(value)


def _no_others(value: Any, shape: Any, at: str) -> None:
    """Raise ValueError unless a table has the shape and no name beside those of the shape."""
    if found := misfit(value, shape):
        raise ValueError(f"it is {found}")
    for key, each in shape.items() if ... not in shape else ():
        name = key.removesuffix("?")
        if isinstance(each, dict) and name in value:
            _no_others(value[name], each, f"{at}{name}.")
    if unknown := set() if ... in shape else set(value) - {key.removesuffix("?") for key in shape}:
        raise ValueError(f"it has {at}{min(unknown)}, which no training writes")


def _value(data: bytes, at: int, marker: int, level: int) -> tuple[Any, int]:
    """Read one UBJSON value whose marker stands before `at`: (value, where the next begins). Lengths are compared with what is there."""
    if marker in SCALARS:
        (number,) = SCALARS[marker].unpack_from(data, at)
        return number, at + SCALARS[marker].size
    if marker == 83:  # S
        return _text(data, at + 1, data[at])
    if marker not in (91, 123) or level > MAX_LEVELS:
        raise ValueError(f"its byte {at - 1:,} is no value" if level <= MAX_LEVELS else f"it is nested deeper than {MAX_LEVELS} levels")
    if marker == 123:  # {
        return _table(data, at, level)
    return _list(data, at, level)


def _text(data: bytes, at: int, marker: int) -> tuple[str, int]:
    (length,) = LENGTH.unpack_from(data, at)
    stop = at + 8 + length
    if marker != 76 or not at + 8 <= stop <= len(data):
        raise ValueError(f"its text at byte {at:,} has no length")
    return data[at + 8 : stop].decode("ascii"), stop


def _table(data: bytes, at: int, level: int) -> tuple[dict[str, Any], int]:
    table: dict[str, Any] = {}
    while data[at] != 125:  # }
        name, at = _text(data, at + 1, data[at])
        if name in table:
            raise ValueError(f"its table has {name[:40]} twice")
        table[name], at = _value(data, at + 1, data[at], level + 1)
    return table, at + 1


def _list(data: bytes, at: int, level: int) -> tuple[Any, int]:
    """Read a list with its length: an array where it has one type, else whatever stands there."""
    dtype = None
    if data[at] == 36:  # $
        dtype, at = TYPES.get(data[at + 1]), at + 2
        if dtype is None:
            raise ValueError(f"its list at byte {at:,} is of an unknown type")
    (length,) = LENGTH.unpack_from(data, at + 2)
    if data[at : at + 2] != b"#L" or not 0 <= length <= len(data):
        raise ValueError(f"its list at byte {at:,} has no length")
    at += 10
    if dtype is not None:
        stop = at + length * dtype.itemsize
        if stop > len(data):
            raise ValueError(f"its list at byte {at:,} is longer than the file")
        return np.frombuffer(data, dtype, length, at), stop
    items: list[Any] = []
    for _ in range(length):
        item, at = _value(data, at + 1, data[at], level + 1)
        items.append(item)
    return items, at


def _check_trees(trees: Sequence[Any], n_features: int) -> None:
    """Raise ValueError unless every tree ends: children lie behind their parent, inside their tree, and split a column that exists."""
    known = {"id", "tree_param", *PER_NODE, *CATEGORIES}
    sizes = np.empty(len(trees), np.int64)
    for k, tree in enumerate(trees):
        if not isinstance(tree, dict) or not set(tree) <= known or misfit(tree.get("tree_param"), TREE_PARAM):
            raise ValueError(f"its tree {k} has other parts than a tree")
        param, size = tree["tree_param"], len(tree["left_children"])
        said = (param["num_nodes"], param["num_feature"], tree["id"], len(param))
        if (
            said != (str(size), str(n_features), k, 4)
            or param["size_leaf_vector"] not in ("0", "1")
            or not param["num_deleted"].isdecimal()
        ):
            raise ValueError(f"its tree {k} is of other sizes than it says")
        for name, dtype in PER_NODE.items():
            if type(tree.get(name)) is not np.ndarray or len(tree[name]) != size or tree[name].dtype.str != f"|{dtype}"[-3:]:
                raise ValueError(f"its tree {k} has {name} of another length or type")
        if any(len(tree.get(name, ())) for name in CATEGORIES):
            raise ValueError(f"its tree {k} splits by categories")
        sizes[k] = size
    if not len(trees) or sizes.min() < 1:
        raise ValueError("it has no trees, or one without a node")
    arrays = {name: np.concatenate([tree[name] for tree in trees]) for name in PER_NODE}
    if arrays["split_type"].any() or (arrays["default_left"] > 1).any() or not np.isfinite(arrays["split_conditions"]).all():
        raise ValueError("its trees split by categories, or at no number")
    numbers = np.stack([arrays[name] for name in ("left_children", "right_children", "split_indices")]).astype(np.int64)
    _check_children(numbers, sizes, n_features)
    first = np.repeat(np.cumsum(sizes) - sizes, sizes)
    inner, parents = np.flatnonzero(numbers[0] != -1), arrays["parents"].astype(np.int64)
    for child in numbers[:2, inner]:
        if (parents[first[inner] + child] != inner - first[inner]).any():
            raise ValueError("its trees have a child of another parent")
    if (parents[np.unique(first)] != ROOT).any() or ((parents != ROOT) & ((parents < 0) | (parents >= np.repeat(sizes, sizes)))).any():
        raise ValueError("its trees have a parent outside of its tree")


def _check_children(numbers: I8, sizes: I8, n_features: int) -> None:
    """Check left and right children and split columns [3, N] of trees of `sizes` nodes that stand behind each other; -1: a leaf."""
    left, right, feature = numbers
    place = np.arange(len(left)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    size, inner = np.repeat(sizes, sizes), left != -1
    if (inner != (right != -1)).any() or (inner & ((np.minimum(left, right) <= place) | (np.maximum(left, right) >= size))).any():
        raise ValueError("its trees have a child outside of its tree, or before its parent")
    if (inner & ((feature < 0) | (feature >= n_features))).any():
        raise ValueError(f"its trees split by a column that is none of {n_features}")


LIGHTGBM = {
    n: {"version": "v4", "num_class": str(n), "num_tree_per_iteration": str(n), "label_index": "0", "objective": objective}
    for n, objective in ((3, "multiclass num_class:3"), (1, "regression"))
}
OF_HEAD = {*LIGHTGBM[3], "max_feature_idx", "feature_names", "feature_infos", "tree_sizes"}
OF_TREE = {"num_leaves", "num_cat", "is_linear", "shrinkage"}
WHOLE, REAL = r"-?\d{1,9}", r"-?\d{1,40}(?:\.\d{1,40})?(?:e[+-]?\d{1,3})?"
OF_INNER = dict.fromkeys(("split_feature", "decision_type", "left_child", "right_child", "internal_count"), WHOLE)
OF_INNER |= dict.fromkeys(("split_gain", "threshold", "internal_value", "internal_weight"), REAL)
OF_LEAF = {"leaf_value": REAL, "leaf_weight": REAL, "leaf_count": WHOLE}
TAIL = re.compile(
    r"\nfeature_importances:\n(?:\w+=\d+\n)*+\nparameters:\n(?:\[\w+:[\w., :-]*+\]\n)*+\nend of parameters\n\npandas_categorical:null\n?",
    re.ASCII,
)


def check_lightgbm(data: bytes, n_features: int, n_outputs: int = 3) -> None:
    """Raise ValueError unless `data` is LightGBM's text of trees over `n_features` columns, every tree sound.

    n_outputs: 3 of classes, 1 of a score.
    """
    head, *blocks = data.decode("ascii").split("\nTree=")
    if not blocks or not head.startswith("tree\n"):
        raise ValueError("it has no trees")
    blocks[-1], end, tail = blocks[-1].partition("\nend of trees\n")
    said = _pairs(head.strip("\n").split("\n")[1:])
    for name, wanted in (LIGHTGBM[n_outputs] | {"max_feature_idx": str(n_features - 1)}).items():
        if said.get(name) != wanted:
            raise ValueError(f"its {name} is {said.get(name, 'absent')[:40]!r}, not {wanted!r}")
    if not set(said) <= OF_HEAD or not TAIL.fullmatch(tail):
        raise ValueError("it says what no training writes")
    if not end or said.get("tree_sizes") != " ".join(str(len(f"Tree={block}\n")) for block in blocks) or len(blocks) % n_outputs:
        raise ValueError("its trees are not of the sizes that it says")
    for name, each in (("feature_names", r"\w+"), ("feature_infos", rf"(?:none|\[{REAL}:{REAL}\])")):
        if said.get(name, "").count(" ") + 1 != n_features or not re.fullmatch(f"{each}(?: {each})*", said.get(name, ""), re.ASCII):
            raise ValueError(f"it does not name {n_features} columns")
    trees = [_tree(block, k) for k, block in enumerate(blocks)]
    inner = np.array([int(tree["num_leaves"]) - 1 for tree in trees])
    split = [tree for tree, n in zip(trees, inner) if n]
    lists = {name: _joined(split, name, each) for name, each in (OF_INNER | OF_LEAF).items() if name != "leaf_value"}
    left, right, feature, kind = (
        np.fromstring(lists[n], np.int64, sep=" ") for n in ("left_child", "right_child", "split_feature", "decision_type")
    )
    numbers = np.fromstring(f"{lists['threshold']} {_joined(trees, 'leaf_value', REAL)}", np.float64, sep=" ")
    if not np.isfinite(numbers).all() or (kind & 1).any():
        raise ValueError("its trees split by categories, or hold numbers that are not finite")
    _check_leaves(np.stack([left, right, feature]), inner, n_features)


def _pairs(lines: Sequence[str]) -> dict[str, str]:
    pairs = [line.partition("=") for line in lines]
    made = {name: value for name, _, value in pairs}
    if len(made) != len(pairs):
        raise ValueError("it says something twice")
    return made


def _tree(block: str, k: int) -> dict[str, str]:
    """Return the lists of a tree as text; each has the length that the number of leaves asks for."""
    place, _, rest = block.partition("\n")
    said = _pairs(rest.strip("\n").split("\n"))
    if place != str(k) or not set(said) <= {*OF_INNER, *OF_LEAF, *OF_TREE} or not re.fullmatch(r"[1-9]\d{0,6}", said.get("num_leaves", "")):
        raise ValueError(f"its tree {k} has other parts than a tree")
    n_leaves = int(said["num_leaves"])
    wanted = dict.fromkeys(OF_INNER, n_leaves - 1) | dict.fromkeys(OF_LEAF, n_leaves)
    wanted = {"leaf_value": 1} if n_leaves == 1 else wanted  # of a constant LightGBM may write the value alone
    if said.get("num_cat") != "0" or said.get("is_linear", "0") != "0" or not re.fullmatch(REAL, said.get("shrinkage", ""), re.ASCII):
        raise ValueError(f"its tree {k} has categories or linear leaves")
    if any(name not in said or said[name].count(" ") + 1 != n for name, n in wanted.items()):
        raise ValueError(f"its tree {k} has lists of other lengths than it says")
    return said


def _joined(trees: Sequence[Mapping[str, str]], name: str, each: str) -> str:
    """Return one list of all trees, behind each other. The library ends the process on what is no number."""
    text = " ".join(tree[name] for tree in trees if name in tree)
    if text and not re.fullmatch(f"{each}(?: {each})*+", text, re.ASCII):
        raise ValueError(f"its {name} hold something else than numbers")
    return text


def _check_leaves(numbers: I8, inner: I8, n_features: int) -> None:
    """Check left and right children and split columns [3, N] of trees of `inner` nodes behind each other; -1 - k: leaf k."""
    place, size = np.arange(numbers.shape[1]) - np.repeat(np.cumsum(inner) - inner, inner), np.repeat(inner, inner)
    for child in numbers[:2]:
        if (((child >= 0) & ((child <= place) | (child >= size))) | (child < -1 - size)).any():
            raise ValueError("its trees have a child outside of its tree, or before its parent")
    if ((numbers[2] < 0) | (numbers[2] >= n_features)).any():
        raise ValueError(f"its trees split by a column that is none of {n_features}")


def check_safetensors(data: bytes, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError unless `data` holds float32 weights of exactly these names and shapes, finite, one behind the other."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= length <= min(len(data) - 8, 1 << 20):
        raise ValueError("its header is longer than the file")
    tensor = {"dtype": str, "shape": [int], "data_offsets": [int]}
    kind = Kind("a header of weights", "train again", {"__metadata__?": {...: str}, ...: tensor})
    said = parse_json(data[8 : 8 + length], kind, "its header")
    said.pop("__metadata__", None)
    if {name: tuple(one["shape"]) for name, one in said.items()} != dict(shapes):
        raise ValueError("its weights are of other names or sizes than its network's")
    at = 0
    for name, one in sorted(said.items(), key=lambda item: item[1]["data_offsets"]):
        size = 4 * int(np.prod(shapes[name], dtype=np.int64))
        if one["dtype"] != "F32" or one["data_offsets"] != [at, at + size]:
            raise ValueError(f"its {name} is {one['dtype'][:20]} at {one['data_offsets'][:3]}, not F32 at {[at, at + size]}")
        at += size
    if 8 + length + at != len(data) or not np.isfinite(np.frombuffer(data, "<f4", offset=8 + length)).all():
        raise ValueError("its weights are cut short, or not finite")


def check_forest(forest: Any, n_features: int) -> None:
    """Raise ValueError unless a random forest, read but not asked yet, answers three classes over `n_features` columns from sound trees."""
    members = forest.estimators_ if type(forest).__name__ == "RandomForestClassifier" and forest.n_jobs in (None, 1) else []
    if (
        not members
        or any((member.n_classes_, member.n_outputs_) != (3, 1) for member in members)
        or list(forest.classes_) != [0, 1, 2]
        or forest.n_features_in_ != n_features
        or forest.n_outputs_ != 1
    ):
        raise ValueError(f"it is no forest of three classes over {n_features} columns")
    for tree in (member.tree_ for member in members):
        if (tree.n_features, tree.max_n_classes, tree.n_outputs) != (n_features, 3, 1) or tree.value.shape != (tree.node_count, 1, 3):
            raise ValueError("its trees are of other sizes than the forest")
        check_tree(tree, n_features)


def check_tree(tree: Any, n_features: int) -> None:
    """Raise ValueError unless a tree of scikit-learn holds finite numbers, and its nodes lead to nodes of its own and to given columns."""
    if not np.isfinite(tree.value).all() or not np.isfinite(tree.threshold).all() or tree.node_count < 1:
        raise ValueError("its trees hold numbers that are not finite")
    numbers = np.stack([tree.children_left, tree.children_right, tree.feature]).astype(np.int64)
    _check_children(numbers, np.array([tree.node_count], np.int64), min(n_features, tree.n_features))


def check_predictor(tree: Any, n_features: int) -> None:
    """Raise ValueError unless a tree of scikit-learn's histogram boosting holds sound numbers, and leads to its own nodes and columns."""
    nodes = tree.nodes
    if nodes.ndim != 1 or not len(nodes) or not np.isfinite(nodes["value"]).all() or np.isnan(nodes["num_threshold"]).any():
        raise ValueError("its trees hold numbers that are not finite")
    if nodes["is_categorical"].any():
        raise ValueError("its trees split by categories, where columns are numbers")
    is_leaf = nodes["is_leaf"] != 0
    numbers = np.stack([np.where(is_leaf, -1, nodes[name].astype(np.int64)) for name in ("left", "right", "feature_idx")])
    _check_children(numbers, np.array([len(nodes)], np.int64), n_features)
