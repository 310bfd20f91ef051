"""Number parsing: decimal points and commas, thousands, `$`, `12.5K`; the columns of one file are written in one way."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qtcore.types import F8
from research.data.zones import Reading
from research.errors import DataError
from research.files import reason

EMPTY = pa.array(["", "-", "--", ".", "n/a", "na", "nan", "null", "none", "nil", "#n/a", "<na>"])
PLAIN = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(?i:inf|infinity)$"
THOUSANDS = r"^[+-]?\d{1,3}(,\d{3})+(\.\d*)?$"  # 1,234,567.8
COMMA = r"^[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+$|^[+-]?\d+$|^[+-]?\d{1,3}(\.\d{3}){2,}$"  # 1.234.567,8
SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9}


def read_numbers(columns: Mapping[str, pa.ChunkedArray], source: str, reading: Reading | None = None) -> list[F8]:
    """Return columns as float64, NaN where empty; texts must all be written in one way. Raises UserError on what is no number."""
    flat = {name: _flat(column) for name, column in columns.items()}
    texts = {name: _bare(column, name) for name, column in flat.items() if pa.types.is_string(column.type)}
    style = _style(texts, source) if texts else "point"
    reading = reading or Reading()
    if texts:
        reading.remember(f"numbers of {source}", style)
    if any(pc.any(pc.not_equal(letters, "")).as_py() for _, letters in texts.values()):
        reading.note("volumes with K, M or B are rounded by their source")
    if style != "point":
        reading.note("numbers have a decimal comma" if style == "comma" else "numbers have commas between thousands")
    return [_of_text(texts[name], style) if name in texts else _of_numbers(column, name, source) for name, column in flat.items()]


def _flat(column: pa.ChunkedArray) -> pa.Array:
    flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_dictionary(flat.type):
        flat = flat.dictionary_decode()
    return flat.cast(pa.string()) if pa.types.is_large_string(flat.type) or pa.types.is_string_view(flat.type) else flat


def _of_numbers(column: pa.Array, name: str, source: str) -> F8:
    if pa.types.is_boolean(column.type) or pa.types.is_temporal(column.type):
        raise DataError(f"{source}: column {name} must hold numbers, was {column.type}; name the right column {name}")
    try:
        if pa.types.is_decimal(column.type):
            column = column.cast(pa.string())  # a cast of its own would be off in the last bit
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{source}: column {name} must hold numbers, was not so ({reason(error)})") from None


def _bare(column: pa.Array, name: str) -> tuple[pa.Array, pa.Array]:
    """Return the texts without `$` and K, M or B, null where empty, and those letters; letters only beside a volume."""
    text = pc.utf8_trim_whitespace(column)
    text = pc.if_else(pc.is_in(pc.utf8_lower(text), EMPTY), pa.scalar(None, pa.string()), text)
    if text.null_count < len(text) and pc.all(pc.starts_with(text, "$")).as_py():
        text = pc.utf8_ltrim(text, "$")
    letters = pc.utf8_lower(pc.extract_regex(text, r"\d(?P<k>[KMBkmb]?)$").field("k"))
    if "vol" in name.lower() and pc.any(pc.not_equal(letters, "")).as_py():
        text = pc.utf8_rtrim(text, "KMBkmb")
    return text, letters


def _style(texts: Mapping[str, tuple[pa.Array, pa.Array]], source: str) -> str:
    """Say how the numbers are written: `point`, `thousands` or `comma`. Raises UserError where that is not clear."""
    fits = {"point": True, "thousands": True, "comma": True}
    for text, _ in texts.values():
        plain, grouped, comma = (pc.match_substring_regex(text, pattern) for pattern in (PLAIN, THOUSANDS, COMMA))
        tests = {"point": plain, "thousands": pc.or_(plain, grouped), "comma": comma}
        fits = {name: fits[name] and pc.all(test).as_py() is not False for name, test in tests.items()}
    if fits["point"]:
        return "point"
    if fits["thousands"] != fits["comma"]:
        return "thousands" if fits["thousands"] else "comma"
    has_comma = any(pc.any(pc.match_substring(text, ",")).as_py() for text, _ in texts.values())
    if fits["comma"]:
        example = next(value.as_py() for text, _ in texts.values() for value in text if "," in (value.as_py() or ""))
        text = f"{source} must say whether a comma is decimal or stands between thousands, was {example!r} and the like"
        raise DataError(f"{text}; write decimal points and no thousands")
    for name, (text, _) in texts.items():
        bad = pc.invert(pc.or_(pc.match_substring_regex(text, PLAIN), pc.match_substring_regex(text, COMMA if has_comma else PLAIN)))
        bad = pc.and_(bad, pc.invert(pc.match_substring_regex(text, THOUSANDS)))
        if (at := pc.index(bad, True).as_py()) >= 0:
            raise DataError(
                f"{source} must be a table of numbers, was not: {text[at].as_py()!r} in column {name}, row {at + 1}; correct that row"
            )
    raise DataError(f"{source} must have numbers written in one way, was a mix of decimal points and commas; write points alone")


def _of_text(text: tuple[pa.Array, pa.Array], style: str) -> F8:
    bare, letters = text
    if style == "thousands":
        bare = pc.replace_substring(bare, ",", "")
    elif style == "comma":
        bare = pc.replace_substring(pc.replace_substring(bare, ".", ""), ",", ".")
    values = np.asarray(bare.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
    if not pc.any(pc.not_equal(letters, "")).as_py():
        return values
    written = letters.dictionary_encode()
    scale = np.array([SCALES[letter] for letter in written.dictionary.to_pylist()])
    return values * scale[written.indices.fill_null(0).to_numpy(zero_copy_only=False)]
