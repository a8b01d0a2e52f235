"""A folder of 64 scenes, sorted by class as a data set of pictures is."""

import numpy as np
import pytest
from PIL import Image

from crate_interp.data.scene_categories import CATEGORIES
from crate_interp.data.scenes import training_batch, write_scenes

TINY = {"embed_dim": 32, "depth": 2, "num_heads": 2}


@pytest.fixture(autouse=True)
def small_models(one_thread):
    """All models of these tests are small."""


@pytest.fixture(scope="session")
def probed_pictures(tmp_path_factory):
    """`FOLDER/tiny`, two pictures with masks in `FOLDER/annotations`."""
    folder = tmp_path_factory.mktemp("probe") / "set"
    write_scenes(folder, count=2, seed=5)
    (folder / "demo").rename(folder / "tiny")
    annotations = folder / "annotations" / "instances_demo.json"
    annotations.rename(annotations.with_name("instances_tiny.json"))
    return folder / "tiny"


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory):
    """`train/CLASS/NUMBER.png`, 64 pictures of 32 pixels in eight classes."""
    root = tmp_path_factory.mktemp("pictures")
    images, labels = training_batch(np.random.default_rng(0), 64, 32, (1, 1), (0.55, 1.0))
    for category in CATEGORIES:
        (root / "train" / category.name).mkdir(parents=True)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        name = root / "train" / CATEGORIES[label].name / f"{number}.png"
        Image.fromarray(image).save(name)
    return root


@pytest.fixture
def settings(picture_folder):
    """A recipe of seconds, as keyword arguments."""
    return {
        "model": "crate_alpha_demo",
        "model_args": TINY,
        "data": str(picture_folder),
        "validation_split": None,
        "image_size": 32,
        "crop_area": None,
        "batch_size": 16,
        "steps": 8,
        "workers": 0,
        "log_every": 1,
    }
