"""Where attention leads through the blocks, images across."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from crate_interp.commands.attention_figure import (
    FIRST,
    AttendedImage,
    AttentionFigure,
    draw_across,
)
from crate_interp.errors import InputError
from crate_interp.options import option
from crate_interp.options.numbers import numbers_of
from crate_interp.runs.outputs import Conclusion, Drawing

if TYPE_CHECKING:
    from crate_interp.runs.run import Run

__all__ = ["Rollout"]


@dataclass(frozen=True, kw_only=True)
class Rollout(AttentionFigure):
    """Rollout after each block, images across.

    Reference:
        Abnar and Zuidema 2020, arXiv 2005.00928.
    """

    summary: ClassVar[str] = "after each block, images across"
    every_block: ClassVar[bool] = True
    pictures: ClassVar[int] = FIRST
    numbers: ClassVar = ("rollout", "distance", "entropy", "rollout_entropy")
    files: ClassVar = ("rollout",)

    rollout_blocks: str = option(
        "blocks of rollout, one a row: numbers such as 0,5,11, from 0; or all", "all"
    )

    def __post_init__(self) -> None:
        self._numbers()

    def check(self, images: int, blocks: int, heads: int) -> None:
        """Refuse blocks that the model does not have."""
        del images, heads
        for number in self._numbers() or []:
            if number >= blocks:
                raise InputError(
                    f"rollout_blocks: block {number} is out of range: the model has blocks 0 to "
                    f"{blocks - 1}"
                )

    def measure(self, image: AttendedImage) -> Mapping[str, Any]:
        """Keep rollout, and the other statistics of all blocks."""
        return image.statistics

    def conclude(self, run: Run) -> Conclusion:
        """Draw one figure."""
        return Conclusion(self._drawing(run))

    def _drawing(self, run: Run) -> Iterator[Drawing]:
        rollouts = [entry["rollout"] for entry in run.pictured[:FIRST]]
        blocks = self._numbers() or list(range(len(rollouts[0])))
        names = [f"block {block}" for block in blocks]
        maps = [rollout[blocks] for rollout in rollouts]
        yield draw_across(run, "rollout", maps, names, "rollout through blocks 0 to each")

    def _numbers(self) -> list[int] | None:
        return numbers_of("rollout_blocks", self.rollout_blocks, "all", "0,5,11")
