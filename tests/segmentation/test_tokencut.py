import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from crate_interp.errors import InputError
from crate_interp.segmentation import tokencut

REFERENCE_FILES = [
    *("astronaut", "chelsea", "coffee", "rocket"),
    *(f"scene{number}" for number in range(6)),
]


@pytest.mark.parametrize("name", REFERENCE_FILES)
@pytest.mark.parametrize("solver", ["lanczos", "dense"])
def test_tokencut_reproduces_reference_vectors(name: str, solver: str, reference: Path) -> None:
    with np.load(reference / f"maskcut_{name}.npz") as file:
        features, grid = torch.from_numpy(file["features"]), tuple(file["grid"].tolist())
        tau, expected, vector = float(file["tau"]), file["tokencut_mask"], file["eigenvectors"][0]
    result = tokencut(features, grid, tau, solver=solver)
    np.testing.assert_array_equal(result.mask, expected)
    found = result.eigenvector.numpy()
    sign = np.sign((found * vector).sum())
    np.testing.assert_allclose(sign * found, vector, rtol=0, atol=1e-5 * np.abs(vector).max())
    rows, columns = expected.any(axis=1).nonzero()[0], expected.any(axis=0).nonzero()[0]
    assert result.box_xyxy == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    assert result.seed is not None
    assert expected[result.seed]
    assert np.abs(found)[result.seed] == pytest.approx(np.abs(found).max(), rel=1e-9)


def test_tokencut_has_no_corner_rule() -> None:
    inner = torch.zeros(12, 15, dtype=torch.bool)
    inner[1:-1, 1:-1] = True
    features = torch.stack([inner, ~inner]).reshape(2, -1).float()
    mask, _, seed, box = tokencut(features, (12, 15))
    assert mask.equal(~inner)  # the frame, although it holds the four corners
    assert seed == (0, 0)
    assert box == (0, 0, 15, 12)


def test_tokencut_of_a_constant_image_has_no_object(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        result = tokencut(torch.ones(3, 12), (3, 4))
    assert not result.mask.any()
    assert not result.eigenvector.any()
    assert result.seed is None
    assert result.box_xyxy is None
    assert "constant image" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid_size": (4, 4)}, "(D, 16), found (2, 12)"),
        ({"features": torch.zeros(2, 0), "grid_size": (0, 0)}, "0 x 0"),
        ({"tau": -1}, "found -1"),
        ({"solver": ""}, "found ''"),
    ],
)
def test_tokencut_refuses(change: dict[str, object], message: str) -> None:
    arguments = {"features": torch.randn(2, 12), "grid_size": (3, 4)} | change
    with pytest.raises(InputError) as error:
        tokencut(**arguments)  # type: ignore[arg-type]
    assert message in str(error.value)
