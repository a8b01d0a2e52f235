"""Principal components of the patch features of many images together: grey, foreground, colour.

Shapes: B images, n = h*w patches of an image, D dimensions of a feature.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import isfinite

import numpy as np
from jaxtyping import Bool, Float, UInt8

from crate_interp.errors import InputError
from crate_interp.options.choices import Foreground
from crate_interp.segmentation import PrincipalComponents, principal_components

__all__ = ["JointPCA", "component_maps", "joint_pca"]

_COLOURS = 3
_RANGE = (1, 99)  # percentiles that become black and white; single patches lie far outside


@dataclass(frozen=True, eq=False)
class JointPCA:
    """Principal components of the patches of several images, all in one scale.

    Attributes:
        grey: First component, from 0 for the background's end to 1; the outermost hundredth of the
            patches at either end is cut off.
        threshold: Grey above which a patch is foreground; `None` where all patches are.
        foreground: Patches that are foreground.
        components: First three components of the foreground's patches; 0 elsewhere.
        rgb: The components as red, green and blue, each in its own scale, cut off as `grey` is;
            black elsewhere.
        first_share: Share of the variance of all patches that lies along the first component.
        shares: Share of the variance of the foreground that lies along each of the three.
    """

    grey: Float[np.ndarray, "B h w"]
    threshold: float | None
    foreground: Bool[np.ndarray, "B h w"]
    components: Float[np.ndarray, "B h w 3"]
    rgb: UInt8[np.ndarray, "B h w 3"]
    first_share: float
    shares: Float[np.ndarray, " 3"]


def joint_pca(
    features: Iterable[Float[np.ndarray, "n D"]],
    grid_hw: tuple[int, int],
    foreground: Foreground = "auto",
) -> JointPCA:
    """Colour the patches of several images by what they share.

    The first principal component of all patches together tells foreground from background; the
    first three of the foreground's patches become colours, so that alike parts of objects have
    alike colours in all images.

    Nothing is random, and the signs, which PCA leaves open, follow from the features: of a
    direction, the coordinate of largest magnitude is positive; the first component is then turned
    so that patches at the borders of the images have, on average, the background's sign.

    Args:
        features: Patch features of each image, row by row. They are gone through up to four times,
            one image at a time: they may lie in a file, but no generator will do.
        grid_hw: h and w.
        foreground: Grey in [0, 1) above which a patch is foreground; `auto` finds it by Otsu's
            method; with `none` all patches are coloured.

    Raises:
        InputError: No image, features of another number of patches, features that can be gone
            through once only, or as `principal_components`; a threshold outside [0, 1), or one that
            leaves fewer than two patches.

    Reference:
        Oquab et al., DINOv2 (arXiv 2304.07193), section 7.5; Yu et al., Emergence of Segmentation
        with Minimalistic White-Box Transformers (arXiv 2308.16271); Otsu, A Threshold Selection
        Method from Gray-Level Histograms, 1979, without a histogram.
    """
    if not (foreground in ("auto", "none") or _is_share(foreground)):
        raise InputError(f"foreground: expected auto, none or 0 <= T < 1, found {foreground!r}")
    if iter(features) is features:
        raise InputError("features: expected arrays to go through several times, found an iterator")
    patches = grid_hw[0] * grid_hw[1]
    whole = principal_components(_of_equal_length(features, patches))
    projected = np.stack([whole.project(image) for image in features]).astype(np.float32)
    shape = (len(projected), *grid_hw)
    first = _border_is_background(projected[..., 0].reshape(shape))
    grey = _to_unit_range(first)
    if foreground == "none":
        threshold, mask, parts, components = None, np.ones(shape, bool), whole, projected
        components[..., 0] = first.reshape(components.shape[:2])
    else:
        threshold = _otsu_threshold(grey.ravel()) if foreground == "auto" else float(foreground)
        mask = grey > threshold
        if mask.sum() < 2:
            raise InputError(f"foreground: {mask.sum()} patches are above {threshold}, too few")
        parts, components = _components_of(features, mask.reshape(-1, patches))
    components = components.reshape(*shape, _COLOURS)
    rgb = np.zeros(components.shape, np.uint8)
    rgb[mask] = np.stack([255 * _to_unit_range(c) for c in components[mask].T], axis=-1).round()
    return JointPCA(grey, threshold, mask, components, rgb, float(whole.shares[0]), parts.shares)


def component_maps(
    features: Iterable[Float[np.ndarray, "n D"]], grid_hw: tuple[int, int]
) -> tuple[Float[np.ndarray, "B h w"], UInt8[np.ndarray, "B h w 3"]]:
    """Show the first four principal components of all patches, without a foreground.

    Args:
        features: As for `joint_pca`.
        grid_hw: h and w.

    Returns:
        The first component as grey, in [0, 1], turned as `joint_pca` turns it; the second to fourth
        as red, green and blue. Each is in its own scale, cut off as `JointPCA.grey` is.

    Raises:
        InputError: As `joint_pca`; features of fewer than four dimensions.

    Reference:
        Yu et al., arXiv 2308.16271, figure of the principal components by layer.
    """
    patches = grid_hw[0] * grid_hw[1]
    whole = principal_components(_of_equal_length(features, patches), 1 + _COLOURS)
    projected = np.stack([whole.project(image) for image in features]).astype(np.float32)
    maps = projected.reshape(len(projected), *grid_hw, 1 + _COLOURS)
    grey = _to_unit_range(_border_is_background(maps[..., 0]))
    colours = [255 * _to_unit_range(maps[..., number]) for number in range(1, 1 + _COLOURS)]
    return grey, np.stack(colours, axis=-1).round().astype(np.uint8)


def _components_of(
    features: Iterable[Float[np.ndarray, "n D"]], masks: Bool[np.ndarray, "B n"]
) -> tuple[PrincipalComponents, Float[np.ndarray, "B n 3"]]:
    """Principal components of the patches in the masks, and the coordinates of these patches."""
    parts = principal_components(image[mask] for image, mask in zip(features, masks, strict=True))
    coordinates = np.zeros((*masks.shape, _COLOURS), np.float32)
    for target, image, mask in zip(coordinates, features, masks, strict=True):
        target[mask] = parts.project(image[mask])
    return parts, coordinates


def _of_equal_length(
    features: Iterable[Float[np.ndarray, "n D"]], patches: int
) -> Iterator[Float[np.ndarray, "n D"]]:
    for number, image in enumerate(features):
        if len(image) != patches:
            raise InputError(f"image {number}: expected {patches} features, found {len(image)}")
        yield image


def _is_share(foreground: object) -> bool:
    return isinstance(foreground, (int, float)) and isfinite(foreground) and 0 <= foreground < 1


def _border_is_background(first: Float[np.ndarray, "B h w"]) -> Float[np.ndarray, "B h w"]:
    """Turn a component, of mean 0, so that it is negative at the borders on average."""
    at_border = np.ones(first.shape[1:], dtype=bool)
    at_border[1:-1, 1:-1] = False
    return -first if first[:, at_border].mean(dtype=np.float64) > 0 else first


def _to_unit_range(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    low, high = np.percentile(values, _RANGE)
    if high == low:
        return np.full_like(values, 0.5)
    scaled: Float[np.ndarray, "*shape"] = ((values - low) / (high - low)).clip(0, 1)
    return scaled


def _otsu_threshold(values: Float[np.ndarray, " n"]) -> float:
    """The threshold between two values that parts them into the two most distant halves."""
    ascending = np.sort(values.astype(np.float64))
    below = np.arange(1, len(ascending))
    sums = ascending.cumsum()
    mean_below, mean_above = sums[:-1] / below, (sums[-1] - sums[:-1]) / below[::-1]
    between = below * below[::-1] * (mean_above - mean_below) ** 2
    between[ascending[1:] == ascending[:-1]] = -1  # equal values are not parted
    place = int(between.argmax())
    return float(ascending[place] + ascending[place + 1]) / 2
