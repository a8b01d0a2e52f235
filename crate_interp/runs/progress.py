"""The progress bar of the commands."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

__all__ = ["progress_bar"]


def progress_bar(**options: Any) -> tqdm[Any]:
    """Open a bar on standard error, which a terminal sees move and a log file now and then.

    Args:
        **options: Options of tqdm.
    """
    interval = 0.1 if sys.stderr.isatty() else 30  # seconds; a log file wants fewer lines
    return tqdm(**options, mininterval=interval)
