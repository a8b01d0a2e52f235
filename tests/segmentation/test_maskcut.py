import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import torch

from crate_interp.errors import InputError
from crate_interp.segmentation import maskcut, maskcut_batch
from crate_interp.segmentation.lanczos import lanczos

SOLVERS = ("lanczos", "dense")
REFERENCE_FILES = [
    *("astronaut", "chelsea", "coffee", "rocket"),
    *(f"scene{number}" for number in range(6)),
]


def reference_maskcut(
    features: np.ndarray, grid: tuple[int, int], tau: float, rounds: int
) -> np.ndarray:
    """The protocol, step by step, with the features really painted."""
    features = features.astype(np.float64)
    covered = np.zeros(grid, dtype=bool)
    current = covered
    masks = []
    for number in range(rounds):
        features[:, covered.ravel()] = 0
        unit = features / np.maximum(np.linalg.norm(features, axis=0), 1e-12)
        weights = np.where(unit.T @ unit > tau, 1.0, 1e-5)
        degree = np.diag(weights.sum(axis=1))
        _, vectors = scipy.linalg.eigh(degree - weights, degree, subset_by_index=[1, 1])
        x = vectors[:, 0].reshape(grid)
        x = x * np.sign(x.flat[np.abs(x).argmax()])
        partition = x > x.mean()
        corners = sum(partition[row, column] for row in (0, -1) for column in (0, -1))
        if corners >= 3:
            partition, x = ~partition, -x
        labels, _ = scipy.ndimage.label(partition)
        found = labels == labels.flat[x.argmax()]
        if number > 0:
            iou = (found & current).sum() / (found | current).sum()
            if iou > 0.5 or found.mean() <= 0.01:
                found = np.zeros(grid, dtype=bool)
        masks.append(found & ~covered)
        covered = covered | found
        current = found
    return np.array(masks)


def scene(seed: int, grid: tuple[int, int]) -> torch.Tensor:
    """Features of a background with some rectangles, and noise."""
    rng = np.random.default_rng(seed)
    features = np.broadcast_to(rng.normal(size=(12, 1, 1)), (12, *grid)).copy()
    for _ in range(4):
        row, column = (int(rng.integers(0, side - 1)) for side in grid)
        height, width = (int(rng.integers(2, 2 + side // 2)) for side in grid)
        part = features[:, row : row + height, column : column + width]
        part[:] = rng.normal(size=(12, 1, 1))
    features += 0.4 * rng.normal(size=features.shape)
    return torch.from_numpy(features.reshape(12, -1)).float()


@pytest.mark.parametrize("name", REFERENCE_FILES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_maskcut_reproduces_reference_vectors(name: str, solver: str, reference: Path) -> None:
    with np.load(reference / f"maskcut_{name}.npz") as file:
        features, grid = torch.from_numpy(file["features"]), file["grid"]
        tau, max_masks = np.float64(file["tau"]), int(file["max_masks"])
        expected, eigenvectors = file["maskcut_masks"], file["eigenvectors"]
    result = maskcut(features, grid, tau, max_masks, solver=solver)
    assert result.masks.dtype == torch.bool
    np.testing.assert_array_equal(result.masks, expected)
    for found, vector in zip(result.eigenvectors.numpy(), eigenvectors, strict=True):
        sign = np.sign((found * vector).sum())
        np.testing.assert_allclose(sign * found, vector, rtol=0, atol=1e-5 * np.abs(vector).max())


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("grid", [(16, 17), (26, 10)])
@pytest.mark.parametrize("tau", [-0.2, 0.15, 0.4])
def test_maskcut_matches_protocol_on_other_grids(
    seed: int, grid: tuple[int, int], tau: float
) -> None:
    features = scene(seed, grid)
    expected = reference_maskcut(features.numpy(), grid, tau, 3)
    for solver in SOLVERS:
        np.testing.assert_array_equal(maskcut(features, grid, tau, 3, solver).masks, expected)


def test_maskcut_masks_are_disjoint_and_seeds_positive() -> None:
    masks, eigenvectors = maskcut(scene(7, (20, 20)), (20, 20), max_masks=5)
    assert masks.shape == eigenvectors.shape == (5, 20, 20)
    assert masks.sum(dim=0).max() == 1
    for mask, eigenvector in zip(masks, eigenvectors, strict=True):
        if mask.any():
            assert eigenvector[mask].max() > 0


def test_maskcut_takes_the_side_without_three_corners() -> None:
    # A frame of few patches around a large inner field: the frame holds the extreme entries.
    inner = torch.zeros(12, 12, dtype=torch.bool)
    inner[1:-1, 1:-1] = True
    features = torch.stack([inner, ~inner]).reshape(2, -1).float()
    masks, eigenvectors = maskcut(features, (12, 12), max_masks=1)
    assert eigenvectors[0, 0, 0].abs() == pytest.approx(eigenvectors.abs().max())
    assert eigenvectors[0, 0, 0] < 0
    assert masks[0].equal(inner)


def test_maskcut_keeps_the_connected_part_with_the_seed() -> None:
    objects = torch.zeros(16, 16, dtype=torch.bool)
    objects[2:5, 2:5] = objects[5, 5] = objects[10:14, 9:12] = True
    features = torch.stack([objects, ~objects]).reshape(2, -1).float()
    masks, _ = maskcut(features, (16, 16), max_masks=1)
    expected = torch.zeros_like(objects)
    expected[2:5, 2:5] = True  # all entries of the objects tie: the lowest index is the seed,
    assert masks[0].equal(expected)  # and a diagonal neighbour is not connected


@pytest.mark.parametrize("grid", [(1, 30), (30, 1), (2, 2), (1, 3), (3, 2)])
def test_maskcut_of_narrow_and_tiny_grids_matches_protocol(grid: tuple[int, int]) -> None:
    count = grid[0] * grid[1]
    angles = torch.linspace(0, 1, count) ** 2 * 2.5
    features = torch.stack([angles.cos(), angles.sin()])
    expected = reference_maskcut(features.numpy(), grid, 0.8, 1)
    np.testing.assert_array_equal(maskcut(features, grid, 0.8, 1).masks, expected)


def test_maskcut_pads_with_zeros_where_nothing_is_left_to_cut(
    caplog: pytest.LogCaptureFixture,
) -> None:
    features = torch.tensor([[1.0] * 4 + [-1.0] * 8])
    # Painted patches have cosine 0 with all, above this tau: after one round all are alike.
    with caplog.at_level(logging.INFO):
        masks, eigenvectors = maskcut(features, (3, 4), tau=-0.2, max_masks=20)
    assert masks.shape == eigenvectors.shape == (20, 3, 4)
    assert masks[0].flatten().tolist() == [True] * 4 + [False] * 8
    assert not masks[1:].any()
    assert not eigenvectors[1:].any()
    assert "nothing left to cut after 1 of 20 rounds" in caplog.text


def test_maskcut_keeps_the_graph_after_a_dropped_mask() -> None:
    features = torch.eye(2).repeat_interleave(torch.tensor([4, 8]), dim=1)
    expected = reference_maskcut(features.numpy(), (3, 4), 0.15, 20)
    masks, eigenvectors = maskcut(features, (3, 4), max_masks=20)
    np.testing.assert_array_equal(masks, expected)
    assert eigenvectors[5].equal(eigenvectors[4])


@pytest.mark.parametrize("tau", [0.0, 0.15, 0.4])
def test_fifty_rounds_stop_where_none_finds_anything_and_give_all_masks(
    tau: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.stack([scene(seed, (16, 17)) for seed in range(4)])
    expected = [reference_maskcut(image.numpy(), (16, 17), tau, 50) for image in images]
    module = sys.modules[maskcut.__module__]
    rounds = []
    is_constant = module.is_constant
    monkeypatch.setattr(
        module, "is_constant", lambda graphs: rounds.append(len(graphs)) or is_constant(graphs)
    )
    results = maskcut_batch(images, (16, 17), tau, 50)
    for result, masks in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result.masks, masks)
        number = int(result.masks.flatten(1).any(dim=1).nonzero()[-1])
        assert result.eigenvectors[-1].equal(result.eigenvectors[number + 1])
        assert result.eigenvectors[-1].any()
    assert len(rounds) < 15


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    ("features", "grid"),
    [
        (torch.ones(3, 12), (3, 4)),  # all above tau
        (torch.eye(12), (3, 4)),  # all below
        (torch.zeros(3, 12), (3, 4)),
        (torch.ones(3, 1), (1, 1)),
        (torch.tensor([[1.0, -1.0]]), (1, 2)),
    ],
)
def test_maskcut_of_a_constant_image_has_no_mask(
    features: torch.Tensor,
    grid: tuple[int, int],
    solver: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        result = maskcut(features, grid, solver=solver)
    assert result.masks.shape == result.eigenvectors.shape == (0, *grid)
    assert result.is_constant
    assert "constant image" in caplog.text


def test_maskcut_accepts_half_precision_and_gradients() -> None:
    features = scene(3, (16, 17)).bfloat16()
    expected = maskcut(features.double(), (16, 17)).masks
    assert maskcut(features.requires_grad_(), (16, 17)).masks.equal(expected)


def batch_of(kind: str, reference: Path) -> tuple[torch.Tensor, tuple[int, int]]:
    """Features of several images: of the reference vectors, or drawn; some are constant."""
    if kind == "drawn":
        images = [scene(seed, (16, 17)) for seed in range(4)]
        nothing = torch.ones_like(images[0])
        halves = torch.ones_like(images[0])
        halves[:, :100] = -1
        return torch.stack([nothing, *images[:2], halves, *images[2:]]), (16, 17)
    found = []
    for number in {"even": (0, 2, 4), "odd": (1, 3, 5)}[kind]:
        with np.load(reference / f"maskcut_scene{number}.npz") as file:
            found.append(torch.from_numpy(file["features"]))
            grid = tuple(file["grid"].tolist())
    return torch.stack(found), grid


@pytest.mark.parametrize("device", ["cpu", "cpu as a GPU", "cuda"])
@pytest.mark.parametrize("tau", [-0.2, 0.15, 0.2])
@pytest.mark.parametrize("kind", ["even", "odd", "drawn"])
def test_images_of_a_batch_are_cut_as_on_their_own(
    kind: str, tau: float, device: str, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    features, grid = batch_of(kind, reference)
    expected = [maskcut(image, grid, tau, 4) for image in features]
    if device == "cpu as a GPU":
        module = sys.modules[lanczos.__module__]
        monkeypatch.setattr(module, "readable", lambda connected: connected.float())
    results = maskcut_batch(features.to(device.split()[0]), grid, tau, 4)
    assert len(results) == len(expected)
    for found, alone in zip(results, expected, strict=True):
        assert found.masks.device.type == device.split()[0]
        assert found.masks.cpu().equal(alone.masks)
        assert found.eigenvectors.cpu().sub(alone.eigenvectors).abs().le(1e-9).all()
    if kind == "drawn":
        assert [result.is_constant for result in results] == [True] + 5 * [False]


def test_a_batch_without_an_image_has_no_result() -> None:
    assert maskcut_batch(torch.zeros(0, 8, 12), (3, 4)) == []
    with pytest.raises(InputError, match=r"expected shape \(B, D, n\), found \(8, 12\)"):
        maskcut_batch(torch.zeros(8, 12), (3, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid_size": (3, 5)}, "3 x 5 patches need features of shape (D, 15), found (2, 12)"),
        ({"grid_size": (-3, -4)}, "-3 x -4"),
        ({"features": torch.zeros(0, 12)}, "(1, 0, 12)"),
        ({"features": torch.zeros(2, 0), "grid_size": (0, 4)}, "0 x 4"),
        ({"features": torch.full((2, 12), float("nan"))}, "NaN or infinity in 12 of 12 patches"),
        ({"tau": 1.5}, "tau: expected a cosine inside (-1, 1), found 1.5"),
        ({"max_masks": 0}, "max_masks: expected at least 1, found 0"),
        ({"solver": "power"}, "('lanczos', 'dense'), found 'power'"),
    ],
)
def test_maskcut_refuses(change: dict[str, object], message: str) -> None:
    arguments = {"features": torch.randn(2, 12), "grid_size": (3, 4)} | change
    with pytest.raises(InputError) as error:
        maskcut(**arguments)  # type: ignore[arg-type]
    assert message in str(error.value)
