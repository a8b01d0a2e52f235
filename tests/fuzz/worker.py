"""A process that runs the cases it is told, one after the other; the campaign watches it.

    python -m tests.fuzz.worker FOLDER

Each line of its input is `[target, seed, number]`; each line of its answers, an outcome.
"""

import faulthandler
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import TextIO

from tests.fuzz.frame import Place, run_case, set_up

MOST_NEW_BYTES = 3 << 30  # that a case may ask the system for


def main(folder: Path) -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what C libraries print belongs to the log
    faulthandler.enable(sys.__stderr__)
    faulthandler.register(signal.SIGUSR1, sys.__stderr__)
    sys.dont_write_bytecode = True
    with set_up(folder) as place:
        _answer(place, answers)


def _answer(place: Place, answers: TextIO) -> None:
    import torch

    from tests.fuzz.targets import TARGETS

    torch.set_num_threads(1)
    used = _status_bytes("VmData")
    resource.setrlimit(resource.RLIMIT_DATA, (used + MOST_NEW_BYTES,) * 2)
    by_name = {target.name: target for target in TARGETS}
    answers.write('"ready"\n')
    for line in sys.stdin:
        name, seed, number = json.loads(line)
        outcome = run_case(by_name[name], seed, number, place)
        answers.write(json.dumps(outcome.told()) + "\n")


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
