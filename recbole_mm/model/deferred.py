"""The softmax of RecBole's own models, without a table of rows x items.

They compute ``torch.matmul(session, items.T)`` and hand it to `torch.nn.CrossEntropyLoss`. Inside
`deferring` a product so large is not computed at first. If the next that is done with it is that
loss, it goes through `recbole_mm.model.chunked` (or the sample of `recbole_mm.model.sampled`);
whatever else is asked of it gets the product as torch computes it. So the loss of any model stays
what it is, and no list of models is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from recbole_mm.errors import ConfigError, TrainingError
from recbole_mm.model import chunked
from recbole_mm.model.base import MMSequentialRecommender
from recbole_mm.model.sampled import ItemSampler, sampling

if TYPE_CHECKING:
    from recbole.data.interaction import Interaction
    from recbole.model.abstract_recommender import AbstractRecommender

    Loss = Tensor | tuple[Tensor, ...]
    LossOf = Callable[[Interaction], Loss]

# Models of RecBole whose loss over all items goes this way, as a test sees; the others' scores get
# a bias, are pooled or come from a linear layer first, and are held whole.
REACHED = frozenset(
    {
        *(
            "CORE",
            "Caser",
            "FDSA",
            "FEARec",
            "FOSSIL",
            "GCSAN",
            "GRU4Rec",
            "GRU4RecF",
            "HGN",
            "HRM",
        ),
        *("LightSANs", "NARM", "NPE", "NextItNet", "SASRec", "SASRecF", "SHAN", "SINE", "SRGNN"),
        "STAMP",
    }
)

_PRODUCTS = (torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__)
_DIVISIONS = (torch.div, Tensor.div, Tensor.__truediv__)


class Product(Tensor):
    """``left @ right``, computed only if something else than its cross-entropy is asked for."""

    left: Tensor
    right: Tensor

    @staticmethod
    def __new__(cls, left: Tensor, right: Tensor) -> Product:
        """Take ``(B, d)`` and ``(d, N)``."""
        made: Product = Tensor._make_wrapper_subclass(
            cls,
            (len(left), right.shape[1]),
            dtype=torch.result_type(left, right),
            device=left.device,
            requires_grad=torch.is_grad_enabled() and (left.requires_grad or right.requires_grad),
        )
        made.left, made.right = left, right
        # As it would have been computed here, wherever it is.
        kind = left.device.type
        made._modes = (
            torch.is_grad_enabled(),
            torch.is_autocast_enabled(kind),
            torch.get_autocast_dtype(kind),
        )
        made._whole = None
        return made

    _modes: tuple[bool, bool, torch.dtype]
    _whole: Tensor | None

    def whole(self) -> Tensor:
        """Return the product ``(B, N)`` itself."""
        if self._whole is None:
            graded, autocast, dtype = self._modes
            kind = self.left.device.type
            with (
                torch.set_grad_enabled(graded),
                torch.autocast(kind, enabled=autocast, dtype=dtype),
            ):
                self._whole = self.left @ self.right
        return self._whole

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute what is asked for: a loss in chunks, anything else of the whole product."""
        kwargs = kwargs or {}
        if func is F.cross_entropy and _is_plain(*args, **kwargs):
            product, target = args
            return chunked.mean_softmax_ce(
                product.left, product.right.T, target, padding_counts=True
            )
        if func in _DIVISIONS and _by_a_number(*args, **kwargs):
            product, number = args
            return Product(product.left / number, product.right)
        args, kwargs = pytree.tree_map(_computed, (tuple(args), kwargs))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Refuse what goes around torch's functions: here the gradient would be lost."""
        raise TrainingError(
            f"{func} was asked of the scores of all items around torch's functions, and they are "
            "not computed yet. Lower train_batch_size so that rows x items stay below "
            f"{chunked.PLAIN:,}."
        )


def _computed(one: Any) -> Any:
    return one.whole() if isinstance(one, Product) else one


def _is_plain(*args: Any, **options: Any) -> bool:
    """Return whether these arguments of the cross-entropy ask for the mean over rows of ids."""
    usual = {"ignore_index": -100, "reduction": "mean", "label_smoothing": 0.0}
    if len(args) != 2 or any(options[key] != usual.get(key) for key in options):
        return False
    scores, target = args
    rows = isinstance(scores, Product) and isinstance(target, Tensor) and target.dim() == 1
    return rows and target.dtype == torch.int64 and int(target.min()) >= 0


def _by_a_number(*args: Any, **options: Any) -> bool:
    """Return whether a product is divided by a number."""
    return len(args) == 2 and not options and isinstance(args[1], (int, float))


class _Deferring(TorchFunctionMode):
    """See `deferring`."""

    def __init__(self, n_items: int, sampled: bool) -> None:
        super().__init__()
        self.n_items, self.sampled = n_items, sampled

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _PRODUCTS and not kwargs and self._wanted(*args):
            return Product(*args)
        return func(*args, **(kwargs or {}))

    def _wanted(self, left: Any, right: Any) -> bool:
        """Return whether these may be queries and items, and their product is to be avoided."""
        if not isinstance(right, Tensor) or not left.dim() == right.dim() == 2:
            return False
        dense = left.layout == right.layout == torch.strided and left.is_floating_point()
        large = len(left) * right.shape[1] > chunked.PLAIN
        return dense and (large or (self.sampled and right.shape[1] == self.n_items))


@contextmanager
def deferring(n_items: int, sampled: bool = False) -> Iterator[None]:
    """Put large products off in the block, and with ``sampled`` all with ``n_items`` columns."""
    with _Deferring(n_items, sampled):
        yield


def loss_over_items(
    model: AbstractRecommender, loss: LossOf, n_items: int, sampler: ItemSampler | None
) -> LossOf:
    """Return a model's loss, its softmax over all items in chunks or over a sample.

    Parameters
    ----------
    model
        The model. Those of this package see to the chunks themselves.
    loss
        Its loss of a batch.
    n_items
        Items, padding included.
    sampler
        Draws the sample; None takes all items.
    """
    ours = isinstance(model, MMSequentialRecommender)
    if sampler is None and (ours or not isinstance(model, SequentialRecommender)):
        return loss

    def computed(batch: Interaction) -> Loss:
        if sampler is None and len(batch) * n_items <= chunked.PLAIN:
            return loss(batch)
        with sampling(sampler), nullcontext() if ours else deferring(n_items, sampler is not None):
            found = loss(batch)
        if sampler is not None and not sampler.used:
            raise ConfigError(
                f"sampled_softmax = {sampler.n} does not reach {type(model).__name__}: with these "
                "settings its loss is no plain softmax over all items. Leave it at 0."
            )
        return found

    return computed
