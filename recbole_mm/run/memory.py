"""What a run needs of memory, said when there is not enough of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from recbole.model.abstract_recommender import AbstractRecommender

from recbole_mm.errors import ConfigError
from recbole_mm.evaluation.chunks import rows_at_once
from recbole_mm.exits import is_out_of_memory
from recbole_mm.model.base import MMSequentialRecommender
from recbole_mm.model.chunked import PLAIN, rows_per_chunk
from recbole_mm.model.deferred import REACHED
from recbole_mm.run.prepared import Prepared

_FLOAT = 4  # bytes
# A weight, its gradient, and the two moments of Adam.
_PER_WEIGHT = 4
# Scores, their softmax and its gradient, as autograd holds them.
_PER_SCORE = 3


@contextmanager
def memory_explained(prepared: Prepared) -> Iterator[None]:
    """Turn running out of memory into an error that names keys and what they take.

    Raises
    ------
    ConfigError
        Memory ran out inside of the block.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"out of memory. {_needs(prepared)} ({why})") from error


def _needs(prepared: Prepared) -> str:
    """Return the sentences of the estimate."""
    config, items = prepared.config, prepared.dataset.item_num
    rows, most = config["train_batch_size"], config["eval_batch_size"]
    ranked = rows_at_once(items, config["device"], most) * items * _FLOAT
    step = training_scores(prepared.model, rows, config["sampled_softmax"] or items)
    weights = weight_bytes(prepared.model)
    return (
        f"Estimate for {config['model']} and {items - 1:,} items: weights with gradients and "
        f"Adam's state {_gib(weights)}; scores of a training step {_gib(step)} "
        f"(train_batch_size = {rows}); scores of an evaluation chunk "
        f"{_gib(ranked)} (eval_batch_size = {most} at most); on top come the histories "
        f"(MAX_ITEM_LIST_LENGTH = {config['MAX_ITEM_LIST_LENGTH']}) and the item tables that the "
        "model computes. Lower the key that takes most"
    )


def training_scores(model: AbstractRecommender, rows: int, items: int) -> int:
    """Return the bytes that the scores of a training step take.

    Our models hold a chunk of them, and so do many of RecBole's where they are many.
    """
    many = rows * items > PLAIN and type(model).__name__ in REACHED
    if many or isinstance(model, MMSequentialRecommender):
        rows = min(rows, rows_per_chunk(items))
    return _PER_SCORE * rows * items * _FLOAT


def weight_bytes(model: AbstractRecommender) -> int:
    """Return the bytes of a model's trained weights, with what training adds to each."""
    trained = (weight.numel() for weight in model.parameters() if weight.requires_grad)
    return _PER_WEIGHT * _FLOAT * sum(trained)


def _gib(size: int) -> str:
    """Return bytes in GiB, with two digits behind the point."""
    return f"{size / 2**30:.2f} GiB"
