"""The table of labelled data sets: each file of this folder is one kind of them.

Such a file defines `DATASET`, a `crate_interp.data.LabelledKind`. Other packages add kinds by entry
points of the group `crate_interp.datasets`.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from pathlib import Path

from crate_interp.data.built_in_labels import built_in_kinds
from crate_interp.data.label_maps import LabelledKind, LabelledSet
from crate_interp.errors import InputError
from crate_interp.files import is_folder
from crate_interp.plugins import load_plugin, plugins

__all__ = ["labelled_kinds", "open_labelled"]


def labelled_kinds() -> dict[str, LabelledKind]:
    """Find all kinds of labelled data sets, by name.

    Where two of them recognise a folder, the first one opens it: those of other packages come
    first.

    Raises:
        InputError: The kind of another package cannot be imported, or is none.
    """
    others = {
        name: load_plugin(entry, LabelledKind)
        for name, entry in sorted(plugins("datasets").items())
    }
    own: dict[str, LabelledKind] = {
        module.name: import_module(f"{__name__}.{module.name}").DATASET
        for module in pkgutil.iter_modules(__path__)
    }
    return others | built_in_kinds() | dict(sorted(own.items(), key=lambda item: item[1].contents))


def open_labelled(data: Path, split: str, otherwise: str | None = None) -> LabelledSet:
    """Open a labelled data set of any kind: the first one that recognises it.

    Args:
        data: Folder of the data; or the name of a built-in set, where there is no such folder.
        split: Part of the data, such as `val`; each kind has its own.
        otherwise: Name of the kind that opens data which none recognises; `None` refuses them.

    Raises:
        InputError: No kind recognises the data, or as the function of its kind.
    """
    kinds = labelled_kinds()
    recognised = (kind for kind in kinds.values() if kind.recognises(data))
    kind = next(recognised, kinds[otherwise] if otherwise else None)
    if kind is not None:
        return kind.open(data, split)
    if not is_folder(data):
        raise InputError(f"{data}: no such folder")
    expected = ", or ".join(kind.contents for kind in kinds.values() if kind.contents)
    raise InputError(f"{data}: expected {expected}")
