"""`python -m dualview` is the `dualview` command."""

import sys

from dualview.cli import main

sys.exit(main())
