"""A search for each model's best settings under one budget, and sweeps over single keys."""

from recbole_mm.calling import make_callable

# `recbole_mm.tune(...)` is the job; docs/api.md.
make_callable(__name__, "recbole_mm.api:tune")
