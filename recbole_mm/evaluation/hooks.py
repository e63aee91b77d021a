"""What a model may offer beyond RecBole's interface; whoever asks goes without it where it lacks.

A model, of this package or not, takes part by defining the members; it need not inherit from these
classes. ``isinstance(model, HasScoreParts)`` asks for the name alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

if TYPE_CHECKING:
    from recbole.data.dataloader import FullSortEvalDataLoader, TrainDataLoader
    from recbole.data.interaction import Interaction


@runtime_checkable
class HasScoreParts(Protocol):
    """A model whose score is made of parts, for example an ID and a text branch."""

    def score_parts(self, interaction: Interaction) -> Mapping[str, Tensor]:
        """Return scores ``(B, n_items)`` by name; none if these settings have no parts."""

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Return the whole score, as RecBole wants it of every model."""


@runtime_checkable
class HasScoreVariants(Protocol):
    """A model that could have scored otherwise, for example with other weights of a fusion."""

    def score_variants(self, interaction: Interaction) -> Iterable[tuple[str, Tensor]]:
        """Return pairs of a name and scores ``(B, n_items)``.

        A generator keeps one table of scores in memory at a time.
        """


@runtime_checkable
class HasDiagnostics(Protocol):
    """A model that has something to say about itself after training."""

    def diagnostics(
        self, train_data: TrainDataLoader, valid_data: FullSortEvalDataLoader
    ) -> Mapping[str, float]:
        """Return numbers by name."""


@runtime_checkable
class HasItemNeighbours(Protocol):
    """A model that knows which items are like an item."""

    def item_neighbours(self, item: int) -> Mapping[str, Iterable[int]]:
        """Return lists of item ids by name, for example one per modality."""


@runtime_checkable
class HasStartEpoch(Protocol):
    """A model that trains in turns, or otherwise depends on the epoch."""

    def start_epoch(self, epoch_idx: int) -> None:
        """Take note of the epoch, counted from 0, before its first batch."""


@runtime_checkable
class HasTuning(Protocol):
    """A model that chooses something on the validation rows, such as the weight of a part."""

    def tune(self, valid_data: FullSortEvalDataLoader) -> None:
        """Choose; called once, before the first validation, in evaluation mode.

        What is chosen must be part of the checkpoint: a buffer, or RecBole's ``other_parameter``.
        """


@runtime_checkable
class HasLateFit(Protocol):
    """A model that fits something on the validation rows once it is trained."""

    def fit_late(self, valid_data: FullSortEvalDataLoader) -> None:
        """Fit; called once, after training, with the best weights, in evaluation mode.

        What is fitted must be in RecBole's ``other_parameter``; it is kept with the best weights.
        """


@runtime_checkable
class HasLossNames(Protocol):
    """A model that names the parts of its loss."""

    loss_names: Sequence[str]
    """Names of what ``calculate_loss`` returns as a tuple."""
