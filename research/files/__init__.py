"""File input and output: our files are checked before they are believed, and written to the disk whole or not at all.

Every reader takes a `Kind`, which says what the file is, how its content looks and what helps when it is not so. Whatever is wrong (no
file, a folder or a pipe in its place, cut, not UTF-8, too large, too deep, a key missing or double, text where a number belongs) is one
UserError: `<path> must be <kind>, was <what it was>; <remedy>`.
"""

from research.files.binary import TEXT, TIME, check_archive, count_rows, read_table, unpack_arrays
from research.files.checked import Kind, check_file, hash_file, misfit, parse_json, read_bytes, read_json, read_text, read_toml, reason
from research.files.written import check_target, home, plain, put_in_place, replacing, save_json, save_text, takes_files, writable

__all__ = [
    "TEXT",
    "TIME",
    "Kind",
    "check_archive",
    "check_file",
    "check_target",
    "count_rows",
    "hash_file",
    "home",
    "misfit",
    "parse_json",
    "plain",
    "put_in_place",
    "read_bytes",
    "read_json",
    "read_table",
    "read_text",
    "read_toml",
    "reason",
    "replacing",
    "save_json",
    "save_text",
    "takes_files",
    "unpack_arrays",
    "writable",
]
