"""Reading images and COCO annotations, writing COCO entries, fetching data sets."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
