"""Images that the tests of runs share."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def pictures(tmp_path):
    """Folder of five images, beside one of their masks; and folders of classes of five others."""
    folder, masks = (tmp_path / "data" / name for name in ("images", "masks"))
    folder.mkdir(parents=True)
    masks.mkdir()
    rng = np.random.default_rng(0)
    for number in range(5):
        rgb = rng.integers(0, 60, (30, 40, 3), np.uint8)
        rgb[5:20, 5 * number : 5 * number + 15] = rng.integers(150, 255, 3)
        Image.fromarray(rgb).save(folder / f"{number}.png")
        mask = np.zeros((30, 40), np.uint8)
        mask[5:20, 5 * number : 5 * number + 15] = 255
        Image.fromarray(mask).save(masks / f"{number}.png")
        of_class = tmp_path / "classes" / ("images" if number % 2 else "others")
        of_class.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - rgb).save(of_class / f"{number}.png")
    return folder
