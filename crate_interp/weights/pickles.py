"""Interprets the pickles in PyTorch's files: a pickle is a program, and this machine runs nothing.

It knows the instructions that `torch.save` writes for tensors and plain values. A function that a
pickle asks for is looked up in a table of ours; one that is not in it ends the reading.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from crate_interp.errors import CheckpointError, shorten

__all__ = ["Machine", "Name"]

_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_CONTAINERS: dict[str, Callable[[], Any]]
_CONTAINERS = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = {"PROTO", "FRAME"}
_PLAIN = (str, int, float, bytes, type(None))


class Name(str):
    """Full name in a pickle of a function, a class or a constant, which is not looked up."""

    __slots__ = ()


@dataclass
class Machine:
    """The stack machine of pickle's protocols 2 to 4, for one pickle.

    Args:
        functions: Stand-ins for functions and classes, by full name.
        constants: Whether a full name may be a value; it stays a `Name`.
        reference: Makes a value of a reference to what lies beside the pickle.
    """

    functions: Mapping[str, Callable[..., Any]]
    constants: Callable[[str], bool]
    reference: Callable[[Any], Any]
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def interpret(self, stream: IO[bytes]) -> Any:
        """Interpret the next pickle of a stream.

        Args:
            stream: Stream at the start of the pickle; afterwards behind its end. Its `read` must
                not make room for more than there is: a mapped file or `BytesIO`.

        Returns:
            Plain values, and what `functions` and `reference` made.

        Raises:
            CheckpointError: The pickle asks for anything else, is truncated or is none.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "error", DeprecationWarning
                )  # of broken names: none are whole
                for instruction, argument, _ in pickletools.genops(stream):
                    if instruction.name == "STOP":
                        return self._pop()
                    self._step(instruction.name, argument)
        except CheckpointError:
            raise
        except IndexError as error:
            raise CheckpointError("its pickle takes a value where there is none") from error
        except (ValueError, TypeError, DeprecationWarning) as error:
            # of pickletools, and of a function's arguments
            raise CheckpointError(f"its pickle is broken: {error}") from error
        raise CheckpointError("its pickle has no end")

    def _step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _CONTAINERS:
            self.stack.append(_CONTAINERS[name]())
        elif name in _SHORT_TUPLES:
            self.stack.append(tuple(self._pop_last(_SHORT_TUPLES[name])))
        elif name not in _IGNORED:
            instruction = getattr(self, f"_do_{name.lower()}", None)
            if instruction is None:
                raise CheckpointError(f"its pickle has the instruction {name}, unknown to us")
            instruction() if argument is None else instruction(argument)

    def _pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise IndexError("empty stack")
        return self.stack.pop()

    def _pop_last(self, count: int) -> list[Any]:
        return [self._pop() for _ in range(count)][::-1]

    def _pop_to_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _top(self, kind: type[Any]) -> Any:
        if not isinstance(self.stack[-1], kind):
            actual = type(self.stack[-1]).__name__
            raise CheckpointError(f"its pickle fills a {kind.__name__}, found a {actual}")
        return self.stack[-1]

    def _do_mark(self) -> None:
        self.marks.append(len(self.stack))

    def _do_tuple(self) -> None:
        self.stack.append(tuple(self._pop_to_mark()))

    def _do_append(self) -> None:
        value = self._pop()
        self._top(list).append(value)

    def _do_appends(self) -> None:
        values = self._pop_to_mark()
        self._top(list).extend(values)

    def _do_additems(self) -> None:
        values = self._pop_to_mark()
        self._top(set).update(map(_key, values))

    def _do_setitem(self) -> None:
        key, value = self._pop_last(2)
        self._top(dict)[_key(key)] = value

    def _do_setitems(self) -> None:
        values = self._pop_to_mark()
        keys = map(_key, values[::2])
        self._top(dict).update(zip(keys, values[1::2], strict=True))

    def _do_binput(self, number: int) -> None:
        self.memo[number] = self.stack[-1]

    _do_long_binput = _do_binput

    def _do_memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _do_binget(self, number: int) -> None:
        if number not in self.memo:
            raise CheckpointError(f"its pickle asks for value {number}, which it never kept")
        self.stack.append(self.memo[number])

    _do_long_binget = _do_binget

    def _do_global(self, names: str) -> None:
        self._push_name(names.replace(" ", ".", 1))

    def _do_stack_global(self) -> None:
        module, name = self._pop_last(2)
        self._push_name(f"{module}.{name}")

    def _push_name(self, name: str) -> None:
        if name not in self.functions and not self.constants(name):
            raise CheckpointError(
                f"refused: reading it would execute code (the pickle asks for {shorten(name)}, "
                "beyond tensors and plain values). Where its origin is trusted, save its "
                "state_dict again as plain tensors"
            )
        self.stack.append(Name(name))

    def _do_reduce(self) -> None:
        function, arguments = self._pop_last(2)
        if not isinstance(function, Name) or function not in self.functions:
            raise CheckpointError(f"its pickle calls {shorten(function)}, which is no function")
        if not isinstance(arguments, tuple):
            raise CheckpointError(f"its pickle calls {function} with no tuple of arguments")
        self.stack.append(self.functions[function](*arguments))

    _do_newobj = _do_reduce

    def _do_build(self) -> None:
        self._pop()  # attributes of an object; we make none that has any
        self._top(object)

    def _do_binpersid(self) -> None:
        self.stack.append(self.reference(self._pop()))


def _key(value: Any) -> Any:
    # Python's hash of a tuple in a tuple in a tuple ... ends the process when they are many.
    flat = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(part, _PLAIN) and not _is_endless(part) for part in flat):
        raise CheckpointError(f"its pickle has a key of type {type(value).__name__}")
    return value


def _is_endless(value: Any) -> bool:
    # Python refuses to print integers of thousands of digits.
    return isinstance(value, int) and value.bit_length() > 64
