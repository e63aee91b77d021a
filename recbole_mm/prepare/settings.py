"""From the values of the command line to the options of a source."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
A_DATASET_NAME = "a name of letters, digits, _ . and -"


def given_options(
    kind: type[DataclassInstance], settings: Mapping[str, object], lists: Collection[str] = ()
) -> dict[str, Any]:
    """Return the values that were given for the fields of ``kind``; None is not given.

    Parameters
    ----------
    kind
        The source's options.
    settings
        Parsed command-line values, those of other sources among them.
    lists
        Fields whose text is split at commas.
    """
    names = {entry.name for entry in fields(kind)}
    given = {k: v for k, v in settings.items() if k in names and v is not None}
    for key in given.keys() & set(lists):
        parts = (name.strip() for name in str(given[key]).split(","))
        given[key] = tuple(name for name in parts if name)
    return given
