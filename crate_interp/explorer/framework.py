"""Gradio, imported without what it does beside: it tells nobody, and writes no files."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from crate_interp.errors import InputError

__all__ = ["gr"]


@contextmanager
def _without_stubs() -> Iterator[None]:
    """Keep gradio from writing stub files of its components at every import.

    That takes as long as the rest of the import, and changes files of an installed package. Gradio
    leaves out classes whose file is not known.
    """
    place: Any = inspect
    getfile = place.getfile

    def of_others(entity: Any) -> Any:
        if inspect.isclass(entity) and entity.__module__.startswith("gradio."):
            raise OSError(f"{entity}: its file is not looked for")
        return getfile(entity)

    place.getfile = of_others
    try:
        yield
    finally:
        place.getfile = getfile


os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

try:
    with _without_stubs():
        import gradio as gr
except ImportError as error:
    raise InputError("explore needs gradio: pip install 'crate-interp[app]'") from error
