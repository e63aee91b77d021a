"""Many runs side by side: models and seeds on one split, and the tables of them."""

from recbole_mm.compare.plan import compare

__all__ = ["compare"]
