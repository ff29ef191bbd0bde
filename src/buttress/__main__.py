"""``python -m buttress``."""

import sys

from buttress.cli import main

sys.exit(main())
