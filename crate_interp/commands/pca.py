"""The command `pca`: principal components of the patches of many images together, as colours."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import IO, Any

import numpy as np
from jaxtyping import Float

from crate_interp.analysis import JointPCA, joint_pca
from crate_interp.config import PcaConfig
from crate_interp.data import ImageRecord, ImageSet, ResizedImage
from crate_interp.engine import StageClock
from crate_interp.errors import InputError
from crate_interp.hooks import Observer, blocks_of
from crate_interp.runs.figure_files import check_figure_path, list_files, save_figure, small_image
from crate_interp.runs.inference import describe_model
from crate_interp.runs.number_files import about_of, write_arrays
from crate_interp.runs.observation import feature_of, load_observer, observe, open_pictures
from crate_interp.structures import Activations
from crate_interp.visualization import pca_figure

__all__ = ["run"]

SHOWN = 24  # images in the figure; the numbers are of all
PICTURE_SIDE = 640  # pixels


def run(config: PcaConfig) -> int:
    """Draw the figure, as PNG and PDF, and write its numbers, those of all images, as npz.

    Features wait in a file without a name beside the output: memory does not grow with them.

    Returns:
        0, or 1 if an image could not be read.

    Raises:
        InputError: No image, none that can be read, or a feature, a block or a foreground that
            there is not.
    """
    check_figure_path(config.output)
    images = open_pictures(config)
    observer = load_observer(config)
    feature = feature_of(config, observer).value
    config.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=config.output.parent) as file:
        features, seen = _collect(observer, images, feature, config, file)
        if not seen:
            raise InputError(f"{images.name}: none of the {len(images)} images could be read")
        found = joint_pca(features, observer.grid_hw, config.foreground)
    block = config.block % len(blocks_of(observer.model))
    source = f"{describe_model(config.model, config.weights)}, {feature} of block {block}"
    note = _describe(found, source, len(seen))
    pictures = [small_image(record.read(), PICTURE_SIDE) for record in seen[:SHOWN]]
    shown = slice(SHOWN)
    figure = pca_figure(
        pictures,
        found.grey[shown],
        None if found.threshold is None else found.foreground[shown],
        found.rgb[shown],
        note,
        config.width_inches,
    )
    drawn = save_figure(figure, config.output, config)
    numbers = config.output.with_suffix(".npz")
    write_arrays(numbers, _numbers_of(found, seen), about_of(config, observer))
    print(f"{note}\n{list_files(drawn)}: {len(pictures)} of {len(seen)} images")
    print(f"{numbers.name}: grey, foreground, components and colours of all {len(seen)}")
    return int(len(seen) < len(images))


class _FeatureFile:
    """Features of images in a file, which is gone through one image at a time."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._shape: tuple[int, ...] = ()
        self._count = 0

    def append(self, features: Float[np.ndarray, "n D"]) -> None:
        self._shape = features.shape
        self._file.write(np.ascontiguousarray(features, np.float32).tobytes())
        self._count += 1

    def __iter__(self) -> Iterator[Float[np.ndarray, "n D"]]:
        size = 4 * math.prod(self._shape)
        for number in range(self._count):
            self._file.seek(number * size)
            yield np.frombuffer(self._file.read(size), np.float32).reshape(self._shape)


def _collect(
    observer: Observer,
    images: ImageSet,
    feature: str,
    config: PcaConfig,
    file: IO[bytes],
) -> tuple[_FeatureFile, list[ImageRecord]]:
    """Put the features of the images into the file; return which images could be read."""

    def finish(
        _: ImageRecord, __: ResizedImage, activations: Activations, ___: StageClock
    ) -> Float[np.ndarray, "n D"]:
        patches = activations.patch_features(feature, config.block)[0]
        tokens: Float[np.ndarray, "n D"] = patches.T.float().cpu().numpy()
        return tokens

    features, seen = _FeatureFile(file), []
    outcomes = observe(observer, images.records, [feature], [config.block], finish, config)
    with closing(outcomes):
        for image in outcomes:
            if image.result is not None:
                features.append(image.result)
                seen.append(image.record)
    return features, seen


def _describe(found: JointPCA, source: str, images: int) -> str:
    """One line that says what the colours are."""
    shares = ", ".join(f"{share:.0%}" for share in found.shares)
    if found.threshold is None:
        return f"{source}; {images} images. Shares of the variance: {shares}."
    return (
        f"{source}; {images} images. Component 1 has {found.first_share:.0%} of the variance; the "
        f"foreground is where it is above {found.threshold:.2f}. Colours: components of the "
        f"foreground, with {shares} of its variance."
    )


def _numbers_of(found: JointPCA, seen: Sequence[ImageRecord]) -> dict[str, Any]:
    return {
        "file_names": np.array([record.file_name for record in seen]),
        "grey": found.grey,
        "threshold": np.nan if found.threshold is None else found.threshold,
        "foreground": found.foreground,
        "components": found.components,
        "rgb": found.rgb,
        "first_share": found.first_share,
        "shares": found.shares,
    }
