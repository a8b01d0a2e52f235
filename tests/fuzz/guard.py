"""Sees, through Python's audit events, what a case does that it must not do."""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["watched"]

STARTS = frozenset(
    {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile"}
    | {"os.fork", "os.forkpty", "pty.spawn"}
)
TALKS = frozenset(
    {"socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo"}
    | {"socket.gethostbyname", "urllib.Request", "webbrowser.open"}
)
CHANGES = frozenset(
    {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
    | {"os.chmod", "os.chown", "os.utime", "shutil.rmtree", "shutil.move", "shutil.copyfile"}
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class _Watch:
    """What is allowed now, and what was seen; one for the process, as audit hooks stay for ever."""

    def __init__(self) -> None:
        self.on = False
        self.hooked = False
        self.writable: tuple[Path, ...] = ()
        self.forbidden = Path(os.devnull)
        self.programs: frozenset[str] = frozenset()
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple) -> None:
        if not self.on:
            return
        if event == "open":
            self._opened(*arguments)
        elif event in STARTS:
            program = arguments[1] if event == "subprocess.Popen" else arguments
            name = program[0] if isinstance(program, list) and program else program
            if name not in self.programs:
                self._note(f"started a process: {event} {program!r}")
        elif event in TALKS:
            self._note(f"used a socket: {event} {arguments[-1:]!r}")
        elif event in CHANGES:
            for path in arguments[:2] if event in ("os.rename", "os.link") else arguments[:1]:
                self._wrote(event, path)

    def _opened(self, path: object, mode: object, flags: object) -> None:
        if not isinstance(path, (str, bytes)):
            return  # a number: the file is open already
        writes = isinstance(flags, int) and flags & WRITING
        if writes or (isinstance(mode, str) and set(mode) & set("wax+")):
            self._wrote("open", path)
        elif _is_below(_place_of(path), (self.forbidden,)):
            self._note(f"read a file of others: {path!r}")

    def _wrote(self, event: str, path: object) -> None:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        place = _place_of(path)
        if not _is_below(place, self.writable):
            self._note(f"wrote outside its folder: {event} {place!r}")

    def _note(self, what: str) -> None:
        if len(self.seen) < 20:
            self.seen.append(what[:300])


def _place_of(path: str | bytes | os.PathLike[str]) -> Path:
    try:
        return Path(os.fsdecode(path)).resolve()
    except ValueError:  # a NUL in it, which the system will refuse
        return Path(os.devnull)


def _is_below(place: Path, folders: Sequence[Path]) -> bool:
    return any(place.is_relative_to(folder) for folder in folders)


_WATCH = _Watch()


@contextmanager
def watched(
    folder: Path, forbidden: Path, programs: frozenset[str] = frozenset()
) -> Iterator[list[str]]:
    """Collect what happens inside the `with` block that must not happen.

    Args:
        folder: The only folder that may be written to, beside the temporary one and caches.
        forbidden: Folder that may not even be read.
        programs: What may be started all the same (`git`, which tells a training run's commit).

    Yields:
        A list of findings, which grows.
    """
    if not _WATCH.hooked:
        sys.addaudithook(_WATCH)
        _WATCH.hooked = True
    caches = (os.environ.get(name) for name in ("CRATE_INTERP_DATA", "MPLCONFIGDIR", "HF_HOME"))
    allowed = (folder, tempfile.gettempdir(), os.devnull, *filter(None, caches))
    _WATCH.writable = tuple(Path(path).resolve() for path in allowed)
    _WATCH.forbidden, _WATCH.programs, _WATCH.seen = forbidden.resolve(), programs, []
    _WATCH.on = True
    try:
        yield _WATCH.seen
    finally:
        _WATCH.on = False
