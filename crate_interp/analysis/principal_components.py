"""Principal components of the token features of many images together: grey, foreground, colour.

Shapes: B images, n = h*w patches of an image, D dimensions of a feature, C components.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import isfinite

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float, UInt8

from crate_interp.config import Foreground
from crate_interp.errors import InputError

__all__ = ["JointPCA", "PrincipalComponents", "joint_pca", "principal_components"]

_COLOURS = 3
_RANGE = (1, 99)  # percentiles that become black and white; single patches lie far outside
_ROUNDING = 1e-12  # of the variance: less than this is none


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """The directions along which features vary most.

    Attributes:
        mean: Of the features.
        directions: Of unit length, the largest variance first. Their sign, which the definition
            leaves open, makes the coordinate of largest magnitude positive.
        shares: Of the variance that lies along each direction, in [0, 1].
    """

    mean: Float[np.ndarray, " D"]
    directions: Float[np.ndarray, "C D"]
    shares: Float[np.ndarray, " C"]

    def project(self, features: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n C"]:
        """Coordinates of features along the directions, float64; their mean over all is 0."""
        coordinates: Float[np.ndarray, "n C"] = (features - self.mean) @ self.directions.T
        return coordinates


def principal_components(
    chunks: Iterable[Float[np.ndarray, "_ D"]], count: int = _COLOURS
) -> PrincipalComponents:
    """Find the principal components of features that need not fit into memory together.

    One pass adds up mean and covariance in float64, D x D numbers, by the update of Chan et al.
    that loses no digits to a large mean; an eigensolver does the rest. So the components are those
    of all the features at once, to rounding, however these are cut into chunks.

    Two of them that have the same variance may be any two directions of their plane.

    Args:
        chunks: Features, one a row; a chunk may be empty.
        count: C, components wanted.

    Raises:
        InputError: Chunks of different D or of numbers that are not finite; fewer than two features
            or fewer dimensions than `count`; features that are all the same.

    Reference:
        Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample
        variances, 1979.
    """
    seen, mean, scatter = _moments(chunks)
    if seen < 2 or not 1 <= count <= mean.size:
        raise InputError(
            f"expected 2 features or more of {count} dimensions or more, found {seen} of "
            f"{mean.size}"
        )
    variance = np.trace(scatter)
    if variance <= _ROUNDING * seen * (mean @ mean):
        raise InputError(f"expected features that differ, found {seen} times the same")
    last = mean.size - 1
    values, vectors = scipy.linalg.eigh(scatter, subset_by_index=(last - count + 1, last))
    directions = vectors[:, ::-1].T
    largest = np.abs(directions).argmax(axis=1)
    directions *= np.sign(directions[np.arange(count), largest])[:, None]
    return PrincipalComponents(mean, directions, values[::-1].clip(0) / variance)


def _moments(
    chunks: Iterable[Float[np.ndarray, "_ D"]],
) -> tuple[int, Float[np.ndarray, " D"], Float[np.ndarray, "D D"]]:
    """Number, mean and sum of squared deviations of features."""
    seen, mean, scatter = 0, np.zeros(0), np.zeros((0, 0))
    for chunk in chunks:
        features = np.asarray(chunk, dtype=np.float64)
        if features.ndim != 2 or (seen and features.shape[1] != mean.size):
            expected = mean.size if seen else "D"
            raise InputError(f"features: expected shape (n, {expected}), found {features.shape}")
        if not np.isfinite(features).all():
            raise InputError("features: expected finite numbers, found NaN or infinity")
        if not len(features):
            continue
        if not seen:
            mean = np.zeros(features.shape[1])
            scatter = np.zeros((mean.size, mean.size))
        own_mean = features.mean(axis=0)
        centred, shift = features - own_mean, own_mean - mean
        total = seen + len(features)
        scatter += centred.T @ centred
        scatter += np.outer(shift, shift) * (seen * len(features) / total)
        mean = mean + shift * (len(features) / total)
        seen = total
    return seen, mean, scatter


@dataclass(frozen=True, eq=False)
class JointPCA:
    """What the principal components of several images show, all in one scale.

    Attributes:
        grey: First component, from 0 for the background's end to 1; the outermost hundredth of the
            patches at either end is cut off.
        threshold: Grey above which a patch is foreground; `None` where all patches are.
        foreground: Those patches.
        components: First three components of the foreground's patches; 0 elsewhere.
        rgb: They as red, green and blue, each in its own scale, cut off as `grey` is; black
            elsewhere.
        first_share: Of the variance of all patches that the first component has.
        shares: Of the variance of the foreground that the three components have.
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
        features: Patch features of each image, row by row. Gone through up to four times, one
            image at a time: they may lie in a file, but no generator will do.
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
