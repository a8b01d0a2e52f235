"""One segmenter a file; `crate_interp.segmentation.segmenter` finds them by the file's name."""
