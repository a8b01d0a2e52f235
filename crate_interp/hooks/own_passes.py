"""Hooks and changes that only the forward passes of one thread see, on a model that others share.

A hook, and an attribute, belong to a module, and so to all threads that use it. Here a hook looks
which thread it is called in, and an attribute is changed on a copy of the module that shares its
parameters, which the calls of one thread are led to.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from types import MethodType
from typing import Any

import torch
from torch import nn

__all__ = ["changed", "hooked", "original_of", "seen_here", "uncompiled"]

# Registering is not safe on threads: two hooks may get one number, and one of them is lost.
_LOCK = threading.Lock()
_blocks: Counter[int] = Counter()  # `changed` blocks, by identity of the module
_own_methods: dict[int, dict[str, Any]] = {}  # what the module itself, not its class, had for them
_eager: list[Any] = []  # one entry a `with uncompiled()` block; the first holds torch's stance


class _Copies(threading.local):
    """Copies that this thread sees in place of modules, by identity; the innermost block's last."""

    def __init__(self) -> None:
        self.of: dict[int, list[nn.Module]] = {}


_copies = _Copies()


def original_of(model: nn.Module) -> nn.Module:
    """The model that `torch.compile` was given; any other model itself."""
    original: nn.Module = getattr(model, "_orig_mod", model)
    return original


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run compiled models as they were written, inside a `with` block.

    Compiled code runs no hooks, and would keep those that it is compiled with. The compiler has one
    setting for all threads: compiled models of the others run so as well until the last is done.
    """
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        yield
        return
    with _LOCK:
        _eager.append(_eager[0] if _eager else torch.compiler.set_stance("force_eager"))
    try:
        yield
    finally:
        with _LOCK:
            stance = _eager.pop()
            if not _eager:
                stance.__exit__(None, None, None)


@contextmanager
def hooked(module: nn.Module, hook: Callable[..., Any], before: bool = False) -> Iterator[None]:
    """Call a hook in the forward passes that this thread runs inside a `with` block.

    Args:
        module: The module whose passes are followed.
        hook: Gets module, positional and keyword arguments, and, if not `before`, the output.
        before: Call it before the module runs, not after.
    """
    owner = threading.get_ident()

    def of_owner(*arguments: Any) -> Any:
        return hook(*arguments) if threading.get_ident() == owner else None

    with _LOCK:
        register = module.register_forward_pre_hook if before else module.register_forward_hook
        handle = register(of_owner, with_kwargs=True)
    try:
        yield
    finally:
        with _LOCK:
            handle.remove()


def seen_here(module: nn.Module) -> Any:
    """The module with the attributes that `changed` gives it in this thread."""
    copies = _copies.of.get(id(module))
    return copies[-1] if copies else module


@contextmanager
def changed(module: nn.Module, methods: Sequence[str], **attributes: Any) -> Iterator[None]:
    """Give a module other attributes in what this thread runs inside a `with` block.

    Args:
        module: Seen unchanged by other threads, and by what reads its attributes directly.
        methods: Names of the methods that read the attributes; calls of them are led to the copy.
        **attributes: New values, of attributes or submodules.
    """
    key = id(module)
    with _LOCK:
        seen = copy(seen_here(module))
        for kind in ("_modules", "_parameters", "_buffers"):
            vars(seen)[kind] = dict(vars(seen)[kind])
        for name, value in attributes.items():
            setattr(seen, name, value)
        if not _blocks[key]:
            _own_methods[key] = {
                name: vars(module)[name] for name in methods if name in vars(module)
            }
            vars(module).update({name: _route(module, name) for name in methods})
        _blocks[key] += 1
    copies = _copies.of.setdefault(key, [])
    copies.append(seen)
    try:
        yield
    finally:
        copies.pop()
        with _LOCK:
            _blocks[key] -= 1
            if not _blocks[key]:
                for name in methods:
                    del vars(module)[name]
                vars(module).update(_own_methods.pop(key))
                del _blocks[key]


def _route(module: nn.Module, name: str) -> Callable[..., Any]:
    others = vars(module).get(name)

    def call(own: nn.Module, *args: Any, **kwargs: Any) -> Any:
        seen = seen_here(own)
        if seen is own and others is not None:
            return others(*args, **kwargs)
        return getattr(type(own), name)(seen, *args, **kwargs)

    return MethodType(call, module)
