"""Registers our models with timm as soon as timm is there, without being what loads it.

`import crate_interp` alone must stay cheap, for the command line's sake; `timm.create_model` must
know our names whichever of the two packages is imported first.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

__all__ = ["register_with_timm"]


class _AfterTimm(MetaPathFinder):
    """Imports our models and weights right after `timm.models`, once."""

    def find_spec(
        self, fullname: str, path: Any, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "timm.models":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            importlib.import_module("crate_interp.weights")

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def register_with_timm() -> None:
    """Import models and weights now if timm is loaded, else right after timm's own models."""
    if "timm.models" in sys.modules:
        importlib.import_module("crate_interp.weights")
    else:
        sys.meta_path.insert(0, _AfterTimm())
