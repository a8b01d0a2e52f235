"""The files that the command `attention` writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from PIL import Image
from torch import Tensor

from crate_interp.analysis import AttentionStatistics, head_agreement, uniform_distance
from crate_interp.config import AttentionConfig
from crate_interp.data import ImageRecord, ImageSet
from crate_interp.errors import InputError
from crate_interp.files import write_whole
from crate_interp.hooks import Observer
from crate_interp.runs.figure_files import list_files, save_figure
from crate_interp.runs.inference import describe_model
from crate_interp.runs.number_files import about_of, naming, write_arrays, write_table
from crate_interp.runs.picture_names import file_stems
from crate_interp.segmentation import attention_masks
from crate_interp.visualization import (
    attention_curves,
    draw_heat,
    head_figure,
    layer_figure,
    maps_figure,
)

__all__ = ["AttentionFiles", "ObservedImage"]

_OF_ALL_IMAGES = {"agreement", "curves", "rollout", "semantics"}  # names of files
MOST_IMAGES = 12  # across a figure
AUTO_HEADS = 4
COLOURS = "colours from 0 to the 99th percentile of each map"
SMALL_HEIGHT = 128  # of a map on the layer sheet, pixels


@dataclass(frozen=True, eq=False)
class ObservedImage:
    """What is read of one image.

    Attributes:
        rgb: The image at the size of the figures.
        original_hw: Its height and width as displayed, pixels.
        maps: Attention to the patches at the block that is read.
        layers: The same at all blocks, where the layer sheet is wanted.
        statistics: Where curves or rollout are wanted; a batch of one.
        keys: `attended_keys`, where the agreement of heads is wanted.
    """

    rgb: UInt8[np.ndarray, "H W 3"]
    original_hw: tuple[int, int]
    maps: Float[np.ndarray, "K h w"]
    layers: Float[np.ndarray, "L K h w"] | None
    statistics: AttentionStatistics | None
    keys: Float[Tensor, "K+1 D"] | None


class AttentionFiles:
    """Writes the files of each image as it comes, and those of all images at the end.

    Maps are kept only of the first images, which the figures across images show.

    Args:
        config: Of the command.
        observer: With the model.
        images: All of them.
        block: That is read, from 0.
    """

    def __init__(
        self, config: AttentionConfig, observer: Observer, images: ImageSet, block: int
    ) -> None:
        self._config, self._observer, self._block = config, observer, block
        self._names = _names_of(images.records)
        self._about = about_of(config, observer)
        self._shown: list[tuple[str, ObservedImage]] = []
        self._rollouts: list[Float[np.ndarray, "L h w"]] = []
        self._keys: list[Float[Tensor, "K+1 D"]] = []
        self._measured: list[dict[str, Float[np.ndarray, ...]]] = []
        self._written: list[str] = []

    def add(self, record: ImageRecord, image: ObservedImage) -> None:
        """Write the files of one image, and keep what the figures of all images need."""
        config, name = self._config, self._names[record.image_id]
        maps = self._of_heads(image.maps)
        kept = attention_masks(
            torch.from_numpy(maps).flatten(1), config.threshold_by, config.threshold
        )
        masks = kept.numpy().reshape(maps.shape)
        numbers: dict[str, Any] = {"maps": maps, "masks": masks}
        if "heads" in config.figure:
            self._draw_heads(name, image, maps, masks)
        if image.layers is not None:
            numbers["layers"] = self._of_heads(image.layers)
            self._draw_layers(name, image, numbers["layers"])
        if image.statistics is not None:
            numbers["rollout"], measured = self._measure(image.statistics)
            numbers |= measured
            self._measured.append(measured)
            self._rollouts += [numbers["rollout"]] if len(self._shown) < MOST_IMAGES else []
        if image.keys is not None:
            self._keys.append(image.keys)
        if len(self._shown) < MOST_IMAGES:
            self._shown.append((name, image))
        write_arrays(config.output / f"{name}.npz", numbers, self._about)

    def finish(self) -> None:
        """Write the files of all images together.

        Raises:
            InputError: Every image failed, or too few are left to compare heads on.
        """
        if not self._shown:
            raise InputError("expected an image or more that can be used, found none")
        if "semantics" in self._config.figure:
            self._draw_semantics()
        if "rollout" in self._config.figure:
            blocks = self._config.rollout_numbers or list(range(len(self._rollouts[0])))
            maps = [of_image[blocks] for of_image in self._rollouts]
            names = [f"block {block}" for block in blocks]
            self._draw_across("rollout", maps, names, "rollout through blocks 0 to each")
        if "curves" in self._config.figure:
            self._draw_curves()

    def _draw_heads(
        self,
        name: str,
        image: ObservedImage,
        maps: Float[np.ndarray, "K h w"],
        masks: Bool[np.ndarray, "K h w"],
    ) -> None:
        config = self._config
        query_yx = None
        if config.query_yx is not None:  # the middle of that pixel, in the image of the figure
            scales = np.divide(image.rgb.shape[:2], image.original_hw)
            y, x = (np.array(config.query_yx) + 0.5) * scales
            query_yx = float(y), float(x)
        on_picture = self._on_picture(image, maps)
        shown = dict(zip(self._head_names(len(maps)), on_picture, strict=True))
        by = {"mass": "of the mass", "entries": "of patches"}[config.threshold_by]
        figure = head_figure(
            image.rgb,
            shown,
            self._on_picture(image, masks),
            f"{config.threshold:.0%} {by}",
            self._note(f"block {self._block}", COLOURS),
            query_yx,
            config.width_inches,
        )
        self._save(figure, f"{name}-heads")
        self._write_panels(f"{name}-heads", {"image": image.rgb, **_heats_of(shown)})

    def _draw_layers(
        self, name: str, image: ObservedImage, layers: Float[np.ndarray, "L K h w"]
    ) -> None:
        maps = [self._on_picture(image, of_block, SMALL_HEIGHT) for of_block in layers]
        note, names = self._note(COLOURS), self._head_names(layers.shape[1])
        self._save(
            layer_figure(image.rgb, maps, names, note, self._config.width_inches), f"{name}-layers"
        )

    def _draw_semantics(self) -> None:
        heads = self._config.head_numbers
        names = [f"head {head}" for head in heads or ()]
        if heads is None:
            scores = head_agreement(torch.stack(self._keys)).tolist()
            order = sorted(range(len(scores)), key=lambda head: -scores[head])
            heads = order[:AUTO_HEADS]
            names = [f"head {head} ({scores[head]:.2f})" for head in heads]
            rows = [(head, scores[head]) for head in order]
            self._write_table("agreement", ("head", "agreement"), rows)
            print(
                f"Agreement of heads over {len(self._keys)} images. What a head attends to in an "
                "image is the mean key of\nits patches, weighted by the head's attention, less the "
                "mean key of all patches of all images;\nthe head's own keys are left out. "
                "Agreement is the mean cosine over all pairs of images:"
            )
            print("\n".join(f"  head {head:2d}  {score:6.3f}" for head, score in rows))
        maps = [image.maps[heads] for _, image in self._shown]
        scored = [] if self._config.head_numbers else ["in brackets: agreement over all images"]
        self._draw_across("semantics", maps, names, f"block {self._block}", *scored)

    def _draw_across(
        self,
        name: str,
        maps: Sequence[Float[np.ndarray, "M h w"]],
        names: Sequence[str],
        *notes: str,
    ) -> None:
        shown = [
            self._on_picture(image, of_image)
            for (_, image), of_image in zip(self._shown, maps, strict=True)
        ]
        pictures, titles = (
            [image.rgb for _, image in self._shown],
            [name for name, _ in self._shown],
        )
        count = f"the first {len(shown)} of {len(self._names)} images"
        note = self._note(*notes, *([count] if len(shown) < len(self._names) else []), COLOURS)
        width = self._config.width_inches
        self._save(maps_figure(pictures, shown, titles, names, note, width), name)

    def _draw_curves(self) -> None:
        geometry = self._observer.geometry(self._observer.input_hw)
        spacing_hw = geometry.stride_hw or geometry.patch_hw
        patches = geometry.grid_hw[0] * geometry.grid_hw[1]
        model: Any = self._observer.model
        measured = {
            key: np.stack([of_image[key] for of_image in self._measured])
            for key in self._measured[0]
        }
        figure = attention_curves(
            **measured,
            uniform=(
                uniform_distance(geometry.grid_hw, spacing_hw),
                log(patches + model.num_prefix_tokens),
                log(patches),
            ),
            note=self._note(
                f"mean over images: {len(self._measured)}",
                f"distance in pixels of the input, a patch has {geometry.patch_hw[0]}",
            ),
            width=self._config.width_inches,
        )
        self._save(figure, "curves")
        mean = {key: values.mean(axis=0) for key, values in measured.items()}
        deviation = {key: values.std(axis=0) for key, values in measured.items()}
        self._write_table(
            "curves",
            (
                *("block", "head", "distance_pixels", "distance_pixels_std", "distance_patches"),
                *("entropy_nats", "entropy_nats_std"),
            ),
            (
                (
                    *(*place, mean["distance"][place], deviation["distance"][place]),
                    mean["distance"][place] / geometry.patch_hw[0],
                    *(mean["entropy"][place], deviation["entropy"][place]),
                )
                for place in np.ndindex(mean["distance"].shape)
            ),
        )
        rollout = zip(mean["rollout_entropy"], deviation["rollout_entropy"], strict=True)
        self._write_table(
            "rollout",
            ("block", "entropy_nats", "entropy_nats_std"),
            ((block, *values) for block, values in enumerate(rollout)),
        )

    def _measure(
        self, statistics: AttentionStatistics
    ) -> tuple[Float[np.ndarray, "L h w"], dict[str, Float[np.ndarray, ...]]]:
        """Rollout on the patch grid, and what the curves show of an image."""
        geometry = self._observer.geometry(self._observer.input_hw)
        rows, columns = geometry.grid_hw
        on_patches = statistics.rollout[0, :, -rows * columns :].cpu().double()
        shares = on_patches / on_patches.sum(dim=1, keepdim=True)
        return on_patches.unflatten(1, (rows, columns)).numpy(), {
            "distance": statistics.distance[0].cpu().numpy(),
            "entropy": statistics.entropy[0].cpu().numpy(),
            "rollout_entropy": torch.special.entr(shares).sum(dim=1).numpy(),
        }

    def _of_heads(self, maps: Float[np.ndarray, "*L K h w"]) -> Float[np.ndarray, "*L M h w"]:
        """The maps of the heads that `--head` asks for."""
        head = self._config.head
        if head == "all":
            return maps
        return maps.mean(axis=-3, keepdims=True) if head == "mean" else maps[..., [head], :, :]

    def _head_names(self, count: int) -> list[str]:
        head = self._config.head
        if head == "all":
            return [f"head {number}" for number in range(count)]
        return ["mean of heads"] if head == "mean" else [f"head {head}"]

    def _on_picture(
        self, image: ObservedImage, maps: Shaped[np.ndarray, "M h w"], height: int | None = None
    ) -> Shaped[np.ndarray, "M H W"]:
        """Bring maps from the grid to the image of the figure, or to one of another height."""
        rows, columns = image.rgb.shape[:2]
        shown_hw = (rows, columns) if height is None else (height, max(1, height * columns // rows))
        geometry = self._observer.geometry(shown_hw)
        return geometry.grid_to_original(maps)

    def _note(self, *parts: str) -> str:
        config = self._config
        query = f"attention of the patch at {config.query} (y,x)"
        who = "attention of the class token" if config.query is None else query
        stride = [] if config.stride is None else [f"stride {config.stride}"]
        size = f"{self._observer.size} px"
        return " · ".join(
            (describe_model(config.model, config.weights), who, *parts, size, *stride)
        )

    def _save(self, figure: Any, name: str) -> None:
        path = self._config.output / f"{name}.png"
        print(list_files(save_figure(figure, path, self._config)))

    def _write_panels(self, name: str, panels: Mapping[str, UInt8[np.ndarray, "H W 3"]]) -> None:
        """Write images without words, to be placed in a page of one's own."""
        folder = self._config.output / name
        folder.mkdir(parents=True, exist_ok=True)
        for panel, rgb in panels.items():
            path = folder / f"{panel}.png"
            with naming(path), write_whole(path) as file:
                Image.fromarray(rgb).save(file, "PNG")
        print(f"{folder}: {', '.join(panels)} (PNG)")

    def _write_table(
        self, name: str, header: Sequence[str], rows: Iterable[Sequence[float]]
    ) -> None:
        write_table(self._config.output / f"{name}.csv", header, rows, self._about)


def _heats_of(
    maps: Mapping[str, Float[np.ndarray, "H W"]],
) -> dict[str, UInt8[np.ndarray, "H W 3"]]:
    """Coloured maps by the names of their files."""
    return {name.replace(" ", "-"): draw_heat(values) for name, values in maps.items()}


def _names_of(records: Sequence[ImageRecord]) -> dict[int, str]:
    """Name of each image's files by its id."""
    stems = file_stems([record.file_name for record in records], _OF_ALL_IMAGES)
    return {record.image_id: stem for record, stem in zip(records, stems, strict=True)}
