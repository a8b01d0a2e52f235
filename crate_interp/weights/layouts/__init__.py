"""Layouts of weight files, one file per family of models: every file here is imported.

A family's file calls `register_layout`, and imports the architecture if no other room does.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
