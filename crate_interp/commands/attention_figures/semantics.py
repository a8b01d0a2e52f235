"""Chosen heads down, images across: whether a head finds the same thing in all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from crate_interp import analysis
from crate_interp.commands.attention_figure import (
    FIRST,
    AttendedImage,
    AttentionFigure,
    draw_across,
)
from crate_interp.errors import InputError
from crate_interp.options import option
from crate_interp.options.numbers import numbers_of
from crate_interp.runs.outputs import Conclusion, Output, Table

if TYPE_CHECKING:
    from crate_interp.runs.run import Run

__all__ = ["Semantics"]

AUTO_HEADS = 4


@dataclass(frozen=True, kw_only=True)
class Semantics(AttentionFigure):
    """Chosen heads down, images across.

    Reference:
        Yu et al. 2023, arXiv 2308.16271, figure of head semantics.
    """

    summary: ClassVar[str] = "chosen heads down, images across"
    pictures: ClassVar[int] = FIRST
    files: ClassVar = ("semantics", "agreement")

    semantics_heads: str = option(
        "heads of semantics: numbers such as 0,3,5; auto: the four whose attended patches have the "
        "most similar keys in all images",
        "auto",
        also=["heads"],
    )

    def __post_init__(self) -> None:
        self._numbers()

    def check(self, images: int, blocks: int, heads: int) -> None:
        """Refuse heads that the model does not have, and too few of them to compare."""
        del blocks
        numbers = self._numbers()
        if numbers is None and min(images, heads) < 2:
            raise InputError(
                "semantics_heads auto: expected two images and two heads or more to compare, found "
                f"{images} and {heads}; name heads, for instance --semantics-heads 0"
            )
        for head in numbers or []:
            if head >= heads:
                raise InputError(
                    f"head {head} is out of range: the model has heads 0 to {heads - 1}"
                )

    def measure(self, image: AttendedImage) -> Mapping[str, Any]:
        """Keep the maps of named heads; of all, and the keys that each attends to, to compare."""
        maps, numbers = image.maps(image.block), self._numbers()
        if numbers is not None:
            return {"of_heads": maps[numbers].cpu().numpy()}
        keys = image.activations.patch_features("key", image.block)[0].T
        attended = analysis.attended_keys(maps.flatten(1), keys)
        return {"of_heads": maps.cpu().numpy(), "attended_keys": attended.cpu().numpy()}

    def conclude(self, run: Run) -> Conclusion:
        """Draw one figure; where heads are compared, write their agreement."""
        numbers = self._numbers()
        block = f"block {run.reading.block}"
        if numbers is not None:
            names = [f"head {head}" for head in numbers]
            return Conclusion(_outputs(run, slice(None), names, [block]))
        import torch

        attended = np.stack([entry["attended_keys"] for entry in run.entries])
        scores = analysis.head_agreement(torch.from_numpy(attended)).tolist()
        order = sorted(range(len(scores)), key=lambda head: -scores[head])
        names = [f"head {head} ({scores[head]:.2f})" for head in order[:AUTO_HEADS]]
        rows = [(head, scores[head]) for head in order]
        text = (
            f"Agreement of heads over {len(run.entries)} images. What a head attends to in an "
            "image is the mean key of\nits patches, weighted by the head's attention, less the "
            "mean key of all patches of all images;\nthe head's own keys are left out. "
            "Agreement is the mean cosine over all pairs of images:\n"
        )
        text += "\n".join(f"  head {head:2d}  {score:6.3f}" for head, score in rows)
        notes = [block, "in brackets: agreement over all images"]
        return Conclusion(_outputs(run, order[:AUTO_HEADS], names, notes, rows), text)

    def _numbers(self) -> list[int] | None:
        return numbers_of("semantics_heads", self.semantics_heads, "auto", "0,3,5")


def _outputs(
    run: Run,
    heads: slice | list[int],
    names: Sequence[str],
    notes: Sequence[str],
    scores: Sequence[tuple[int, float]] = (),
) -> Iterator[Output]:
    if scores:
        yield Table("agreement", ("head", "agreement"), scores)
    maps = [entry["of_heads"][heads] for entry in run.pictured[:FIRST]]
    yield draw_across(run, "semantics", maps, names, *notes)
