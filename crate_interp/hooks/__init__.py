"""Reading and changing what a backbone computes on the way."""

from crate_interp.hooks.attention_maps import attention_chunks, attention_map, attention_token
from crate_interp.hooks.classifier import (
    check_classifier,
    choose_classes,
    head_input,
    patch_classes,
    scores_from,
)
from crate_interp.hooks.dictionary import (
    AtomContributions,
    atom_contributions,
    written_dictionary,
)
from crate_interp.hooks.edits import Edit, MeanEdit, PatchIn, ScaleEdit, SetEdit, ZeroEdit
from crate_interp.hooks.interventions import (
    Target,
    channels_of,
    count_units,
    intervene,
)
from crate_interp.hooks.observer import Observer
from crate_interp.hooks.recorder import Recorder, record
from crate_interp.hooks.resolution import any_resolution, check_stride, grid_size_of
from crate_interp.hooks.sites import (
    Site,
    anatomy_at,
    atom_site,
    available_sites,
    blocks_of,
    default_feature,
)

__all__ = [
    "AtomContributions",
    "Edit",
    "MeanEdit",
    "Observer",
    "PatchIn",
    "Recorder",
    "ScaleEdit",
    "SetEdit",
    "Site",
    "Target",
    "ZeroEdit",
    "anatomy_at",
    "any_resolution",
    "atom_contributions",
    "atom_site",
    "attention_chunks",
    "attention_map",
    "attention_token",
    "available_sites",
    "blocks_of",
    "channels_of",
    "check_classifier",
    "check_stride",
    "choose_classes",
    "count_units",
    "default_feature",
    "grid_size_of",
    "head_input",
    "intervene",
    "patch_classes",
    "record",
    "scores_from",
    "written_dictionary",
]

# Former names of the edits, for code that was written with them.
Zero, Set, Scale, Mean, Patch = ZeroEdit, SetEdit, ScaleEdit, MeanEdit, PatchIn
