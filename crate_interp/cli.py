"""The command line: a table of commands, each loaded on demand.

Exit codes: 0 done, 1 done but something failed on the way, 2 wrong input, 70 a bug, 130
interrupted, 141 nobody reads the output, 143 stopped by SIGTERM.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from crate_interp.commands import find_commands
from crate_interp.errors import InputError, shorten
from crate_interp.options.arguments import parse_arguments

__all__ = ["main"]

COMMANDS = find_commands()
BUG, INTERRUPTED, UNREAD, TERMINATED = 70, 130, 141, 143


class _Terminated(BaseException):
    """SIGTERM came; like Ctrl-C, it is no error that a library may swallow."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):  # a name that a terminal cannot show is shown escaped
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(sys.argv[1:] if arguments is None else arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD


def _run(arguments: Sequence[str]) -> int:
    configuration: Any = None
    try:
        with _termination_raised():
            command, configuration = parse_arguments(COMMANDS, arguments)
            if command == "version":
                from importlib.metadata import version

                print(version("crate-interp"))
            if configuration is None:
                return 0
            logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
            logging.captureWarnings(True)
            return int(configuration.run())
    except BrokenPipeError:
        raise
    except (InputError, OSError) as error:  # OSError: a full disk, a folder that is read-only
        return _stopped(2, f"error: {InputError(str(error))}")
    except MemoryError as error:
        return _stopped(2, f"error: {InputError(f'the memory is not enough: {error}')}")
    except KeyboardInterrupt:
        return _stopped(INTERRUPTED, f"interrupted; {_afterwards(configuration)}")
    except _Terminated:
        return _stopped(TERMINATED, f"stopped by SIGTERM; {_afterwards(configuration)}")
    except Exception as error:
        return _stopped(BUG, _bug(error))


def _stopped(code: int, message: str) -> int:
    print(message, file=sys.stderr)
    return code


def _afterwards(configuration: Any) -> str:
    if getattr(configuration, "continues", False):
        return "the same command goes on from here"
    return "the same command begins anew"


def _bug(error: Exception) -> str:
    """Write the traceback to a file, and say where."""
    summary = f"{type(error).__name__}: {shorten(str(error), 200)}"
    with tempfile.NamedTemporaryFile(
        "w", prefix="crate-interp-", suffix=".txt", delete=False, errors="backslashreplace"
    ) as file:
        traceback.print_exception(error, file=file)
    return f"error: {InputError(f'this is a bug; the traceback is in {file.name} ({summary})')}"


@contextmanager
def _termination_raised() -> Iterator[None]:
    """Make SIGTERM an exception, so that processes and files are closed as after Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may listen
        return

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # `timeout` sends it twice; the first one is enough
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
