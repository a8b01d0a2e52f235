"""What several test files share: where the reference vectors and the optional real data lie."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

REFERENCE = Path(__file__).parent / "reference"
SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

# Processes of one run of tests share the cores.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture
def reference() -> Path:
    """Folder of the reference vectors."""
    return REFERENCE


@pytest.fixture
def sizes() -> dict[str, Any]:
    """Sizes of the reference models, as arguments of timm."""
    return {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 8, "img_size": 32}


@pytest.fixture
def shared_data() -> Path:
    """Folder of real pictures beside the checkout; the test is skipped where it is missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads that wait for one another cost more than they give to models of this size."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
