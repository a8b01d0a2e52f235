"""A target, a case of it, and the judgement: what a damaged input may lead to, and what not."""

import contextlib
import gc
import importlib
import io
import logging
import os
import random
import re
import shutil
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from crate_interp.errors import InputError
from tests.fuzz.guard import watched

__all__ = ["Accepted", "Damage", "Outcome", "Place", "Target", "run_case", "set_up"]

LONGEST = 500  # characters of a message
SLOWEST = 60  # seconds
ALLOWED_WARNINGS = (UserWarning,)  # Pillow's of damaged EXIF; numpy's of overflow is none of these


class Accepted(Exception):  # noqa: N818  (an outcome)
    """A damaged file was taken for a whole one: the result is another, and nobody was told."""


@dataclass(frozen=True)
class Damage:
    """What was done to an input.

    Attributes:
        names: Words one of which a refusal must have: the file's name, or the option's.
        how: The mutation, for the report.
    """

    names: tuple[str, ...]
    how: str


@dataclass(frozen=True)
class Target:
    """A kind of file, and a way in which a user brings it in.

    Attributes:
        name: `group/kind`.
        make: Writes whole, tiny inputs into an empty folder; called once.
        mutate: Damages one of them, in a copy of that folder.
        use: Goes the user's way with them. Returns an exit code, or anything else for a function;
            raises `Accepted` where the result is wrong.
        quick: Cases of it that run in CI.
        programs: Programs that it may start.
    """

    name: str
    make: Callable[[Path], None]
    mutate: Callable[[random.Random, Path], Damage]
    use: Callable[[Path], object]
    quick: int = 8
    programs: frozenset[str] = frozenset()


@dataclass
class Outcome:
    """What became of a case.

    Attributes:
        kind: `success`, `refusal` or `failure`.
        why: The message, or what is wrong.
        how: The mutation.
        seconds: Of the use alone.
        peak_mb: Largest resident memory of the process during it; 0 where it is not known.
    """

    kind: str
    why: str = ""
    how: str = ""
    seconds: float = 0.0
    peak_mb: float = 0.0

    def told(self) -> dict[str, object]:
        return asdict(self)


class Place:
    """The folders of a process: whole inputs of each target, and the case at hand.

    Inputs are made at the very path at which cases use them, so that they may name it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.case = root / "case"
        self.secret = root / "others"  # what a hostile name may point at
        self._made = root / "made"
        (self.secret).mkdir(parents=True, exist_ok=True)
        for name in ("secret.png", "secret.json", "secret.pth"):
            (self.secret / name).write_bytes(b"not yours")

    def prepare(self, target: Target) -> Path:
        """Put whole inputs of a target where cases use them."""
        name = f"{target.make.__module__}.{target.make.__qualname__}"
        if "<locals>" in name:  # one of several that a function made
            name = target.name.replace("/", "-")
        made = self._made / name
        if not made.is_dir():
            self._clear()
            target.make(self.case)
            made.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(self.case, made, symlinks=True)
        self._clear()
        shutil.copytree(made, self.case, symlinks=True, dirs_exist_ok=True)
        return self.case

    def _clear(self) -> None:
        shutil.rmtree(self.case, ignore_errors=True)
        self.case.mkdir(parents=True)


@contextlib.contextmanager
def set_up(folder: Path) -> Iterator[Place]:
    """Point everything that a library may write to into a folder, and load what starts programs.

    Yields:
        The folders for cases.
    """
    places = {"TMPDIR": "tmp", "MPLCONFIGDIR": "caches", "HF_HOME": "hub", "HOME": "home"}
    places |= {"CRATE_INTERP_DATA": "data", "XDG_CACHE_HOME": "caches"}
    for below in places.values():
        (folder / below).mkdir(parents=True, exist_ok=True)
    told = {name: str(folder / below) for name, below in places.items()}
    told |= {"HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg"}
    before = {name: os.environ.get(name) for name in told}
    temporary, tempfile.tempdir = tempfile.tempdir, told["TMPDIR"]
    os.environ.update(told)
    try:
        importlib.import_module("matplotlib.font_manager")  # asks fc-list for the fonts
        yield Place(folder)
    finally:
        tempfile.tempdir = temporary
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def run_case(target: Target, seed: int, number: int, place: Place) -> Outcome:
    """Damage an input, use it, and judge what happened. Number -1 is the whole input."""
    folder = place.prepare(target)
    rng = random.Random(f"{seed} {target.name} {number}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the damage itself is made with
        damage = Damage(("",), "none") if number < 0 else target.mutate(rng, folder)
    _forget_peak()
    here = Path.cwd()
    os.chdir(folder)
    started = time.perf_counter()
    try:
        with watched(folder, place.secret, target.programs) as seen:
            outcome = _use(target, folder, damage)
    finally:
        os.chdir(here)
    outcome.seconds, outcome.how = time.perf_counter() - started, damage.how
    outcome.peak_mb = _peak_mb()
    if seen:
        outcome.kind, outcome.why = "failure", "; ".join(seen)
    if outcome.seconds > SLOWEST:
        outcome.kind, outcome.why = "failure", f"took {outcome.seconds:.0f} s"
    return outcome


def _use(target: Target, folder: Path, damage: Damage) -> Outcome:
    told = io.StringIO()
    root, handler = logging.getLogger(), logging.StreamHandler(told)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    others, root.handlers = root.handlers, [handler]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
                outcome = _judged(target.use, folder, damage, told)
            gc.collect(0)  # files that were left open tell so now
        finally:
            logging.captureWarnings(False)
            root.handlers = others
    text = told.getvalue()
    logged = [line for line in text.splitlines() if re.search(r"\w*Warning: ", line)]
    named = [f"{w.category.__name__}: {w.message}" for w in caught]
    for warning in [*named, *logged]:
        kind = re.search(r"(\w*Warning): ", warning)
        if kind and kind[1] not in {allowed.__name__ for allowed in ALLOWED_WARNINGS}:
            return Outcome("failure", f"warning: {warning[:300]}")
    if "Traceback" in text and outcome.kind != "failure":
        return Outcome("failure", f"a traceback was printed: {text[-600:]}")
    return outcome


def _judged(
    use: Callable[[Path], object], folder: Path, damage: Damage, told: io.StringIO
) -> Outcome:
    try:
        code = use(folder)
    except InputError as error:
        return _refusal(str(error), damage)
    except Accepted as error:
        return Outcome("failure", f"accepted: {error}")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 99
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "crate_interp" in frame.filename] or frames
        where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
        return Outcome("failure", f"{type(error).__name__} at {where}: {str(error)[:300]}")
    lines = told.getvalue().splitlines()
    if code == 2:
        errors = [line for line in lines if re.match(r"([\w -]*: )?error: ", line)]
        if len(errors) != 1:
            return Outcome("failure", f"exit 2 with {len(errors)} error lines: {lines[-6:]}")
        return _refusal(errors[0].partition("error: ")[2], damage)
    if code == 1:
        failed = [line for line in lines if line.startswith("failed: ")]
        judged = [_refusal(line.removeprefix("failed: "), damage) for line in failed]
        return next((found for found in judged if found.kind == "failure"), Outcome("refusal"))
    if isinstance(code, int) and code != 0:
        return Outcome("failure", f"exit code {code}: {lines[-3:]}")
    return Outcome("success")


def _refusal(message: str, damage: Damage) -> Outcome:
    if len(message) > LONGEST:
        return Outcome("failure", f"message of {len(message)} characters: {message[:200]}")
    if not message.isprintable():
        return Outcome("failure", f"message that is not one printable line: {message!r}")
    if "Traceback" in message:
        return Outcome("failure", f"message with a traceback: {message}")
    if not any(name in message for name in damage.names):
        return Outcome("failure", f"message without {damage.names}: {message}")
    return Outcome("refusal", message)


def _forget_peak() -> None:
    with contextlib.suppress(OSError):  # Linux only
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mb() -> float:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0
