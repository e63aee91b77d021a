"""Train and evaluate one model: ``python run_recbole_mm.py --model=SRIM --dataset=Cellphones``."""

import sys

from recbole_mm.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
