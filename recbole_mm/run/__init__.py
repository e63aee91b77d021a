"""One run on disk: data, features, model, training, and the record of it."""

from recbole_mm.calling import make_callable
from recbole_mm.run.execute import run
from recbole_mm.run.prepared import Prepared, prepare
from recbole_mm.run.record import RunResult
from recbole_mm.run.report import format_result

__all__ = ["Prepared", "RunResult", "format_result", "prepare", "run"]

# `recbole_mm.run(...)` is the job; docs/api.md.
make_callable(__name__, "recbole_mm.api:run")
