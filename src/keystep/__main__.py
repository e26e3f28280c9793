"""`python -m keystep`: the same as the `keystep` command."""

import sys

from keystep.cli.main import main

sys.exit(main())
