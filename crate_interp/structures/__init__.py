"""The types that travel between the rooms of the package."""

from crate_interp.structures.activations import Activations, AttentionTerms
from crate_interp.structures.geometry import ImageGeometry, InputSize
from crate_interp.structures.instances import Frame, Instances, boxes_of_masks

__all__ = [
    "Activations",
    "AttentionTerms",
    "Frame",
    "ImageGeometry",
    "InputSize",
    "Instances",
    "boxes_of_masks",
]
