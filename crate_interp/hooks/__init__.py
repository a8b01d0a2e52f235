"""What can be read inside a backbone, and the recorder that reads it."""

from crate_interp.hooks.attention import attention_chunks, attention_map, attention_token
from crate_interp.hooks.observer import Observer
from crate_interp.hooks.recorder import Recorder, record
from crate_interp.hooks.resolution import any_resolution, check_stride, grid_size_of
from crate_interp.hooks.sites import Site, available_sites, default_feature

__all__ = [
    "Observer",
    "Recorder",
    "Site",
    "any_resolution",
    "attention_chunks",
    "attention_map",
    "attention_token",
    "available_sites",
    "check_stride",
    "default_feature",
    "grid_size_of",
    "record",
]
