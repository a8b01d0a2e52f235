"""Run folders and atlases, and going on with them. What comes out is compared with a whole run."""

import csv
import io
import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import load_file

from crate_interp.cli import main
from tests.fuzz.damage import Mutator
from tests.fuzz.damage_text import mutate_value, text_of
from tests.fuzz.frame import Accepted
from tests.fuzz.inputs_labels import make_ade20k, make_saliency, make_voc
from tests.fuzz.inputs_pictures import MODEL, make
from tests.fuzz.inputs_yaml import RECIPE

__all__ = [
    "ABOUT",
    "CELLS",
    "atoms",
    "compare",
    "curves",
    "evaluate",
    "go_on_maskcut",
    "go_on_semantic",
]
__all__ += ["go_on_training", "go_on_voc", "make_atlas", "make_maskcut", "make_results"]
__all__ += ["export", "go_on_probing", "make_probed", "make_semantic", "make_training"]
__all__ += ["go_on_classification", "make_classification", "make_compared", "make_voc_run"]

PICTURES = ["images/a.png", "images/f.bmp", "images/l.png"]
TRAINING = {**RECIPE, "steps": 3, "save_every": 1, "keep": 3, "validation_split": None}


def _maskcut() -> int:
    command = ["maskcut", *MODEL, "--images", *PICTURES, "--output", "run", "--visualize", "0"]
    return main([*command, "--batch-size", "1"])


def make_maskcut(folder: Path) -> None:
    """Run over three pictures, then take away the last one's entry and the final files."""
    make(folder)
    _quietly(folder, _maskcut)
    _set_aside(folder, "results.json", "annotations.json")
    _shorten_journal(folder)


def go_on_maskcut(folder: Path) -> int:
    """Go on; the final files are those of a whole run."""
    code = _maskcut()
    if code == 0:
        _compare(folder, "results.json", "annotations.json")
    return code


def make_results(folder: Path) -> None:
    """Run over three pictures; what was found is the ground truth, too."""
    make(folder)
    _quietly(folder, _maskcut)
    shutil.copy(folder / "run" / "annotations.json", folder / "truth.json")


def make_compared(folder: Path) -> None:
    """Score a run by what another one has found, and copy it."""
    make_results(folder)
    command = ["maskcut", *MODEL, "--images", *PICTURES, "--annotations", "truth.json"]
    command += ["--output", "first", "--visualize", "0", "--tau", "0.3", "--limit", "2"]
    _quietly(folder, lambda: main(command))
    shutil.copytree(folder / "first", folder / "second")


def compare(folder: Path) -> int:
    """Put both runs into one table."""
    return main(["compare", "first", "second", "--output", "table.md"])


def evaluate(folder: Path) -> int:
    """Score the results of the run, which tells its images."""
    return main(["evaluate", "run/results.json", "--annotations", "truth.json"])


def _voc() -> int:
    command = ["benchmark", "voc2012", "voc", *MODEL, "--output", "run", "--pictures", "0"]
    return main([*command, "--batch-size", "1"])


def make_voc_run(folder: Path) -> None:
    """Run VOC's benchmark, then take away the last entry."""
    make_voc(folder)
    _quietly(folder, _voc)
    _set_aside(folder, "summary.json")
    _shorten_journal(folder)


def go_on_voc(folder: Path) -> int:
    """Go on; the score is that of a whole run."""
    code = _voc()
    if code == 0:
        _compare_summaries(folder, "mean_iou")
    return code


def _semantic() -> int:
    command = ["benchmark", "semantic", "ade", *MODEL, "--method", "linear", "--output", "run"]
    return main([*command, "--batch-size", "1"])


def make_semantic(folder: Path) -> None:
    """Run the benchmark of semantic segmentation, then take away the last entry."""
    make_ade20k(folder)
    _quietly(folder, _semantic)
    _set_aside(folder, "summary.json")
    _shorten_journal(folder)


def go_on_semantic(folder: Path) -> int:
    """Go on; the scores are those of a whole run."""
    code = _semantic()
    if code == 0:
        _compare_summaries(folder, "mean_iou", "pixel_accuracy")
    return code


def _classification() -> int:
    command = ["benchmark", "classification", "learnt", "scored", *MODEL, "--output", "run"]
    return main([*command, "--batch-size", "1", "--regularization", "1"])


def make_classification(folder: Path) -> None:
    """Run the benchmark of probes, then take away the last entry."""
    make_ade20k(folder)
    pictures = sorted((folder / "ade" / "images").rglob("*.*"))
    for number, picture in enumerate(pictures):
        split, name = ("learnt", "ab"[number % 2]) if number else ("scored", "a")
        (folder / split / name).mkdir(parents=True, exist_ok=True)
        picture.rename(folder / split / name / picture.name)
    _quietly(folder, _classification)
    _set_aside(folder, "summary.json")
    _shorten_journal(folder)


def go_on_classification(folder: Path) -> int:
    """Go on; the scores are those of a whole run."""
    code = _classification()
    if code == 0:
        _compare_summaries(folder, "linear", "knn")
    return code


def _train() -> int:
    return main(["train", "recipe.yaml", "--output", "run"])


def make_training(folder: Path) -> None:
    """Train three updates, then take away the last checkpoint and the weights."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(TRAINING))
    _quietly(folder, _train)
    _set_aside(folder, "model.safetensors")
    last = sorted((folder / "run" / "checkpoints").glob("step-*"))[-1]
    last.unlink()


def go_on_training(folder: Path) -> int:
    """Go on; the weights are those of a whole run."""
    code = _train()
    if code == 0:
        found, expected = (
            load_file(folder / place / "model.safetensors") for place in ("run", "expected")
        )
        for name, tensor in expected.items():
            if not torch.equal(found[name], tensor):
                raise Accepted(f"{name}: other weights than those of a whole run")
    return code


def _probe() -> int:
    keys = ["probe_set=.", "probe_pictures=1", "probe_size=16"]
    return main(["probe", "run", "--output", "table.csv", "--device", "cpu", "--set", *keys])


def make_probed(folder: Path) -> None:
    """Train three updates, and probe all but the last of what is kept."""
    make_saliency(folder)
    make_training(folder)
    _quietly(folder, _probe)
    table = folder / "table.csv"
    table.write_bytes(b"".join(table.read_bytes().splitlines(keepends=True)[:-1]))


def go_on_probing(folder: Path) -> int:
    """Probe the rest."""
    return _probe()


def export(folder: Path) -> int:
    """Make a model file of a checkpoint."""
    return main(["convert", "run/checkpoints/step-00000002.pt", "out.safetensors"])


def curves(folder: Path) -> int:
    """Draw a run's curves."""
    return main(["curves", "run", "--output", "curves.png"])


def make_atlas(folder: Path) -> None:
    """Write an atlas of three pictures to `atlas/`."""
    make(folder)
    command = ["atlas", *PICTURES, *MODEL, "--output", "atlas", "--strongest", "2", "--sheet", "0"]
    _quietly(folder, lambda: main(command))


def atoms(folder: Path) -> int:
    """Ask which atoms write a picture."""
    code = main(["atoms", "images/a.png", "--atlas", "atlas", "--output", "a.png", "--count", "2"])
    if code == 0:
        with (folder / "a.csv").open(newline="") as file:
            for row in csv.reader(file):
                if any(cell.lower() in ("nan", "inf", "-inf") for cell in row):
                    raise Accepted(f"not a number in a.csv: {row}")
    return code


def mutate_about(rng: random.Random, content: bytes) -> bytes:
    """Change what an atlas says of itself, or one of its arrays."""
    with np.load(io.BytesIO(content)) as arrays:
        found = dict(arrays)
    if rng.random() < 0.6:
        about = json.loads(str(found["about"]))
        found["about"] = np.array(text_of(mutate_value(rng, about)))
    else:
        name = rng.choice(sorted(found))
        array = found[name]
        numbers = array.dtype.kind in "if" and array.size
        choices: tuple[Callable[[], np.ndarray], ...] = (
            lambda: array.astype(rng.choice(("f8", "i8", "c8", "U9", "?"))) if numbers else array,
            lambda: np.full_like(array, rng.choice((-1, 0, 10**6))) if numbers else array,
            lambda: array.reshape(-1)[:-1],
            lambda: np.array(rng.choice((math.nan, math.inf, -1, 2**62))),
            lambda: np.full(array.shape, math.nan),
            lambda: array[None],
        )
        found[name] = rng.choice(choices)()
    if rng.random() < 0.1:
        del found[rng.choice(sorted(found))]
    stream = io.BytesIO()
    np.savez(stream, **found)
    return stream.getvalue()


def mutate_cells(rng: random.Random, content: bytes) -> bytes:
    """Change a cell of a CSV file."""
    lines = content.decode().splitlines()
    number = rng.randrange(len(lines))
    cells = lines[number].split(",")
    values = ("", "nan", "inf", "-1", "0", "1e999", "9" * 5000, "x", '"', "1,2", "\x00", "1_0", "١")
    values += ("x" * 200_000, "1e308", "0x1", "step", " 1 ", "\u202e", "True", '"a\nb"', "٣.٥")
    cells[rng.randrange(len(cells))] = rng.choice(values)
    lines[number] = ",".join(cells)
    if rng.random() < 0.2:
        lines.insert(number, rng.choice((lines[0], "", lines[-1], ",")))
    return "\n".join(lines).encode() + b"\n"


ABOUT: dict[str, Mutator] = {"about": mutate_about, "about ": mutate_about}
CELLS: dict[str, Mutator] = {"cell": mutate_cells, "cell ": mutate_cells}


def _quietly(folder: Path, command: Callable[[], int]) -> None:
    import contextlib
    import os

    here = Path.cwd()
    os.chdir(folder)
    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(told):
            code = command()
    finally:
        os.chdir(here)
    if code:
        raise RuntimeError(f"the inputs cannot be made: exit code {code}: {told.getvalue()}")


def _set_aside(folder: Path, *names: str) -> None:
    (folder / "expected").mkdir()
    for name in names:
        (folder / "run" / name).rename(folder / "expected" / name)


def _shorten_journal(folder: Path) -> None:
    journal = folder / "run" / "journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))


def _compare(folder: Path, *names: str) -> None:
    for name in names:
        if (folder / "run" / name).read_bytes() != (folder / "expected" / name).read_bytes():
            raise Accepted(f"{name} is not that of a whole run")


def _compare_summaries(folder: Path, *keys: str) -> None:
    found, expected = (
        json.loads((folder / place / "summary.json").read_text()) for place in ("run", "expected")
    )
    for key in keys:
        if json.dumps(found[key]) != json.dumps(expected[key]):
            raise Accepted(f"{key} is {found[key]}, of a whole run {expected[key]}")
