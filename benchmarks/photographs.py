"""What models make of photographs, and what untrained ones do: a table with intervals.

    python benchmarks/photographs.py CRATE-alpha=photo CRATE=photo_crate ViT=photo_vit \\
        --ecssd ECSSD --voc VOC2012 --coco COCO --folders PICTURES --rival ViT --output OUT

A model is a name, a file, or ROW=SOURCE,SOURCE,...: sources joined by commas are seeds of one
model, whose scores are averaged. Each row has a twin of random weights (`--seeds`, averaged alike).

- ECSSD (`images/`, `ground_truth_mask/`): IoU and largest F of TokenCut, IoU after a CRF; IoU of
  attention masks (the best head of each picture, the one head that is best overall, the mean head)
  and of the first principal component; once more without the pictures that --exclude names.
- VOC 2012: mIoU of attention masks by both protocols (best head of a class of a picture), and of a
  linear probe, learnt on one half of the pictures and scored on the other, both ways.
- COCO: AP50 of MaskCut's boxes and masks.
- a folder of class folders: accuracy.

Every number has a 95 % interval over pictures (bootstrap), and so have its differences from the
rival and from the untrained twin, which are paired. Each command's records stay in OUTPUT/records:
what is there is not measured again, and a run that was stopped goes on.
"""

import argparse
import csv
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from photograph_records import Recorder, write_untrained

from crate_interp.data import VOC_CLASSES
from crate_interp.evaluation import (
    Bootstrap,
    accuracy_score,
    attention_segmentation_score,
    average_precision,
    bootstrap_score,
    mean_bootstrap,
    saliency_score,
    semantic_score,
    total_confusion,
)
from crate_interp.weights import resolve_weights

CLASSES = len(VOC_CLASSES)
GROUPS = ("cut", "attention", "probe", "maskcut")
UNTRAINED = "{}, untrained"

Records = Sequence[Any]
Score = Callable[[Records], float]


@dataclass(frozen=True)
class Column:
    """A number of the table: the job whose records it is computed of, and how."""

    set_name: str
    title: str
    job: str
    score: Score
    excludes: bool = False


# --- Scores of records -----------------------------------------------------------------------


def saliency(method: str, key: str, records: Records) -> float:
    return float(getattr(saliency_score([record[method] for record in records]), key))


def attention(method: str, records: Records) -> float:
    return attention_segmentation_score(records, CLASSES).mean_iou[method]


def probe(records: Records) -> float:
    return semantic_score(total_confusion(records, CLASSES, CLASSES)).mean_iou


def mean(ious: Records) -> float:
    return float(np.mean(ious))


def accuracy(ranks: Records) -> float:
    return accuracy_score(ranks).accuracy[1]


def ap50(matches: Records) -> float:
    return average_precision(matches).AP50


def salient_columns(name: str, excludes: bool = False) -> list[Column]:
    numbers = {
        "TokenCut IoU": ("cut", partial(saliency, "TokenCut", "iou")),
        "TokenCut max F": ("cut", partial(saliency, "TokenCut", "max_f")),
        "TokenCut IoU, after CRF": ("refined", mean),
        "attention IoU, best head of a picture": ("salient", partial(attention, "best head")),
        "attention IoU, best head overall": ("salient", partial(attention, "one head")),
        "attention IoU, mean head": ("salient", partial(attention, "mean head")),
        "PCA IoU": ("cut", partial(saliency, "principal component", "iou")),
    }
    return [Column(name, title, *how, excludes) for title, how in numbers.items()]


def columns(options: argparse.Namespace) -> list[Column]:
    """Columns of the sets that are given."""
    chosen = [Column("class folders", "accuracy", "accuracy", accuracy)] * bool(options.folders)
    if options.ecssd:
        chosen += salient_columns("ECSSD")
    if options.ecssd and options.exclude:
        chosen += salient_columns("ECSSD, without the excluded", True)
    if options.voc:
        best = partial(attention, "best head")
        chosen += [
            Column("VOC", "attention mIoU, mass", "mass", best),
            Column("VOC", "attention mIoU, entries", "entries", best),
            Column("VOC", "linear probe mIoU", "probe", probe),
        ]
    if options.coco:
        chosen += [
            Column("COCO", "MaskCut box AP50", "bbox", ap50),
            Column("COCO", "MaskCut mask AP50", "segm", ap50),
        ]
    return [column for column in chosen if column.title in (options.numbers or [column.title])]


# --- Models ----------------------------------------------------------------------------------


def read_rows(texts: Sequence[str], seeds: int, folder: Path) -> dict[str, list[str]]:
    """Sources of each row; behind it the row of its untrained twin."""
    rows: dict[str, list[str]] = {}
    for text in texts:
        name, separator, sources = text.partition("=")
        if name in rows:
            raise SystemExit(f"{name}: named twice")
        rows[name] = sources.split(",") if separator else [name]
        paths = [resolve_weights(source) for source in rows[name]]  # what is missing, one knows now
        if seeds:
            twins = [write_untrained(paths[0], seed, folder) for seed in range(seeds)]
            rows[UNTRAINED.format(name)] = [str(path) for path in twins]
    return rows


# --- Tables ----------------------------------------------------------------------------------


def score_row(
    column: Column, sources: Sequence[str], recorder: Recorder, options: argparse.Namespace
) -> Bootstrap:
    """Score the models of a row; seeds are averaged, on the same resamples."""
    parts = []
    for source in sources:
        records = recorder.of(column.job, source)
        left_out = options.excluded if column.excludes else frozenset()
        if options.limit is None and left_out - records.keys():
            raise SystemExit(f"{options.exclude}: names what is not in {column.set_name}")
        kept = [record for name, record in records.items() if name not in left_out]
        parts.append(bootstrap_score(column.score, kept, options.resamples))
    return mean_bootstrap(parts)


def lines_of(
    scores: dict[str, Bootstrap], rival: str | None
) -> Iterator[tuple[str, str, Bootstrap]]:
    """Scores, then differences: the row, the row that is taken off, and the number."""
    twins = {UNTRAINED.format(row) for row in scores}
    for row, score in scores.items():
        yield row, "", score
    for row, score in scores.items():
        for other in (rival, UNTRAINED.format(row)):
            if other in scores and other != row and row not in twins:
                yield row, str(other), score - scores[str(other)]


def cell(number: Bootstrap | None, signed: bool) -> str:
    if number is None:
        return ""
    low, high = number.interval()
    sign = "+" if signed else ""
    return f"{100 * number.score:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def table(title: str, numbers: dict[str, dict[tuple[str, str], Bootstrap]]) -> str:
    """One set: a row per model or difference, a column per number, in percent."""
    rows = list(dict.fromkeys(row for column in numbers.values() for row in column))
    counts = {number.images for column in numbers.values() for number in column.values()}
    lines = [
        f"{title}: {', '.join(map(str, sorted(counts)))} pictures, %, with 95 % intervals",
        "",
        "| | " + " | ".join(numbers) + " |",
        "|---" * (1 + len(numbers)) + "|",
    ]
    for row, other in rows:
        cells = [cell(column.get((row, other)), bool(other)) for column in numbers.values()]
        name = f"{row} - {other}" if other else row
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_csv(path: Path, tables: dict[str, dict[str, dict[tuple[str, str], Bootstrap]]]) -> None:
    """All numbers, shares of 1, a line per number."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["set", "number", "model", "minus", "pictures", "score", "low", "high"])
        for title, numbers in tables.items():
            for name, column in numbers.items():
                for (row, other), number in column.items():
                    ends = (f"{value:.5f}" for value in (number.score, *number.interval()))
                    writer.writerow([title, name, row, other, number.images, *ends])


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", help="NAME, FILE, or ROW=SOURCE,SOURCE,...")
    parser.add_argument("--ecssd", type=Path, help="folder of images/ and ground_truth_mask/")
    parser.add_argument("--voc", type=Path, help="folder of ImageSets/, JPEGImages/, ...")
    parser.add_argument("--coco", type=Path, help="folder of a split and annotations/")
    parser.add_argument("--coco-split", default="val2017")
    parser.add_argument("--folders", type=Path, help="folder of class folders, for accuracy")
    parser.add_argument("--exclude", type=Path, help="file of names of pictures of ECSSD")
    parser.add_argument("--numbers", nargs="+", help="titles of columns (default: all of the sets)")
    parser.add_argument("--rival", help="row that the others are compared with")
    parser.add_argument("--seeds", type=int, default=1, help="untrained models a row, 0 for none")
    parser.add_argument("--size", type=int, help="side of the input, pixels (default: the model's)")
    parser.add_argument("--accuracy-size", type=int, help="the same, for accuracy")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="GROUP.OPTION=VALUE",
        help="option of the commands of cut, attention, probe or maskcut, as cut.block=-2",
    )
    parser.add_argument("--limit", type=int, help="only the first pictures of each set")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--output", type=Path, required=True, help="folder of records and tables")
    options = parser.parse_args()
    options.settings = read_settings(options.set)
    options.excluded = frozenset(options.exclude.read_text().split() if options.exclude else ())
    if not columns(options):
        parser.error("name a set: --ecssd, --voc, --coco or --folders")
    return options


def read_settings(texts: Sequence[str]) -> dict[str, list[str]]:
    settings: dict[str, list[str]] = {}
    for text in texts:
        group, _, rest = text.partition(".")
        option, separator, value = rest.partition("=")
        if group not in GROUPS or not separator:
            raise SystemExit(f"--set {text}: expected GROUP.OPTION=VALUE, of {', '.join(GROUPS)}")
        settings.setdefault(group, []).append(f"--{option}={value}")
    return settings


def main() -> None:
    options = read_options()
    torch.set_num_threads(1)
    recorder = Recorder(options)
    rows = read_rows(options.models, options.seeds, recorder.folder)
    if options.rival is not None and options.rival not in rows:
        raise SystemExit(f"--rival {options.rival}: expected one of {', '.join(rows)}")
    tables: dict[str, dict[str, dict[tuple[str, str], Bootstrap]]] = {}
    for column in columns(options):
        scores = {
            row: score_row(column, sources, recorder, options) for row, sources in rows.items()
        }
        lines = lines_of(scores, options.rival)
        numbers = {(row, other): number for row, other, number in lines}
        tables.setdefault(column.set_name, {})[column.title] = numbers
    text = "\n\n".join(table(title, numbers) for title, numbers in tables.items())
    print(text)
    (options.output / "photographs.md").write_text(text + "\n")
    write_csv(options.output / "photographs.csv", tables)


if __name__ == "__main__":
    # An untrained model finds most pictures constant: the table says enough.
    logging.getLogger("crate_interp.segmentation").setLevel(logging.ERROR)
    main()
