"""Many cases in processes that may crash, hang or eat memory, and what became of them."""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.frame import SLOWEST, Outcome, Target

__all__ = ["Campaign", "Tally"]

MOST_BYTES = 3 << 30
START_SECONDS = 300  # for the first case of a target, which makes its inputs
ROOT = Path(__file__).parents[2]
WORKER = "tests.fuzz.worker"


@dataclass
class Tally:
    """What became of a target's cases."""

    kinds: Counter[str] = field(default_factory=Counter)
    next_case: int = 0
    spent: float = 0.0
    slowest: tuple[float, int] = (0.0, -1)
    peak_mb: float = 0.0


class Campaign:
    """Cases of several targets, shared out so that each target gets the same time.

    Args:
        targets: The targets.
        seed: Of all cases.
        folder: For the processes' files, and `failures/`.
        until: When to stop, by `time.monotonic`.
    """

    def __init__(self, targets: list[Target], seed: int, folder: Path, until: float) -> None:
        self.tallies = {target.name: Tally() for target in targets}
        self.failures: list[str] = []
        self._seed, self._folder, self._until = seed, folder, until
        self._lock = threading.Lock()
        self._by_reason: Counter[tuple[str, str]] = Counter()

    def run(self, workers: int) -> None:
        """Run cases until the time is over."""
        threads = [threading.Thread(target=self._loop, args=(number,)) for number in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _loop(self, number: int) -> None:
        worker = _Worker(self._folder / f"worker-{number}")
        try:
            while time.monotonic() < self._until:
                name, case = self._next()
                started = time.monotonic()
                outcome = worker.run(name, self._seed, case)
                self._count(name, case, outcome, time.monotonic() - started, worker)
        finally:
            worker.stop()

    def _next(self) -> tuple[str, int]:
        with self._lock:
            name = min(self.tallies, key=lambda name: self.tallies[name].spent)
            tally = self.tallies[name]
            tally.next_case += 1
            tally.spent += 0.01  # so that another worker takes another target meanwhile
            return name, tally.next_case - 1

    def _count(
        self, name: str, case: int, outcome: Outcome, spent: float, worker: "_Worker"
    ) -> None:
        with self._lock:
            tally = self.tallies[name]
            tally.kinds[outcome.kind] += 1
            if tally.kinds.total() > 1:  # the first one made the inputs
                tally.spent += spent
            tally.slowest = max(tally.slowest, (outcome.seconds, case))
            tally.peak_mb = max(tally.peak_mb, outcome.peak_mb)
            if outcome.kind == "failure":
                self._keep(name, case, outcome, worker.folder)

    def _keep(self, name: str, case: int, outcome: Outcome, folder: Path) -> None:
        command = f"python -m tests.fuzz --seed {self._seed} --only {name} --case {case}"
        self.failures.append(f"{command}\n    [{outcome.how}] {outcome.why}")
        reason = (name, re.sub(rf"\d+|{re.escape(tempfile.gettempdir())}\S*", "", outcome.why)[:40])
        self._by_reason[reason] += 1
        if self._by_reason[reason] > 3:
            return  # the count says how many more
        sys.stdout.write(self.failures[-1] + "\n")
        sys.stdout.flush()
        kept = self._folder / "failures" / f"{name.replace('/', '-')}-{self._seed}-{case}"
        shutil.copytree(folder / "case", kept, dirs_exist_ok=True, symlinks=True)
        (kept / "WHAT.txt").write_text(self.failures[-1] + "\n", errors="replace")

    def table(self) -> str:
        """One line a target: cases and what became of them, the slowest, the peak."""
        heading = (
            "target                 cases  success  refusal  failure  slowest s (case)  peak MB"
        )
        lines = [heading]
        for name, tally in self.tallies.items():
            kinds, (slowest, case) = tally.kinds, tally.slowest
            lines.append(
                f"{name:<22} {kinds.total():>5}  {kinds['success']:>7}  {kinds['refusal']:>7}  "
                f"{kinds['failure']:>7}  {slowest:>9.1f} ({case})  {tally.peak_mb:>7.0f}"
            )
        total: Counter[str] = sum((t.kinds for t in self.tallies.values()), Counter())
        lines.append(
            f"{'all':<22} {total.total():>5}  {total['success']:>7}  {total['refusal']:>7}  "
            f"{total['failure']:>7}"
        )
        return "\n".join(lines)


class _Worker:
    """A process, started again when it ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._process: Any = None
        self._known: set[str] = set()  # targets whose inputs are made

    def run(self, name: str, seed: int, case: int) -> Outcome:
        """Have a case run, and watch: a crash, a hang or too much memory is its outcome."""
        if self._process is None:
            self._start()
        process, requests = self._process, self._process.stdin
        requests.write(json.dumps([name, seed, case]) + "\n")
        requests.flush()
        limit = 2 * SLOWEST if name in self._known else START_SECONDS
        self._known.add(name)
        started, peak = time.monotonic(), 0
        while not self._has_answered():
            peak = max(peak, _resident(process.pid))
            seconds = time.monotonic() - started
            if peak > MOST_BYTES:
                return self._killed(f"more than 3 GB of memory ({peak >> 20} MB)", seconds)
            if seconds > limit:
                return self._killed(f"hang: no answer after {seconds:.0f} s", seconds)
        answer = self._read()
        if answer is None:
            code = self._end(process)
            return Outcome("failure", f"crash: exit {code}: {self._log_end()}", "", 0.0)
        return Outcome(**answer)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._end(self._process)

    def _end(self, process: "subprocess.Popen[str]") -> int:
        with process:  # closes the pipes, and waits
            self._process = None
        return process.returncode

    def _start(self) -> None:
        log = (self.folder / "log.txt").open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", WORKER, str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )
        log.close()
        if self._read() != "ready":
            raise RuntimeError(f"the worker did not start: {self._log_end()}")

    def _has_answered(self) -> bool:
        return bool(select.select([self._process.stdout], [], [], 0.05)[0])

    def _read(self) -> Any:
        line = self._process.stdout.readline()
        return json.loads(line) if line else None

    def _killed(self, why: str, seconds: float) -> Outcome:
        self._process.send_signal(signal.SIGUSR1)  # the log then says where it is
        time.sleep(0.5)
        self.stop()
        return Outcome("failure", f"{why}: {self._log_end()}", "", seconds)

    def _log_end(self) -> str:
        lines = (self.folder / "log.txt").read_text(errors="replace").splitlines()
        at = [line.strip() for line in lines if line.startswith("  File")]
        ours = [line for line in at if "crate_interp" in line]
        return " | ".join(ours[:3] or at[:3] or lines[-3:])


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
