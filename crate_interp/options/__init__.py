"""Options declared as fields of dataclasses: their ranges, and how arguments become them.

Standard library only, so that the command line can describe itself without loading torch.
"""

from crate_interp.options.fields import option, part_of, with_options_of
from crate_interp.options.ranges import Range, check_ranges

__all__ = ["Range", "check_ranges", "option", "part_of", "with_options_of"]
