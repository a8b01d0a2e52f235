"""The door: every file that comes from outside is read here, typed and bounded, or refused."""

from crate_interp.files.arrays import ARCHIVE_DAMAGE, array_sizes, read_arrays
from crate_interp.files.html_text import escaped
from crate_interp.files.json_pieces import write_json_pieces
from crate_interp.files.places import is_file, is_folder
from crate_interp.files.tables import Row, read_table
from crate_interp.files.typed_json import (
    checked_as,
    opened,
    parse_json_as,
    read_bytes,
    read_json_as,
)
from crate_interp.files.whole import checksum_of, remove_leftovers, write_whole
from crate_interp.files.yaml_text import parse_yaml, read_yaml

__all__ = [
    "ARCHIVE_DAMAGE",
    "Row",
    "array_sizes",
    "checked_as",
    "checksum_of",
    "escaped",
    "is_file",
    "is_folder",
    "opened",
    "parse_json_as",
    "parse_yaml",
    "read_arrays",
    "read_bytes",
    "read_json_as",
    "read_table",
    "read_yaml",
    "remove_leftovers",
    "write_json_pieces",
    "write_whole",
]
