"""The bilateral solver: a mask smoothed within the colours of an image, as TokenCut refines it."""

from __future__ import annotations

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float, Int, UInt8
from scipy.sparse.linalg import cg

from crate_interp.errors import InputError

__all__ = ["bilateral_solver"]

_SMOOTHNESS = 256.0  # lambda of the paper
_CONFIDENCE = 0.999  # of every pixel of the target
_BALANCING_STEPS = 10
_TOLERANCE = 1e-5  # of the residual, relative to the right side
_MAX_STEPS = 25
_LEAST_DIAGONAL = 1e-5  # of the preconditioner
_DIMENSIONS = 5

_YUV = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)  # JPEG's luma and chroma of RGB


def bilateral_solver(
    image: UInt8[np.ndarray, "H W 3"],
    targets: Bool[np.ndarray, "M H W"],
    sigma_spatial: float = 16,
    sigma_luma: float = 16,
    sigma_chroma: float = 8,
) -> Float[np.ndarray, "M H W"]:
    """Find maps that are near the targets, and alike where pixels are alike in place and colour.

    The pixels fall into the cells of a grid of place, luma and chroma; a map has one value per
    cell. With S the 0/1 matrix of cells and pixels, B the blur (1 2 1) along each of the five
    dimensions and the diagonal D_n, D_m that make D_n B D_n doubly stochastic, the values y of the
    cells solve

        (lambda (D_m - D_n B D_n) + diag(S c)) y = S (c t)

    for the target t and confidences c, here 0.999 each.

    Args:
        image: RGB in [0, 255].
        targets: Any number of masks of the image, also none.
        sigma_spatial: Side of a cell, pixels.
        sigma_luma: Height of a cell in luma, of 256 values.
        sigma_chroma: Width of a cell in both chroma channels, of 256 values.

    Returns:
        A map per target, in [0, 1] up to the error that is left: conjugate gradients stop at a
        relative residual of 1e-5, or after 25 steps, which leave less than 0.01 in our tests.

    Raises:
        InputError: Shapes or types do not agree, or a size of a cell is not positive.

    Reference:
        Barron and Poole, The Fast Bilateral Solver (arXiv 1511.03296), section 2. Sizes, lambda,
        confidence, tolerance and steps are those of TokenCut's release (arXiv 2202.11539).
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(
            f"image: expected uint8 of shape (H, W, 3), found {image.dtype} of {image.shape}"
        )
    if targets.dtype != np.bool_ or targets.shape[1:] != image.shape[:2]:
        raise InputError(
            f"targets: expected bool masks of shape (M, {image.shape[0]}, {image.shape[1]}), "
            f"found {targets.dtype} of {targets.shape}"
        )
    if not min(sigma_spatial, sigma_luma, sigma_chroma) > 0:
        raise InputError(
            "sizes of a cell: expected positive numbers, "
            f"found {sigma_spatial}, {sigma_luma} and {sigma_chroma}"
        )
    if not targets.size:
        return np.zeros(targets.shape)
    cells, blur = _grid(image, (sigma_spatial, sigma_luma, sigma_chroma))
    pixels = np.bincount(cells).astype(np.float64)
    scale = np.ones(len(pixels))
    for _ in range(_BALANCING_STEPS):
        scale = np.sqrt(scale * pixels / (blur @ scale))
    smoothness = scipy.sparse.diags(scale * (blur @ scale)) - _scaled(blur, scale)
    matrix = (_SMOOTHNESS * smoothness + scipy.sparse.diags(_CONFIDENCE * pixels)).tocsr()
    inverse = scipy.sparse.diags(1 / np.maximum(matrix.diagonal(), _LEAST_DIAGONAL))
    maps = np.empty(targets.shape)
    for number, target in enumerate(targets):
        right = _CONFIDENCE * np.bincount(cells, target.ravel(), len(pixels))
        start = right / (_CONFIDENCE * pixels)
        values, _ = cg(matrix, right, start, rtol=_TOLERANCE, maxiter=_MAX_STEPS, M=inverse)
        maps[number] = values[cells].reshape(target.shape)
    return maps


def _scaled(
    matrix: scipy.sparse.csr_matrix, scale: Float[np.ndarray, " n"]
) -> scipy.sparse.spmatrix:
    return scipy.sparse.diags(scale) @ matrix @ scipy.sparse.diags(scale)


def _grid(
    image: UInt8[np.ndarray, "H W 3"], sizes: tuple[float, float, float]
) -> tuple[Int[np.ndarray, " p"], scipy.sparse.csr_matrix]:
    """Find the cell of each pixel, and the blur among the cells that hold a pixel."""
    spatial, luma, chroma = sizes
    yuv = image @ _YUV.T + (0, 128, 128)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    colours = (yuv[..., 0] / luma, yuv[..., 1] / chroma, yuv[..., 2] / chroma)
    places = (columns / spatial, rows / spatial, *colours)
    coordinates = np.stack(places).astype(np.int64).reshape(_DIMENSIONS, -1)
    # One number a cell, with room for a neighbour on either side.
    sides = coordinates.max(axis=1) + 3
    strides = np.concatenate([[1], np.cumprod(sides[:-1])])
    numbers, cells = np.unique(strides @ (coordinates + 1), return_inverse=True)
    blur = 2 * _DIMENSIONS * scipy.sparse.identity(len(numbers), format="csr")
    for offset in (*strides, *-strides):
        at = np.minimum(np.searchsorted(numbers, numbers + offset), len(numbers) - 1)
        own = np.flatnonzero(numbers[at] == numbers + offset)
        ones = np.ones(len(own))
        blur = blur + scipy.sparse.csr_matrix((ones, (own, at[own])), blur.shape)
    return cells.ravel(), blur
