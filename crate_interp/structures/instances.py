"""The masks of one image.

Shapes: H W pixels, M masks.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

from crate_interp.errors import InputError, shorten

if TYPE_CHECKING:  # optional, and slow to import
    from supervision import Detections

__all__ = ["Frame", "Instances", "boxes_of_masks"]

Frame = Literal["grid", "input", "original"]


def boxes_of_masks(masks: Bool[np.ndarray, "M H W"]) -> Float[np.ndarray, "M 4"]:
    """Tight boxes (x1, y1, x2, y2), x2 and y2 exclusive; zeros for an empty mask."""
    boxes = np.zeros((len(masks), 4), dtype=np.float64)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
        if rows.size:
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


@dataclass(frozen=True, eq=False)
class Instances:
    """The masks found in one image, with boxes and scores, all in one frame.

    Attributes:
        masks: (M, H, W) bool.
        scores: (M,) float64; ones if not given, as MaskCut scores its masks.
        boxes_xyxy: (M, 4) float64, tight around the masks if not given; x2, y2 exclusive.
        frame: The pixels that the masks lie on: the patch grid, the model's input, or the
            original image.

    Raises:
        InputError: Shapes or types do not agree, or a value is not finite.
    """

    masks: Bool[np.ndarray, "M H W"]
    scores: Float[np.ndarray, " M"] = None  # type: ignore[assignment]  # filled when made
    boxes_xyxy: Float[np.ndarray, "M 4"] = None  # type: ignore[assignment]  # filled when made
    frame: Frame = "original"

    def __post_init__(self) -> None:
        if not isinstance(self.masks, np.ndarray):
            raise InputError(
                "masks: expected a bool array of shape (M, H, W), "
                f"found {type(self.masks).__name__}"
            )
        if self.masks.ndim != 3 or self.masks.dtype != np.bool_:
            raise InputError(
                "masks: expected a bool array of shape (M, H, W), "
                f"found {self.masks.dtype} of shape {self.masks.shape}"
            )
        if self.frame not in get_args(Frame):
            raise InputError(
                f"frame: expected {', '.join(get_args(Frame))}, found {shorten(self.frame)}"
            )
        count = len(self.masks)
        scores = np.ones(count) if self.scores is None else _numbers("scores", self.scores)
        if self.boxes_xyxy is None:
            boxes = boxes_of_masks(self.masks)
        else:
            boxes = _numbers("boxes_xyxy", self.boxes_xyxy)
        for name, value, shape in (("scores", scores, (count,)), ("boxes_xyxy", boxes, (count, 4))):
            if value.shape != shape:
                raise InputError(f"{name}: expected shape {shape}, found {value.shape}")
            if not np.isfinite(value).all():
                raise InputError(f"{name}: expected finite numbers, found {shorten(value)}")
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "boxes_xyxy", boxes)

    def __len__(self) -> int:
        return len(self.masks)

    def __repr__(self) -> str:
        """One line of sizes."""
        count, height, width = self.masks.shape
        return f"Instances({count} masks of {height} x {width} pixels, frame={self.frame!r})"

    def to_supervision(self) -> Detections:
        """Make `supervision.Detections`: class 0, and the frame as an entry of their `metadata`.

        Raises:
            InputError: supervision is not installed.
        """
        try:
            from supervision import Detections
        except ImportError:
            raise InputError("to_supervision needs supervision: pip install supervision") from None
        return Detections(
            xyxy=self.boxes_xyxy,
            mask=self.masks,
            confidence=self.scores,
            class_id=np.zeros(len(self), dtype=int),
            metadata={"frame": self.frame},
        )

    @classmethod
    def from_supervision(cls, detections: Detections) -> Instances:
        """Take masks, boxes and scores of `supervision.Detections`; scores are ones if missing.

        The frame is what `to_supervision` left in the metadata, or else the original image.
        Classes and tracks are left out: instances have none.

        Raises:
            InputError: The detections have no masks, or are something else.
        """
        masks = getattr(detections, "mask", None)
        if masks is None:
            raise InputError(
                f"detections: expected masks, found {type(detections).__name__} without any"
            )
        confidence = detections.confidence
        scores = np.ones(len(detections)) if confidence is None else confidence
        frame = detections.metadata.get("frame", "original")
        return cls(np.asarray(masks), scores, detections.xyxy, frame)

    def to_coco(self, image_id: int = 1) -> list[dict[str, Any]]:
        """Write entries of a COCO results file, one per mask, with RLE and category 1.

        Args:
            image_id: Number of the image in the annotation file.

        Raises:
            InputError: The frame is not the original image.
        """
        entries: list[dict[str, Any]] = _coco_entries().entries_from_instances(self, image_id)
        return entries

    @classmethod
    def from_coco(
        cls, entries: Sequence[Mapping[str, Any]], hw: tuple[int, int] | None = None
    ) -> Instances:
        """Read the entries of one image from a COCO results or annotation file.

        Boxes are tight and scores are ones if missing. Categories are left out: instances have
        none.

        Args:
            entries: Masks as RLE or polygons.
            hw: Height and width of the image, pixels; not needed where an entry has an RLE.

        Raises:
            InputError: An entry is malformed or of another image, or nothing tells the size.
        """
        instances: Instances = _coco_entries().instances_from_entries(entries, hw)
        return instances


def _coco_entries() -> Any:
    """COCO's format: a module of the room above, which is known here by its name alone."""
    return importlib.import_module("crate_interp.data.coco_entries")


def _numbers(name: str, values: object) -> Float[np.ndarray, "*shape"]:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name}: expected numbers, found {shorten(values)}") from None
