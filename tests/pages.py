"""What two runs of the same settings share of their pages: all but the seconds."""

import re


def without_seconds(page: bytes) -> bytes:
    """Leave out the one section that has seconds."""
    parts = re.split(rb'<section id="seconds">.*?</section>', page, flags=re.DOTALL)
    assert len(parts) == 2
    return b"".join(parts)
