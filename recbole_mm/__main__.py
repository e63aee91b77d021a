"""``python -m recbole_mm``: the same commands as the console script ``recbole-mm``."""

import sys

from recbole_mm.cli import main

if __name__ == "__main__":
    sys.exit(main())
