"""Fixtures shared by all tests."""

from __future__ import annotations

import os

# Two threads at most: the numbers must not depend on the machine, and CI is small.
os.environ.setdefault("OMP_NUM_THREADS", "2")
