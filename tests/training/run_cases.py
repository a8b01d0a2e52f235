"""Runs a list of training runs in one process of several, so that torch is loaded only once.

    torchrun ... run_cases.py CASES.json

A case has a folder, the settings of a recipe and, if wanted, the step at which the last process is
asked to stop. Each process writes `result-RANK.json` into the folder.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch

from crate_interp.training import Recipe, loop, train

RANK, PROCESSES = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def counting(shard, shares):
    """`shard` that notes the share of a model's weights that this process is left with."""

    def shard_and_count(model, *arguments):
        total = sum(parameter.numel() for parameter in model.parameters())
        shard(model, *arguments)
        own = sum(parameter.to_local().numel() for parameter in model.parameters())
        shares.append(own / total)

    return shard_and_count


def run(case, shares):
    shares.clear()

    def stop(metrics, _):
        if metrics.step == case.get("stop") and RANK == PROCESSES - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    result = train(Recipe(**case["settings"]), Path(case["folder"]), stop)
    found = {"step": result.step, "finished": result.finished, "accuracy": result.accuracy}
    found["shares"] = shares
    (Path(case["folder"]) / f"result-{RANK}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    shares = []
    loop.shard = counting(loop.shard, shares)
    for case in json.loads(Path(sys.argv[1]).read_text()):
        run(case, shares)
