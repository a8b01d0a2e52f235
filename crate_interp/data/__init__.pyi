from .class_folders import ClassFolders as ClassFolders
from .class_folders import open_class_folders as open_class_folders
from .coco import (
    ImageRecord as ImageRecord,
)
from .coco import (
    ImageSet as ImageSet,
)
from .coco import (
    coco_annotation_file as coco_annotation_file,
)
from .coco import (
    data_folder as data_folder,
)
from .coco import (
    open_coco as open_coco,
)
from .coco_files import CocoFile as CocoFile
from .coco_files import read_coco as read_coco
from .export import Export as Export
from .export import ExportedImage as ExportedImage
from .folders import list_images as list_images
from .image_files import ImageReadError as ImageReadError
from .image_sets import open_images as open_images
from .images import (
    ResizedImage as ResizedImage,
)
from .images import (
    preprocess as preprocess,
)
from .images import (
    read_image as read_image,
)
from .images import (
    resize_image as resize_image,
)
from .images import (
    shrunk as shrunk,
)
from .images import (
    to_rgb as to_rgb,
)
from .label_maps import (
    VOID as VOID,
)
from .label_maps import (
    LabelledKind as LabelledKind,
)
from .label_maps import (
    LabelledSet as LabelledSet,
)
from .label_maps import (
    class_masks as class_masks,
)
from .label_maps import (
    read_label_map as read_label_map,
)
from .label_maps import (
    truth_masks as truth_masks,
)
from .labelled import labelled_kinds as labelled_kinds
from .labelled import open_labelled as open_labelled
from .labelled.ade20k import open_ade20k as open_ade20k
from .labelled.demo import open_labelled_scenes as open_labelled_scenes
from .labelled.salient_objects import open_saliency as open_saliency
from .labelled.voc import VOC_CLASSES as VOC_CLASSES
from .labelled.voc import open_voc as open_voc
from .rle import (
    annotations_of as annotations_of,
)
from .rle import (
    decode_mask as decode_mask,
)
from .rle import (
    encode_masks as encode_masks,
)
from .rle import (
    results_of as results_of,
)
from .scenes import draw_scene as draw_scene
from .scenes import write_scenes as write_scenes
