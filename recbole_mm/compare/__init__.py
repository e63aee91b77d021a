"""Many runs side by side: models and seeds on one split, and the tables of them."""

from recbole_mm.calling import make_callable
from recbole_mm.compare.execute import compare
from recbole_mm.compare.report import write_report

__all__ = ["compare", "write_report"]

# `recbole_mm.compare(...)` is the job; docs/api.md.
make_callable(__name__, "recbole_mm.api:compare")
