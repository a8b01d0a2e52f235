"""Reading images and COCO annotations, writing COCO entries, fetching data sets."""

from crate_interp.data.class_folders import ClassFolders, open_class_folders
from crate_interp.data.coco import (
    ImageRecord,
    ImageSet,
    coco_annotation_file,
    data_folder,
    open_coco,
    open_images,
    read_coco,
)
from crate_interp.data.images import (
    ImageReadError,
    ResizedImage,
    list_images,
    preprocess,
    read_image,
    resize_image,
    to_rgb,
)
from crate_interp.data.rle import annotations_of, decode_mask, encode_masks, results_of
from crate_interp.data.scenes import draw_scene, write_scenes

__all__ = [
    "ClassFolders",
    "ImageReadError",
    "ImageRecord",
    "ImageSet",
    "ResizedImage",
    "annotations_of",
    "coco_annotation_file",
    "data_folder",
    "decode_mask",
    "draw_scene",
    "encode_masks",
    "list_images",
    "open_class_folders",
    "open_coco",
    "open_images",
    "preprocess",
    "read_coco",
    "read_image",
    "resize_image",
    "results_of",
    "to_rgb",
    "write_scenes",
]
