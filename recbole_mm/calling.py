"""Modules that are called like functions: ``recbole_mm.run`` is a room of the package and a job."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from recbole_mm.spec import import_object


def make_callable(module: str, function: str) -> None:
    """Let a module be called.

    Parameters
    ----------
    module
        Name of an imported module.
    function
        ``package.module:function``, imported at the first call.
    """

    class Callable(ModuleType):
        """A module and a function."""

        def __call__(self, *given: Any, **named: Any) -> Any:
            """Call the function."""
            return import_object(function)(*given, **named)

    sys.modules[module].__class__ = Callable
