"""A run over a million images: seconds to open, resume and conclude it, and memory meanwhile.

    python benchmarks/scale_journal.py --images 1300000

Writes a tar file of so many (empty) images and a journal of all but the last thousand of them into
a temporary folder, some 1.5 KB each; then does what `maskcut` does with them but for the model: it
opens the images, looks through the journal, adds the entries that lack, and writes results and
annotations. 1,300,000 images take 9 GB of disk for a while.
"""

import argparse
import io
import json
import resource
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from crate_interp.commands.maskcut import MaskCut
from crate_interp.data import ImageSet, results_of
from crate_interp.data.image_sets import open_images
from crate_interp.files import checksum_of
from crate_interp.runs.provenance import describe_images
from crate_interp.runs.run import Run
from crate_interp.runs.run_folder import RunFolder, open_run_folder
from crate_interp.structures import Instances

HW = 375, 500  # pixels of an image, as many of ImageNet's have
KINDS = 64  # of masks, which are repeated
SHOWN = 20
LACKING = 1000  # entries of the journal, which are added
SECONDS = {"read": 0.012, "forward": 0.034, "cut": 0.05, "refine": 0.004, "encode": 0.001}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1_300_000)
    parser.add_argument("--masks", type=int, default=3, help="masks of an image")
    parser.add_argument("--export", nargs="*", default=["coco"], help="formats beside results.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        entries = made_entries(arguments.masks)
        with measured("(write the tar file)"):
            write_tar(folder / "images.tar", arguments.images)
        with measured("(write the journal)"):
            write_journal(folder / "run", entries, arguments.images - LACKING)
        size = (folder / "run" / "journal.jsonl").stat().st_size
        print(f"journal: {arguments.images - LACKING} lines, {size / 1e9:.2f} GB")
        work_off(folder, entries, arguments.export)


def work_off(folder: Path, entries: list[dict[str, Any]], export: list[str]) -> None:
    """Open, resume and conclude the run."""
    started, used = time.perf_counter(), time.process_time()
    with measured("open the images"):
        images = open_images([folder / "images.tar"])
    with measured("describe them for the settings"):
        describe_images(images)
    with open_run_folder(folder / "run", {}, MaskCut.entry) as run_folder:
        journal = run_folder.journal()
        with measured("look through the journal"):
            done = journal.finished()
        seconds, used = time.perf_counter() - started, time.process_time() - used
        print(f"start-up: {seconds:.1f} s, {used:.1f} s CPU")
        with measured(f"add {LACKING} entries"):
            for record in images.records:
                if record.image_id not in done:
                    journal.append(entry_of(entries, record.image_id, record.file_name))
        conclude(run_folder, images, journal.finished(), export)


def conclude(folder: RunFolder, images: ImageSet, done: Any, export: list[str]) -> None:
    """Write the final files, as the frame of commands does."""
    command = MaskCut(model="demo", images=["images.tar"], visualize=0, export=export)
    provenance = {"settings": {"model": "demo"}, "weights": {"sha256": None}}
    run = Run(command, None, images, folder.path, provenance, None)  # type: ignore[arg-type]
    with measured("find the entries in the order of the images"):
        run.entries = done.of(record.image_id for record in images.records)
    with measured("count the masks"):
        conclusion = command.conclude(run)
    print(conclusion.text)
    for output in conclusion.outputs:
        with measured(f"write {output.name}"):
            folder.write_file(output.name, output.content)  # type: ignore[union-attr]


@contextmanager
def measured(stage: str) -> Iterator[None]:
    """Print the seconds of a stage, those of the processor, and the largest memory so far."""
    started, used = time.perf_counter(), time.process_time()
    yield
    seconds, used = time.perf_counter() - started, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{stage:45} {seconds:7.1f} s {used:7.1f} s CPU   peak {peak:6.0f} MB", flush=True)


def made_entries(masks: int) -> list[dict[str, Any]]:
    """Entries of blobs with ragged edges, whose RLE is as long as that of found masks."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices(HW)
    entries = []
    for _ in range(KINDS):
        shapes = []
        for _ in range(masks):
            (y, x), radius = rng.uniform((60, 60), (300, 430)), rng.uniform(30, 90)
            edge = np.kron(rng.normal(0, 12, (24, 32)), np.ones((16, 16)))[: HW[0], : HW[1]]
            shapes.append(np.hypot(rows - y, columns - x) + edge < radius)
        results = results_of(Instances(np.array(shapes)), 0)
        entries.append({"hw": HW, "results": results, "seconds": SECONDS})
    return entries


def entry_of(entries: list[dict[str, Any]], image_id: int, file_name: str) -> dict[str, Any]:
    """Entry of an image: one of the kinds, with its name."""
    kind = entries[image_id % KINDS]
    results = [{**result, "image_id": image_id} for result in kind["results"]]
    return {"image_id": image_id, "file_name": file_name, **kind, "results": results}


def name_of(image_id: int) -> str:
    """Name of an image, as ImageNet's are."""
    return f"n{image_id // 1300:08}/n{image_id // 1300:08}_{image_id}.JPEG"


def write_tar(path: Path, count: int) -> None:
    """Write a tar file of a few images, which the page of the run shows, and of empty ones."""
    grey = io.BytesIO()
    Image.new("RGB", HW[::-1], "grey").save(grey, "JPEG")
    with path.open("wb") as file:
        for image_id in range(1, count + 1):
            content = grey.getvalue() if image_id <= SHOWN else b"?"
            member = tarfile.TarInfo(name_of(image_id))
            member.size = len(content)
            header = member.tobuf(tarfile.USTAR_FORMAT)
            file.write(header + content + bytes(-len(content) % 512))
        file.write(bytes(1024))


def write_journal(folder: Path, entries: list[dict[str, Any]], count: int) -> None:
    """Write the journal of a run that was stopped."""
    folder.mkdir()
    (folder / "settings.json").write_text("{}")
    with (folder / "journal.jsonl").open("wb") as file:
        for image_id in range(1, count + 1):
            text = json.dumps(entry_of(entries, image_id, name_of(image_id))).encode()
            line = b'{"sha256": "%s", "entry": %s}\n' % (checksum_of(text).encode(), text)
            file.write(line)


if __name__ == "__main__":
    main()
