"""The frame of every command over images: opening, observing, journal, resuming, files."""

from crate_interp.runs.command import Command, ImageCommand, ImageFilesCommand, Reading
from crate_interp.runs.journal import Entry, JournalEntry
from crate_interp.runs.outputs import Arrays, Conclusion, Drawing, Json, Picture, Table, Text

__all__ = [
    "Arrays",
    "Command",
    "Conclusion",
    "Drawing",
    "Entry",
    "ImageCommand",
    "ImageFilesCommand",
    "JournalEntry",
    "Json",
    "Picture",
    "Reading",
    "Table",
    "Text",
]
