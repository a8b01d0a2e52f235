"""One segmenter per file, named as its file; the table is `segmentation.segmenter.SEGMENTERS`."""
