"""What lies at a path, asked also of names that no file can have: too long, or with a NUL."""

from __future__ import annotations

from pathlib import Path

__all__ = ["is_file", "is_folder"]


def is_file(path: Path) -> bool:
    """Whether there is a regular file."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether there is a folder."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
