"""What needs no extra is there without any of them."""

from __future__ import annotations

import subprocess
import sys

EXTRAS = (
    *"urllib3 PIL torchvision sentence_transformers transformers".split(),
    *"fastapi uvicorn pydantic faiss optuna".split(),
)
SCRIPT = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Absent())
import recbole_mm.api, recbole_mm.compare.execute, recbole_mm.serve.pack
import recbole_mm.serve.recommender, recbole_mm.testing, recbole_mm.tune.options
"""


def test_training_comparing_packing_and_checking_need_no_extra() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
