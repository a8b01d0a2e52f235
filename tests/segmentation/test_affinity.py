import numpy as np
import pytest
import torch

from crate_interp.errors import InputError
from crate_interp.segmentation import affinity


def reference_affinity(features: np.ndarray, tau: float) -> np.ndarray:
    columns = features.astype(np.float64).T
    connected = np.zeros((len(columns), len(columns)), dtype=bool)
    for i, first in enumerate(columns):
        for j, second in enumerate(columns):
            lengths = np.sqrt(first @ first) * np.sqrt(second @ second)
            connected[i, j] = (first @ second / lengths if lengths > 0 else 0.0) > tau
    return connected


@pytest.mark.parametrize("tau", [-0.3, 0.0, 0.15, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_affinity_matches_loop(tau: float, dtype: torch.dtype) -> None:
    features = torch.randn(5, 23, generator=torch.Generator().manual_seed(0)).to(dtype)
    features[:, [3, 11]] = 0
    found = affinity(features, tau)
    np.testing.assert_array_equal(found, reference_affinity(features.double().numpy(), tau))
    assert found[3].eq(tau < 0).all()  # a zero feature has cosine 0, also with itself


def test_affinity_over_several_blocks_is_symmetric_and_equal_to_one_product() -> None:
    features = torch.randn(16, 1100, generator=torch.Generator().manual_seed(1))
    found = affinity(features, 0.15)
    unit = torch.nn.functional.normalize(features.double(), dim=0)
    assert found.equal(unit.T @ unit > 0.15)
    assert found.equal(found.T)


def test_affinity_does_not_depend_on_the_scale_of_a_feature() -> None:
    features = torch.randn(8, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    scales = 10.0 ** torch.linspace(-300, 300, 50, dtype=torch.float64)
    assert affinity(features * scales, 0.2).equal(affinity(features, 0.2))


def test_affinity_compares_strictly() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert affinity(features, 0.0).equal(torch.eye(2, dtype=torch.bool))
    assert affinity(features, -1e-12).all()


@pytest.mark.parametrize(
    ("features", "tau", "message"),
    [
        (torch.ones(3, 0), 0.2, "found torch.float32 of shape (3, 0)"),
        (torch.ones(3), 0.2, "(3,)"),
        (torch.ones(3, 4, dtype=torch.int64), 0.2, "torch.int64"),
        (torch.tensor([[1.0, 2.0, float("nan")]]), 0.2, "1 of 3 patches, the first being patch 2"),
        (torch.tensor([[1.0, float("inf"), 0.0]]), 0.2, "the first being patch 1"),
        (torch.ones(3, 4), 1.0, "found 1.0"),
        (torch.ones(3, 4), -1.0, "found -1.0"),
        (torch.ones(3, 4), float("nan"), "found nan"),
    ],
)
def test_affinity_refuses(features: torch.Tensor, tau: float, message: str) -> None:
    with pytest.raises(InputError) as error:
        affinity(features, tau)
    assert message in str(error.value)
