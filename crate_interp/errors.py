"""Errors that a user can act on: the message names the input, what was expected, what was found."""

__all__ = ["CheckpointError", "InputError"]


class InputError(ValueError):
    """Wrong input. The command line prints the message without a traceback and exits with 2."""


class CheckpointError(InputError):
    """A weight file that cannot be read, is refused, or does not fit the model."""
