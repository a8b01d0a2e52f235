"""The whole suite: `python -m tests.fuzz --minutes 10`."""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.campaign import Campaign
from tests.fuzz.frame import run_case, set_up
from tests.fuzz.targets import TARGETS


def main() -> int:
    """Run the cases and print the table; 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="groups or targets, separated by commas")
    parser.add_argument("--case", type=int, help="one case of one target; -1: the whole input")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="for the cases; by default, a new one")
    options = parser.parse_args()
    wanted = [name for name in options.only.split(",") if name]
    targets = [
        target
        for target in TARGETS
        if not wanted or target.name in wanted or target.name.partition("/")[0] in wanted
    ]
    if not targets or (options.case is not None and len(targets) != 1):
        parser.error(f"expected --only of {[target.name for target in TARGETS]}")
    folder = options.folder or Path(tempfile.mkdtemp(prefix="crate-interp-fuzz-"))
    if options.case is not None:
        return _one(targets[0], options.seed, options.case, folder.absolute())
    started = time.monotonic()
    campaign = Campaign(targets, options.seed, folder, started + 60 * options.minutes)
    campaign.run(options.workers)
    sys.stdout.write(
        f"{campaign.table()}\nseed {options.seed}, {time.monotonic() - started:.0f} s; "
        f"{len(campaign.failures)} failures{f', see {folder}/failures' * bool(campaign.failures)}\n"
    )
    if not campaign.failures and options.folder is None:
        shutil.rmtree(folder)
    return 1 if campaign.failures else 0


def _one(target, seed: int, case: int, folder: Path) -> int:
    with set_up(folder) as place:
        outcome = run_case(target, seed, case, place)
    sys.stdout.write(f"{folder}/case\n{outcome}\n")
    return 1 if outcome.kind == "failure" else 0


if __name__ == "__main__":
    sys.exit(main())
