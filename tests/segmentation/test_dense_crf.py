"""The dense CRF against pydensecrf, and its lattice against the plain sums that it approximates."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crate_interp.errors import InputError
from crate_interp.segmentation import dense_crf, dense_crf_labels
from crate_interp.segmentation.permutohedral import PermutohedralLattice

PARAMETERS = [
    {},
    {"gaussian": (1.0, 3.0), "bilateral": (30.0, 13.0, 10.0), "iterations": 5},
    {"gaussian": (3.0, 3.0), "bilateral": (80.0, 3.0, 4.0), "iterations": 1},
]


def picture(height: int = 60, width: int = 84) -> np.ndarray:
    """Smooth colours, an edge and noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    colour = np.stack([2 * x, 3 * y, 200 * (x > y)], axis=-1)
    return np.clip(colour + rng.normal(0, 6, colour.shape), 0, 255).astype(np.uint8)


def blocks(count: int, height: int, width: int, side: int = 12) -> np.ndarray:
    """Masks on a coarse grid, as patches give them."""
    rng = np.random.default_rng(count)
    coarse = rng.random((count, -(-height // side), -(-width // side))) > 0.6
    return np.kron(coarse, np.ones((1, side, side), dtype=bool))[:, :height, :width]


def pydensecrf(image, energies, gaussian=(3, 7), bilateral=(50, 5, 10), iterations=10):
    densecrf = pytest.importorskip("pydensecrf.densecrf", reason="the extra `crf` is not installed")
    labels, height, width = energies.shape
    crf = densecrf.DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(energies.astype(np.float32).reshape(labels, -1))
    crf.addPairwiseGaussian(sxy=gaussian[0], compat=gaussian[1])
    crf.addPairwiseBilateral(
        sxy=bilateral[0], srgb=bilateral[1], rgbim=image.copy(), compat=bilateral[2]
    )
    return np.array(crf.inference(iterations)).reshape(energies.shape)


def energies_of(mask):
    values = np.stack([~mask, mask]).astype(np.float64)
    return np.log(np.exp(values).sum(axis=0)) - values


def plain_lattice(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The lattice of Adams et al., one point and one vertex at a time, in a dictionary."""
    dimensions = features.shape[1]
    count = dimensions + 1
    # Columns are an orthogonal basis of the plane of zero sum; blurring adds 2/3 (d + 1)^2.
    basis = np.zeros((count, dimensions))
    for k in range(dimensions):
        basis[: k + 1, k], basis[k + 1, k] = 1, -(k + 1)
        basis[:, k] /= np.sqrt((k + 1) * (k + 2))
    raised = features @ basis.T * np.sqrt(2 / 3) * count
    shares: list[dict[tuple[int, ...], float]] = []
    for point in raised:
        # Among the near lattice points, the simplex is the one that gives shares in [0, 1].
        corner = np.round(point / count) * count
        excess = round(corner.sum() / count)
        order = np.argsort(corner - point if excess > 0 else point - corner)[::-1]
        corner[order[: abs(excess)]] -= np.sign(excess) * count
        descending = np.argsort(corner - point)
        beyond = (point - corner)[descending] / count
        weights = np.append(1 - (beyond[0] - beyond[-1]), (beyond[:-1] - beyond[1:])[::-1])
        own = {}
        for remainder, weight in enumerate(weights):
            vertex = corner + remainder
            vertex[descending[count - remainder :]] -= count
            own[tuple(round(c) for c in vertex)] = weight
        assert min(weights) > -1e-9
        assert np.allclose(sum(w * np.array(v) for v, w in own.items()), point)
        shares.append(own)
    sums = {vertex: 0.0 for own in shares for vertex in own}
    for own, value in zip(shares, values, strict=True):
        for vertex, weight in own.items():
            sums[vertex] += weight * value
    for axis in range(count):
        step = -np.ones(count, dtype=int)
        step[axis] += count
        before = dict(sums)
        for vertex in sums:
            for sign in (1, -1):
                sums[vertex] += 0.5 * before.get(tuple(np.array(vertex) + sign * step), 0.0)
    read = [sum(w * sums[vertex] for vertex, w in own.items()) for own in shares]
    return np.array(read) / (1 + 2.0**-dimensions)


@pytest.mark.parametrize("dimensions", [1, 2, 5])
def test_lattice_is_the_plain_one(dimensions):
    rng = np.random.default_rng(dimensions)
    features = rng.normal(0, 1.5, (40, dimensions))
    values = rng.random((40, 3))
    found = PermutohedralLattice(torch.from_numpy(features.T)).filter(torch.from_numpy(values))
    expected = np.stack([plain_lattice(features, column) for column in values.T], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_lattice_approximates_the_sum_over_all_pairs():
    places = np.array(list(product(range(30), range(30))))
    features = places / 3
    values = np.random.default_rng(0).random(len(features))
    squares = ((features[:, None] - features) ** 2).sum(axis=2)
    expected = np.exp(-squares / 2) @ values
    lattice = PermutohedralLattice(torch.from_numpy(features.T))
    found = lattice.filter(torch.from_numpy(values[:, None]))[:, 0].numpy()
    expected, found = expected / expected.sum(), found / found.sum()
    inside = ((places > 6) & (places < 23)).all(axis=1)
    assert np.abs(found / expected - 1)[inside].max() < 0.1


@pytest.mark.parametrize("parameters", PARAMETERS, ids=["paper", "soft", "one-iteration"])
@pytest.mark.parametrize("count", [1, 6])
def test_marginals_are_those_of_pydensecrf(count, parameters):
    image = picture()
    masks = blocks(count, *image.shape[:2])
    expected = [pydensecrf(image, energies_of(mask), **parameters)[1] for mask in masks]
    found = dense_crf(image, masks, **parameters)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert ((found > 0.5) == (np.array(expected) > 0.5)).mean() >= 0.9999


def test_photographs_have_the_labels_of_pydensecrf(shared_data):
    for number, path in enumerate(sorted((Path(shared_data) / "coco").rglob("*.jpg"))[:3]):
        image = np.asarray(Image.open(path).convert("RGB").resize((240, 200)))
        masks = blocks(number + 2, 200, 240, side=40)
        expected = [pydensecrf(image, energies_of(mask))[1] for mask in masks]
        found = dense_crf(image, masks)
        assert ((found > 0.5) == (np.array(expected) > 0.5)).mean() >= 0.9999
        assert (np.abs(found - expected) < 1e-3).mean() >= 0.9999


def test_several_labels_are_those_of_pydensecrf():
    image = picture()
    energies = np.random.default_rng(0).random((4, 5, 7)) * 3
    energies = np.kron(energies, np.ones((1, 12, 12)))
    found = dense_crf_labels(image, energies)
    np.testing.assert_allclose(found, pydensecrf(image, energies), atol=1e-3)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


def test_two_labels_are_a_mask():
    image = picture()
    mask = blocks(1, *image.shape[:2])
    found = dense_crf_labels(image, energies_of(mask[0]))
    np.testing.assert_allclose(found[1], dense_crf(image, mask)[0], atol=1e-4)


def test_masks_do_not_touch_one_another():
    image = picture()
    masks = blocks(4, *image.shape[:2])
    together = dense_crf(image, masks)
    for number, mask in enumerate(masks):
        np.testing.assert_allclose(together[number], dense_crf(image, mask[None])[0], atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 6, 7), (2, 0, 7), (0, 0, 0)])
def test_nothing_in_nothing_out(shape):
    image = np.zeros((*shape[1:], 3), dtype=np.uint8)
    assert dense_crf(image, np.zeros(shape, dtype=bool)).shape == shape


def test_one_pixel():
    image = np.zeros((1, 1, 3), dtype=np.uint8)
    marginal = dense_crf(image, np.ones((1, 1, 1), dtype=bool))
    assert 0.5 < marginal[0, 0, 0] <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((60, 84, 3))}, "expected uint8"),
        ({"image": np.zeros((84, 60, 3), np.uint8)}, r"\(60, 84, 3\)"),
        ({"masks": np.zeros((60, 84), bool)}, "found bool of shape"),
        ({"bilateral": (50.0, 0.0, 10.0)}, "positive"),
        ({"iterations": 0}, "iterations=0"),
        ({"bilateral": (1e-9, 1e-9, 1.0)}, "deviations of a kernel are too small"),
    ],
)
def test_wrong_input_is_refused(change, message):
    arguments = {"image": picture(), "masks": blocks(1, 60, 84), **change}
    with pytest.raises(InputError, match=message):
        dense_crf(**arguments)


@pytest.mark.parametrize("energies", [np.full((2, 60, 84), np.nan), np.zeros((0, 60, 84))])
def test_wrong_energies_are_refused(energies):
    with pytest.raises(InputError, match="energies: expected finite numbers"):
        dense_crf_labels(picture(), energies)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_marginals():
    image = picture()
    masks = blocks(3, *image.shape[:2])
    on_gpu = dense_crf(image, masks, device="cuda")
    np.testing.assert_allclose(on_gpu, dense_crf(image, masks), atol=1e-3)
