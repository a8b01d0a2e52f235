"""The commands `benchmark ...`: a model on labelled images, by the protocols of papers."""
