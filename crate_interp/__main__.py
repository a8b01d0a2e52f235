"""`python -m crate_interp` is the command `crate-interp`."""

import sys

from crate_interp.cli import main

sys.exit(main())
