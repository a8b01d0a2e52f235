"""AP of a run beside that of others: how `segment` and `evaluate` keep it, and read it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from crate_interp import evaluation
from crate_interp.errors import InputError, shorten
from crate_interp.files import checked_as
from crate_interp.runs.finished_run import Comparable, FinishedRun, split_published

if TYPE_CHECKING:
    from crate_interp.evaluation import Bootstrap, ImageMatches

__all__ = ["comparable_ap", "kept_matches"]

_METRICS = ("AP50", "AP75", "AP")


class _Published(TypedDict, total=False):
    published: dict[str, float | str] | None


class _Results(_Published):
    average_precision: dict[str, dict[str, float]]


def kept_matches(
    matches: Mapping[str, Sequence[ImageMatches]], names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Keep what the AP of some of the images needs, so that runs can be compared on these.

    Args:
        matches: Records of the images, by `box` and `mask`.
        names: Names of the images, in the order of the records.

    Returns:
        Plain values by kind, then by the name of the image.
    """
    return {
        kind: dict(zip(names, evaluation.image_detections(records), strict=True))
        for kind, records in matches.items()
    }


def comparable_ap(run: FinishedRun, matches: Any, source: str) -> Comparable:
    """Read AP back.

    Args:
        run: The run; its summary has `average_precision`.
        matches: What `kept_matches` returned, as it was read; empty if it was not kept.
        source: Name of the file of that, for messages.

    Raises:
        InputError: A part is malformed.
    """
    kinds = dict[str, dict[str, evaluation.ImageDetections]]
    kept: Any = checked_as(matches, kinds, source)
    results = run.results(_Results)
    published, source_of_these = split_published(results.get("published"))
    names = [set(images) for images in kept.values()]
    if any(of_kind != names[0] for of_kind in names):
        raise InputError(f"{source}: expected the same images of all kinds, found others")
    for images in kept.values():
        for name, image in images.items():
            counts = {len(image["scores"]), len(image["right"]), len(image["ignored"])}
            if len(counts) > 1:
                raise InputError(
                    f"{source}: {shorten(name)}: expected as many scores as right and ignored, "
                    f"found {sorted(counts)}"
                )
    records = {
        name: {kind: images[name] for kind, images in kept.items()}
        for name in next(iter(kept.values()), {})
    }
    return Comparable(
        {
            f"{kind} {metric}": score[metric]
            for kind, score in results["average_precision"].items()
            for metric in _METRICS
            if metric in score
        },
        published=published,
        source=source_of_these,
        records=records,
        bootstrap=_bootstrap,
    )


def _bootstrap(records: Sequence[Mapping[str, Any]]) -> dict[str, Bootstrap]:
    return {
        f"{kind} {metric}": bootstrap
        for kind in records[0]
        for metric, bootstrap in evaluation.bootstrap_average_precision(
            [record[kind] for record in records]
        ).items()
    }
