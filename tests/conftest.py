"""Fixtures shared by all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# One thread: the numbers must not depend on the machine, and tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# At home hypothesis looks further each time; CI repeats the same examples.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("home", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "home")
