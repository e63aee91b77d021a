"""The contract that every model passes, shipped so that third-party models can be held to it.

>>> from recbole_mm.testing import check_model
>>> check_model("MyModel", {"hidden_size": 16})  # doctest: +SKIP

Plain functions: no test framework is needed. The suite runs on the CPU, on data that it generates.
"""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from recbole_mm.errors import ConfigError, MMError
from recbole_mm.testing import scoring, serving, training
from recbole_mm.testing.case import Case, Failed, Overfit, spec_name

__all__ = ["CHECKS", "ContractError", "Overfit", "check_model"]

CHECKS: dict[str, Callable[[Case], str | None]] = {
    "train_mode": training.check_train_mode,
    "epochs": training.check_epochs,
    "scores": scoring.check_scores,
    "batch_of_one": scoring.check_batch_of_one,
    "session_of_one": scoring.check_session_of_one,
    "padding_columns": scoring.check_padding_columns,
    "padding_item": scoring.check_padding_item,
    "batch_neighbours": scoring.check_batch_neighbours,
    "missing_features": scoring.check_missing_features,
    "target_unread": scoring.check_target_unread,
    "predict_agrees": scoring.check_predict_agrees,
    "cache": scoring.check_cache,
    "gradients": training.check_gradients,
    "same_seed": training.check_same_seed,
    "save_load": training.check_save_load,
    "pack": serving.check_pack,
    "no_test_information": training.check_no_test_information,
    "no_dense_square": training.check_no_dense_square,
    "overfits": training.check_overfits,
}


class ContractError(MMError):
    """A model broke the contract.

    Attributes
    ----------
    check
        Name of the check, a key of ``CHECKS``.
    seen, expected
        What the check found and what it wanted.
    """

    def __init__(self, model: str, check: str, seen: str, expected: str) -> None:
        super().__init__(f"{model} fails the check '{check}': {seen}; expected {expected}.")
        self.check, self.seen, self.expected = check, seen, expected


def check_model(
    model: str | type,
    overrides: Mapping[str, object] | None = None,
    checks: Sequence[str] | None = None,
    *,
    known_unused: Sequence[str] = (),
    exclude: Mapping[str, str] | None = None,
    overfit: Overfit | None = None,
) -> list[str]:
    """Hold a model to the contract, on small data sets that are generated for it.

    Parameters
    ----------
    model
        Name or class. Its modalities get feature files with gaps; columns that it may read from
        the item file are ``class`` and ``price``.
    overrides
        Configuration keys, above the suite's own. Small sizes keep the suite fast.
    checks
        Names out of ``CHECKS``; None runs all.
    known_unused
        Patterns (``fnmatch``) of parameters that get no gradient. Naming one that does is an error.
    exclude
        Checks to leave out, with the reason.
    overfit
        Learning rate, epochs and threshold of the check ``overfits``.

    Returns
    -------
    list of str
        The names of the checks passed, in order. A check that does not apply or was excluded
        stands as ``"name (reason)"``.

    Raises
    ------
    ContractError
        The first check that failed, with what it saw and what it expected.
    ConfigError
        An unknown check, model or key.
    """
    exclude = dict(exclude or {})
    wanted = list(CHECKS) if checks is None else list(checks)
    for name in (*wanted, *exclude):
        _require_known(name)
    name_of_model, passed = spec_name(model), []
    with tempfile.TemporaryDirectory(prefix="recbole_mm_") as folder:
        case = Case(model, dict(overrides or {}), Path(folder), known_unused, overfit or Overfit())
        for name in wanted:
            reason = exclude.get(name) or _run(case, name, name_of_model)
            passed.append(f"{name} ({reason})" if reason else name)
    return passed


def _run(case: Case, name: str, model: str) -> str | None:
    """Run one check; whatever it raises becomes a ContractError that names it."""
    try:
        return CHECKS[name](case)
    except Failed as failed:
        raise ContractError(model, name, *failed.args) from None
    except ConfigError:
        raise
    except Exception as error:
        seen = f"{type(error).__name__}: {error}"
        raise ContractError(model, name, seen, "no exception") from error


def _require_known(name: str) -> None:
    """Raise a ConfigError for a name that is no check."""
    if name not in CHECKS:
        close = difflib.get_close_matches(name, CHECKS, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else f" Known: {', '.join(CHECKS)}."
        raise ConfigError(f"unknown check '{name}'.{hint}")
