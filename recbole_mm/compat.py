"""Remedies for RecBole 1.2.1 and its neighbours; each has a test that fails once it is not needed.

=== ================================================================ ==============================
No. What is wrong                                                    Remedy
=== ================================================================ ==============================
1   Its dependency ray has no wheel for Python 3.12                   :func:`check_versions`
2   Every trainer writes ``./log_tensorboard`` as it is built         :func:`private_tensorboard`
3   A torchvision built for CUDA cannot be imported with a CPU torch, :func:`prepare_torchvision`
    and transformers fails with it
4   A Config reads ``sys.argv``, runs ``eval`` on it, and changes      ``config.MMConfig``
    ``yaml.FullLoader`` and its own argument lists for the process
5   ``ml-100k`` ignores ``data_path``; ``gpu_id`` overwrites           ``config.MMConfig``,
    ``CUDA_VISIBLE_DEVICES``                                           :func:`choose_device`
6   A cross-entropy model does not start with RecBole's own default    ``properties/overall.yaml``
    of negative sampling
7   An unknown model name ends in ``No module named 'lightgbm'``       ``registry.resolve``
8   Stock Pop counts an item once per batch                            ``config.MMConfig``
9   Importing any sequential model turns autograd's anomaly detection  ``trainer.base``
    on (in ``sine.py``), which doubles the cost of a training step
10  BERT4Rec's loss is 0/0 for a batch in which no item was masked     :func:`loss_function`
11  A Config reads names that numpy 2 dropped                          :func:`restore_numpy_names`
12  Missing values are filled in copies, and ``Series.agg(len)`` is    :func:`filled`,
    taken for the length of each cell: wrong with pandas 3             :class:`AnyPandas`
=== ================================================================ ==============================
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_mm.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from recbole.data.interaction import Interaction
    from recbole.model.abstract_recommender import AbstractRecommender
    from torch import Tensor
    from torch.utils.tensorboard import SummaryWriter

_kept_alive: list[object] = []
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem:
    """One thing that does not fit, and the command that mends it.

    Attributes
    ----------
    fatal
        Whether a run would fail or, worse, give wrong numbers.
    """

    what: str
    remedy: str
    fatal: bool = True


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution without importing it, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True)
class _Bound:
    """The versions of one distribution that were tried.

    Attributes
    ----------
    low, high
        Oldest version that was tried, and the first that breaks or was not tried.
    why
        What goes wrong outside.
    """

    name: str
    low: tuple[int, ...]
    high: tuple[int, ...]
    why: str
    fatal: bool = True

    def problem(self, found: str | None, without_dependencies: bool) -> Problem | None:
        """Return what is wrong with the installed version (None: not installed), if anything."""
        wanted = f"{self.name}>={_dotted(self.low)},<{_dotted(self.high)}"
        option = "--no-deps " if without_dependencies else ""
        command = f"pip install {option}'{wanted}'"
        if found is None:
            return Problem(f"{self.name} is not installed", command)
        if self.low <= _numbers(found) < self.high:
            return None
        return Problem(f"{self.name} {found}: {self.why}", command, self.fatal)


_BOUNDS = (
    _Bound("recbole", (1, 2, 1), (1, 3), "other versions have other settings"),
    _Bound("numpy", (1, 26), (3,), "other versions were not tried"),
    _Bound("pandas", (2, 1, 1), (4,), "other versions were not tried"),
    _Bound("torch", (2, 6), (2, 14), "newer versions were not tried", fatal=False),
)
# What RecBole imports, beside the above; from Python 3.12 on it does not bring them itself.
_NEEDS = ("colorama", "colorlog", "tensorboard", "texttable")
# First version of Python for which RecBole's dependency ray has no wheel.
_WITHOUT_RAY = (3, 12)


def check_versions(
    version_of: Callable[[str], str | None] = installed_version,
    python: tuple[int, ...] = sys.version_info[:2],
) -> list[Problem]:
    """Return what is missing or does not fit among Python and the main dependencies.

    Parameters
    ----------
    version_of
        Gives the installed version of a distribution, or None.
    python
        Version of Python, as ``(3, 11)``.
    """
    problems = []
    if not (3, 10) <= python < (3, 14):
        what = f"Python {_dotted(python)}: other versions than 3.10 to 3.13 were not tried"
        remedy = "make an environment with Python 3.10, 3.11, 3.12 or 3.13"
        problems.append(Problem(what, remedy, fatal=False))
    for bound in _BOUNDS:
        alone = bound.name == "recbole" and python >= _WITHOUT_RAY
        problem = bound.problem(version_of(bound.name), alone)
        problems += [problem] if problem else []
    for name in _NEEDS:
        if version_of(name) is None:
            problems.append(Problem(f"{name} is not installed", f"pip install {name}"))
    return problems


def require_versions() -> None:
    """Stop before a run that would fail, or give wrong numbers, with these versions.

    Raises
    ------
    ConfigError
        Names each problem and the command that mends it.
    """
    fatal = [problem for problem in check_versions() if problem.fatal]
    if fatal:
        raise ConfigError("; ".join(f"{p.what}. Type: {p.remedy}" for p in fatal))


def _dotted(version: tuple[int, ...]) -> str:
    """Return ``(1, 2)`` as ``1.2``."""
    return ".".join(map(str, version))


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: ``2.13.0+cpu`` gives ``(2, 13, 0)``."""
    numbers = []
    for part in version.split("+")[0].split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


# Names that RecBole 1.2.1 reads of numpy, gone in numpy 2, and what each stands for.
_NUMPY_NAMES = {"float_": "float64", "complex_": "complex128", "unicode_": "str_"}


def restore_numpy_names() -> None:
    """Give numpy 2 the names back that the constructor of a RecBole Config reads.

    numpy 1 has them, and is left alone.
    """
    import numpy

    for name, now in _NUMPY_NAMES.items():
        # Not hasattr, for which numpy 1 warns of names on their way out.
        if name not in vars(numpy):
            setattr(numpy, name, getattr(numpy, now))


def filled(column: pd.Series, kind: str) -> pd.Series:
    """Return a column with what is missing filled as RecBole means to.

    It fills in place, in a column that it takes out of a table: a copy, since pandas 3.

    Parameters
    ----------
    column
        A column of a data set, its tokens numbered.
    kind
        ``token`` gets 0, ``float`` the mean, a sequence nothing.
    """
    if kind == "token":
        return column.fillna(0)
    if kind == "float":
        return column.fillna(column.mean())
    import numpy as np

    none = np.array([], dtype=np.int64 if kind == "token_seq" else np.float64)
    return column.map(lambda cell: none if isinstance(cell, float) else cell)


@contextmanager
def lengths_of_cells() -> Iterator[None]:
    """Make ``Series.agg(len)`` give the length of each cell in the block, as before pandas 3."""
    import pandas as pd

    original = pd.Series.agg

    def agg(column: pd.Series, func: Any = None, *args: Any, **more: Any) -> Any:
        return column.map(len) if func is len else original(column, func, *args, **more)

    pd.Series.agg = agg
    try:
        yield
    finally:
        pd.Series.agg = original


class AnyPandas:
    """A data set of RecBole, to be put before its class, that is read alike with pandas 2 and 3."""

    feat_name_list: list[str]
    field2type: dict[str, Any]

    def _from_scratch(self) -> None:
        with lengths_of_cells():
            super()._from_scratch()  # type: ignore[misc]

    def _fill_nan(self) -> None:
        for name in self.feat_name_list:
            frame = getattr(self, name)
            for column in frame:
                frame[column] = filled(frame[column], self.field2type[column].value)


class _SilentWriter:
    """Takes the calls of a TensorBoard writer and writes nothing."""

    def add_scalar(self, *args: object, **kwargs: object) -> None:
        """Drop one number."""

    def add_hparams(self, *args: object, **kwargs: object) -> None:
        """Drop the settings."""

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


# Message (a regular expression), category, module: known, harmless, and not the user's to mend.
_NOISE: tuple[tuple[str, type[Warning], str], ...] = (
    ("A value is trying to be set on a copy of a DataFrame", FutureWarning, "recbole"),
    ("using <built-in function len> in Series.agg", FutureWarning, "recbole"),
    (r"`torch\.cuda\.amp\.GradScaler", FutureWarning, "recbole"),
    (r"`torch\.cuda\.amp\.autocast", FutureWarning, "recbole"),
    ("`np.bool8` is a deprecated alias", DeprecationWarning, ""),
    ("pkg_resources is deprecated as an API", UserWarning, ""),
    # Columns of pandas 3 are read-only; nothing writes into the tensors that share them.
    ("The given NumPy array is not writable", UserWarning, "recbole"),
)


def quiet_warnings() -> None:
    """Silence warnings of RecBole 1.2.1 about pandas and torch calls that still work."""
    for message, category, module in _NOISE:
        warnings.filterwarnings("ignore", message=message, category=category, module=module)


@contextmanager
def private_tensorboard(folder: str | Path | None) -> Iterator[None]:
    """Make trainers that are built inside the block write TensorBoard files to ``folder``.

    RecBole 1.2.1 writes to ``./log_tensorboard/<name of a log file>``, so that runs side by side
    mix and every working folder is littered. None writes nothing.
    """
    from recbole.trainer import trainer

    def writer(logger: logging.Logger) -> SummaryWriter | _SilentWriter:
        if folder is None:
            return _SilentWriter()
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(folder))

    original = trainer.get_tensorboard
    trainer.get_tensorboard = writer
    try:
        yield
    finally:
        trainer.get_tensorboard = original


def torchvision_fits() -> bool:
    """Return whether torchvision's compiled operators can be loaded into this torch."""
    import torch

    operators: Any = torch.ops
    spec = importlib.util.find_spec("torchvision")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    for library in folder.glob("_C*") if folder else ():
        if library.suffix in (".so", ".pyd", ".dylib"):
            try:
                operators.load_library(str(library))
            except OSError:
                return False
            return True
    return False


def prepare_torchvision() -> bool:
    """Make ``import torchvision`` (and so transformers) work beside a torch of another build.

    torchvision registers shape functions for two operators of its compiled part. Where that part
    cannot be loaded, the import ends in ``operator torchvision::nms does not exist``. Declaring
    the two names is enough for networks that do not use them. Call it before torchvision or
    transformers are imported; later calls, and calls without torchvision, do nothing.

    Returns
    -------
    bool
        Whether the operators were declared by this call.
    """
    settled = "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None
    if settled or _kept_alive or torchvision_fits():
        return False
    import torch

    declare: Any = torch.library.Library
    library = declare("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept_alive.append(library)  # The declaration lives as long as this object.
    return True


def choose_device(gpu_id: int | str | None, use_gpu: bool) -> torch.device:
    """Return the device of a run.

    RecBole overwrites ``CUDA_VISIBLE_DEVICES`` with ``gpu_id``, and so takes a GPU that a scheduler
    gave to somebody else. Here ``gpu_id`` counts among the devices that are visible.

    Parameters
    ----------
    gpu_id
        Number of a CUDA device, or several as ``"0,1"`` (the first is taken); None or ``""`` is
        the CPU, and so is any number where there is no CUDA device.
    use_gpu
        False is the CPU.

    Raises
    ------
    ConfigError
        There are CUDA devices, but not this one.
    """
    import torch

    chosen = "" if gpu_id is None else str(gpu_id).strip()
    if not use_gpu or not chosen or not torch.cuda.is_available():
        return torch.device("cpu")
    number, count = chosen.split(",")[0].strip(), torch.cuda.device_count()
    if not number.isdigit() or int(number) >= count:
        raise ConfigError(
            f"gpu_id = {gpu_id!r} is not accepted; expected one of 0 ... {count - 1}, the CUDA "
            "devices visible here (CUDA_VISIBLE_DEVICES hides the others)"
        )
    if "," in chosen:
        _log.warning("gpu_id = %s: a run computes on one GPU; taking %s", chosen, number)
    return torch.device("cuda", int(number))


def loss_function(model: AbstractRecommender) -> Callable[[Interaction], Tensor] | None:
    """Return the loss to train a model with, or None for its own ``calculate_loss``.

    BERT4Rec divides by the number of masked items. A small last batch of short histories may hold
    none; it then teaches nothing, and its loss is 0 instead of NaN.
    """
    if all(cls.__name__ != "BERT4Rec" for cls in type(model).__mro__):
        return None

    def loss(interaction: Interaction) -> Tensor:
        if bool((interaction[model.MASK_INDEX] > 0).any()):
            return model.calculate_loss(interaction)
        return model.output_bias.sum() * 0.0

    return loss
