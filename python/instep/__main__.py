"""``python -m instep``."""

import sys

from instep.commands.cli import main

sys.exit(main())
