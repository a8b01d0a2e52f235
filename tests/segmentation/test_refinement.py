import sys

import numpy as np
import pytest

from crate_interp.errors import InputError
from crate_interp.segmentation import fill_holes, refine_masks

HEIGHT, WIDTH = 40, 56


def picture() -> tuple[np.ndarray, np.ndarray]:
    """A bright box on a dark ground with some noise, and the exact mask of the box."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[9:29, 13:43] = True
    noise = np.random.default_rng(0).integers(0, 10, (HEIGHT, WIDTH, 3))
    return (np.where(mask[..., None], 200, 20) + noise).astype(np.uint8), mask


def blocky(mask: np.ndarray) -> np.ndarray:
    """The mask as a grid of 4 x 4 patches would give it."""
    return np.kron(mask[2::4, 2::4], np.ones((4, 4), dtype=bool))


def mean_field(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The same CRF by the sums over all pairs of pixels, without a permutohedral lattice."""
    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]]
    place = np.stack([rows.ravel(), columns.ravel()], axis=1).astype(np.float64)
    colour = image.reshape(-1, 3).astype(np.float64)

    def kernel(features: np.ndarray) -> np.ndarray:
        squares = (features**2).sum(axis=1)
        values = np.exp(-0.5 * (squares[:, None] + squares - 2 * features @ features.T))
        scale = 1 / np.sqrt(values.sum(axis=1))  # pydensecrf normalises symmetrically
        return scale[:, None] * values * scale

    pairwise = 7 * kernel(place / 3) + 10 * kernel(np.concatenate([place / 50, colour / 5], 1))
    values = np.stack([~mask, mask], axis=-1).reshape(-1, 2).astype(np.float64)
    log_unary = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
    marginal = np.exp(log_unary)
    for _ in range(10):
        logits = log_unary + pairwise @ marginal
        marginal = np.exp(logits - logits.max(axis=1, keepdims=True))
        marginal /= marginal.sum(axis=1, keepdims=True)
    return (marginal[:, 1] > marginal[:, 0]).reshape(mask.shape)


def test_fill_holes_adds_enclosed_background_only() -> None:
    mask = np.zeros((2, 7, 7), dtype=bool)
    mask[0, 1:6, 1:6] = True
    mask[0, 3, 3] = False  # a hole
    mask[1, 1:6, 1:6] = True
    mask[1, 2, 2:7] = False  # a bay, open to the right
    expected = mask.copy()
    expected[0, 3, 3] = True
    np.testing.assert_array_equal(fill_holes(mask), expected)
    assert not mask[0, 3, 3]  # the input stays as it was


def test_fill_holes_is_closed_by_four_neighbours() -> None:
    mask = np.array([[[0, 1, 0], [1, 0, 1], [0, 1, 0]]], dtype=bool)
    assert fill_holes(mask).sum() == 5


def test_fill_holes_of_no_mask() -> None:
    assert fill_holes(np.zeros((0, 4, 5), dtype=bool)).shape == (0, 4, 5)


def test_crf_recovers_the_edges_of_a_blocky_mask() -> None:
    image, mask = picture()
    coarse = blocky(mask)
    assert (coarse != mask).sum() > 60
    np.testing.assert_array_equal(refine_masks(image, coarse[None], "crf"), mask[None])


def test_crf_matches_exact_mean_field() -> None:
    rng = np.random.default_rng(1)
    image = np.kron(rng.integers(0, 60, (5, 7, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    image[8:32, 16:40] += 90
    image += rng.integers(0, 30, image.shape, dtype=np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[10:30, 14:38] = True
    found = refine_masks(image, mask[None], "crf")
    expected = fill_holes(mean_field(image, mask)[None])
    assert (expected != mask).sum() > 20
    assert (found != expected).mean() < 0.01  # the lattice is an approximation


def test_crf_drops_masks_that_change_too_much_and_empty_ones() -> None:
    image, mask = picture()
    tiny = np.zeros_like(mask)
    tiny[20, 20] = True  # the rest of the box pulls it away
    masks = np.stack([tiny, blocky(mask), np.zeros_like(mask)])
    refined = refine_masks(image, masks, "crf")
    np.testing.assert_array_equal(refined, mask[None])


def test_crf_parameters_have_an_effect() -> None:
    image, mask = picture()
    coarse = blocky(mask)[None]
    weak = refine_masks(image, coarse, "crf", gaussian=(3, 1e-3), bilateral=(50, 5, 1e-3))
    np.testing.assert_array_equal(weak, coarse)


def test_pydensecrf_finds_the_same_masks() -> None:
    pytest.importorskip("pydensecrf.densecrf", reason="the extra `crf` is not installed")
    image, mask = picture()
    masks = np.stack([blocky(mask), ~blocky(mask)])
    image.flags.writeable = False  # as an array made by Pillow is
    expected = refine_masks(image, masks, "pydensecrf")
    np.testing.assert_array_equal(refine_masks(image, masks, "crf"), expected)


@pytest.mark.parametrize("method", ["none", "crf", "pydensecrf", "bilateral"])
def test_refine_of_no_mask(method: str) -> None:
    image, _ = picture()
    masks = np.zeros((0, HEIGHT, WIDTH), dtype=bool)
    assert refine_masks(image, masks, method).shape == masks.shape


def test_refine_none_returns_the_masks_unchanged() -> None:
    image, mask = picture()
    masks = np.stack([mask, np.zeros_like(mask)])
    np.testing.assert_array_equal(refine_masks(image, masks, "none"), masks)


def test_pydensecrf_without_the_extra_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    image, mask = picture()
    with pytest.raises(InputError, match=r'pip install "crate-interp\[crf\]"'):
        refine_masks(image, mask[None], "pydensecrf")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((HEIGHT, WIDTH, 3))}, "found float64"),
        ({"image": np.zeros((WIDTH, HEIGHT, 3), np.uint8)}, f"({WIDTH}, {HEIGHT}, 3)"),
        ({"image": np.zeros((HEIGHT, WIDTH), np.uint8)}, f"({HEIGHT}, {WIDTH})"),
        ({"masks": np.zeros((HEIGHT, WIDTH), bool)}, "found bool of shape"),
        ({"masks": np.zeros((1, HEIGHT, WIDTH))}, "found float64 of shape"),
        ({"method": "snake"}, "found 'snake'"),
        ({"iterations": 0}, "iterations=0"),
        ({"gaussian": (-3, 7)}, "gaussian=(-3, 7)"),
    ],
)
def test_refine_refuses(change: dict[str, object], message: str) -> None:
    image, mask = picture()
    arguments = {"image": image, "masks": mask[None], "method": "none"} | change
    with pytest.raises(InputError) as error:
        refine_masks(**arguments)  # type: ignore[arg-type]
    assert message in str(error.value)
