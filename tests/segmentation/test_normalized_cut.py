import logging
import sys

import numpy as np
import pytest
import scipy.linalg
import torch

from crate_interp.errors import InputError
from crate_interp.segmentation import BACKGROUND_WEIGHT, affinity, normalized_cut
from crate_interp.segmentation.exact_product import exact_product, readable
from crate_interp.segmentation.lanczos import lanczos
from crate_interp.segmentation.normalized_cut import first_largest, is_constant, second_eigenpairs


def reference_eigenpairs(connected: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues 2 and 3 with their eigenvectors, by LAPACK."""
    weights = np.where(connected.numpy(), 1.0, BACKGROUND_WEIGHT)
    degree = np.diag(weights.sum(axis=1))
    values, vectors = scipy.linalg.eigh(degree - weights, degree, subset_by_index=[1, 2])
    return values, vectors


def smooth_graph(seed: int, size: int = 20, tau: float = 0.2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 16, 5, 5, generator=generator)
    features = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    features = features + 0.3 * torch.randn(features.shape, generator=generator)
    return affinity(features.reshape(16, -1), tau)


def block_graph(*sizes: int) -> torch.Tensor:
    """Cliques that are not connected with each other."""
    return torch.block_diag(*(torch.ones(size, size) for size in sizes)).bool()


def painted_graph() -> torch.Tensor:
    connected = smooth_graph(3)
    connected[100:330] = False
    connected[:, 100:330] = False
    return connected


def isolated_graph() -> torch.Tensor:
    connected = smooth_graph(4)
    connected[7:390:9] = False
    connected[:, 7:390:9] = False
    return connected | torch.eye(400, dtype=torch.bool)


GRAPHS = {
    "smooth": smooth_graph(0),
    "dense": smooth_graph(1, tau=-0.3),
    "sparse": smooth_graph(2, tau=0.7),
    "painted": painted_graph(),
    "isolated patches": isolated_graph(),
    "disconnected": block_graph(230, 100, 70),
    "odd number of patches": smooth_graph(5, size=17),
}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("solver", ["lanczos", "dense"])
def test_normalized_cut_matches_lapack(name: str, solver: str) -> None:
    values, vectors = reference_eigenpairs(GRAPHS[name])
    cut = normalized_cut(GRAPHS[name], solver)
    expected = vectors[:, 0] * np.sign(vectors[np.abs(vectors[:, 0]).argmax(), 0])
    scale = np.abs(expected).max()
    np.testing.assert_allclose(cut.eigenvector / scale, expected / scale, rtol=0, atol=1e-9)
    assert cut.eigenvalue == pytest.approx(values[0], abs=1e-12)
    assert cut.residual < 1e-13
    assert (cut.iterations > 0) == (solver == "lanczos")


def test_normalized_cut_of_two_cliques_is_the_known_vector() -> None:
    eigenvector, eigenvalue, _, _ = normalized_cut(block_graph(300, 100))
    # Constant on both cliques and D-orthogonal to the constant vector.
    degrees = torch.tensor([300 + 100 * BACKGROUND_WEIGHT, 100 + 300 * BACKGROUND_WEIGHT])
    ratio = -float(100 * degrees[1] / (300 * degrees[0]))
    assert eigenvector[300:].sub(eigenvector[399]).abs().max() < 1e-12
    assert float(eigenvector[0] / eigenvector[399]) == pytest.approx(ratio, rel=1e-6)
    cut = 300 * 100 * BACKGROUND_WEIGHT
    expected = cut / (300 * float(degrees[0])) + cut / (100 * float(degrees[1]))
    assert eigenvalue == pytest.approx(expected, rel=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("solver", ["lanczos", "dense"])
def test_normalized_cut_on_a_gpu_equals_that_of_the_cpu(name: str, solver: str) -> None:
    expected, found = (
        normalized_cut(GRAPHS[name], solver),
        normalized_cut(GRAPHS[name].cuda(), solver),
    )
    scale = expected.eigenvector.abs().max()
    assert (found.eigenvector - expected.eigenvector).abs().max() <= 1e-9 * scale
    assert found.eigenvalue == pytest.approx(expected.eigenvalue, abs=1e-12)


@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_graphs_of_a_batch_leave_it_as_they_converge(
    dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if dtype is not None:  # as on a GPU
        monkeypatch.setattr(sys.modules[lanczos.__module__], "readable", lambda c: c.to(dtype))
    names = [name for name, graph in GRAPHS.items() if len(graph) == 400]
    graphs = [*(GRAPHS[name] for name in names), block_graph(100, 100, 100, 100)]
    cuts = second_eigenpairs(torch.stack(graphs), "lanczos")
    assert len({cut.iterations for cut in cuts}) > 3
    for cut, graph in zip(cuts, graphs, strict=True):
        alone = normalized_cut(graph)
        assert cut.iterations == alone.iterations
        difference = (cut.eigenvector - alone.eigenvector).abs().max()
        assert difference <= 1e-10 * alone.eigenvector.abs().max()
    assert cuts[-1].iterations == 0
    assert caplog.text.count("using the dense solver") == 2  # in the batch, and alone


def test_normalized_cut_is_deterministic() -> None:
    first, second = (normalized_cut(GRAPHS["smooth"]).eigenvector for _ in range(2))
    assert first.equal(second)


@pytest.mark.parametrize("sizes", [(150, 150, 150), (100, 100, 100, 100)])
def test_normalized_cut_falls_back_where_eigenvalues_coincide(
    sizes: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    connected = block_graph(*sizes)
    assert not lanczos(connected[None])[0].converged
    with caplog.at_level(logging.WARNING):
        cut = normalized_cut(connected)
    assert "using the dense solver" in caplog.text
    assert cut.eigenvector.equal(normalized_cut(connected, "dense").eigenvector)
    assert cut.iterations == 0


def test_normalized_cut_falls_back_where_convergence_is_slow(
    caplog: pytest.LogCaptureFixture,
) -> None:
    index = torch.arange(400)
    path = (index[:, None] - index).abs() <= 1
    with caplog.at_level(logging.WARNING):
        cut = normalized_cut(path)
    assert "Lanczos did not converge for 400 patches (100 steps" in caplog.text
    assert cut.eigenvector.equal(normalized_cut(path, "dense").eigenvector)


@pytest.mark.parametrize("dtype", [None, torch.float32])  # this machine's, and a GPU's
@pytest.mark.parametrize("num_patches", [256, 901])
def test_exact_product_is_exact_to_float64(num_patches: int, dtype: torch.dtype | None) -> None:
    generator = torch.Generator().manual_seed(0)
    connected = torch.rand(num_patches, num_patches, generator=generator) < 0.4
    connected = connected | connected.T
    rows = torch.randn(3, num_patches, dtype=torch.float64, generator=generator)
    rows[0] *= 10.0 ** torch.linspace(-12, 3, num_patches, dtype=torch.float64)
    rows[1] *= -1e-150
    read = readable(connected[None]) if dtype is None else connected[None].to(dtype)
    found = exact_product(rows[None], read)[0]
    magnitude = rows.abs().sum(dim=1, keepdim=True)
    expected = rows @ connected.double()
    assert ((found - expected).abs() / magnitude).max() < 1e-15


def test_exact_product_of_integers_has_no_error() -> None:
    connected = torch.ones(300, 300, dtype=torch.bool)
    rows = torch.stack([torch.arange(300.0), -(2.0 ** torch.arange(300).remainder(40))]).double()
    expected = rows @ connected.double()
    for read in (readable(connected[None]), connected[None].float()):
        assert exact_product(rows[None], read)[0].equal(expected)
        with torch.autocast("cpu"):
            assert exact_product(rows[None], read)[0].equal(expected)


def test_small_graphs_match_lapack() -> None:
    connected = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool()
    values, _ = reference_eigenpairs(connected)
    eigenvector, eigenvalue, _, _ = normalized_cut(connected)
    assert eigenvalue == pytest.approx(values[0])
    assert eigenvector[2] > 0 > eigenvector[0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1.0, 3.0, 3.0 - 1e-10], 1), ([3.0 - 1e-10, 3.0], 0), ([-2.0, -1.0, -1.0], 1), ([5.0], 0)],
)
def test_first_largest_takes_the_lowest_of_tied_indices(values: list[float], expected: int) -> None:
    assert first_largest(torch.tensor(values, dtype=torch.float64)) == expected


@pytest.mark.parametrize(
    ("connected", "expected"),
    [
        (torch.ones(4, 4), True),
        (torch.zeros(4, 4), True),
        (torch.eye(4), True),
        (torch.ones(1, 1), True),
        (torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]), False),
    ],
)
def test_is_constant(connected: torch.Tensor, expected: bool) -> None:
    assert is_constant(connected.bool()[None]) == [expected]


@pytest.mark.parametrize(
    ("connected", "solver", "message"),
    [
        (torch.ones(3, 4, dtype=torch.bool), "dense", "(3, 4)"),
        (torch.ones(3, 3), "dense", "torch.float32"),
        (torch.ones(3, 3, dtype=torch.bool).triu(), "dense", "symmetric"),
        (torch.ones(3, 3, dtype=torch.bool), "dense", "3 patches weigh the same"),
        (torch.zeros(0, 0, dtype=torch.bool), "dense", "0 patches"),
        (block_graph(2, 2), "arpack", "'arpack'"),
    ],
)
def test_normalized_cut_refuses(connected: torch.Tensor, solver: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        normalized_cut(connected, solver)  # type: ignore[arg-type]
    assert message in str(error.value)


def test_lanczos_leaves_the_number_of_threads_as_it_was() -> None:
    before = torch.get_num_threads()
    lanczos(GRAPHS["smooth"][None])
    assert torch.get_num_threads() == before
    with pytest.raises(RuntimeError):
        lanczos(torch.ones(3, 4, 5, dtype=torch.bool))
    assert torch.get_num_threads() == before
