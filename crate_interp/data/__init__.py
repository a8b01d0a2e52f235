"""Reading images and COCO annotations, writing COCO entries, fetching data sets."""

from crate_interp.data.class_folders import ClassFolders, open_class_folders
from crate_interp.data.coco import (
    ImageRecord,
    ImageSet,
    coco_annotation_file,
    data_folder,
    open_coco,
)
from crate_interp.data.coco_files import CocoFile, read_coco
from crate_interp.data.export import Export, ExportedImage
from crate_interp.data.folders import list_images
from crate_interp.data.image_files import ImageReadError
from crate_interp.data.image_sets import open_images
from crate_interp.data.images import (
    ResizedImage,
    preprocess,
    read_image,
    resize_image,
    shrunk,
    to_rgb,
)
from crate_interp.data.label_maps import (
    VOID,
    LabelledKind,
    LabelledSet,
    class_masks,
    read_label_map,
    truth_masks,
)
from crate_interp.data.labelled import labelled_kinds, open_labelled
from crate_interp.data.labelled.ade20k import open_ade20k
from crate_interp.data.labelled.demo import open_labelled_scenes
from crate_interp.data.labelled.salient_objects import open_saliency
from crate_interp.data.labelled.voc import VOC_CLASSES, open_voc
from crate_interp.data.rle import annotations_of, decode_mask, encode_masks, results_of
from crate_interp.data.scenes import draw_scene, write_scenes

__all__ = [
    "VOC_CLASSES",
    "VOID",
    "ClassFolders",
    "CocoFile",
    "Export",
    "ExportedImage",
    "ImageReadError",
    "ImageRecord",
    "ImageSet",
    "LabelledKind",
    "LabelledSet",
    "ResizedImage",
    "annotations_of",
    "class_masks",
    "coco_annotation_file",
    "data_folder",
    "decode_mask",
    "draw_scene",
    "encode_masks",
    "labelled_kinds",
    "list_images",
    "open_ade20k",
    "open_class_folders",
    "open_coco",
    "open_images",
    "open_labelled",
    "open_labelled_scenes",
    "open_saliency",
    "open_voc",
    "preprocess",
    "read_coco",
    "read_image",
    "read_label_map",
    "resize_image",
    "results_of",
    "shrunk",
    "to_rgb",
    "truth_masks",
    "write_scenes",
]
