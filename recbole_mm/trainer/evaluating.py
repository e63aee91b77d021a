"""Evaluation inside a run: every target's rank, the metrics, and the score's parts."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from recbole.evaluator import Collector, Evaluator
from recbole.trainer import Trainer
from recbole.utils import ModelType
from tqdm import tqdm

from recbole_mm import collectives, processes
from recbole_mm.errors import TrainingError
from recbole_mm.evaluation.chunks import Rows, chunks
from recbole_mm.evaluation.hooks import HasLateFit, HasTuning
from recbole_mm.evaluation.masking import mask_history
from recbole_mm.evaluation.new_items import fill_unseen, nearest_known
from recbole_mm.evaluation.parts import part_metrics
from recbole_mm.evaluation.ranking import from_ranks, metrics_from_ranks, target_ranks
from recbole_mm.trainer import checkpoint
from recbole_mm.trainer.history import EpochRecord

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataloader import AbstractDataLoader, FullSortEvalDataLoader
    from recbole.data.interaction import Interaction
    from torch import Tensor, nn

logger = logging.getLogger(__name__)


class EvaluationMixin(Trainer):
    """The part of a trainer that evaluates."""

    ranks: np.ndarray
    tied: int
    seconds: dict[str, float]
    item_tensor: Interaction | None
    history: list[EpochRecord]
    # Of CheckpointMixin:
    load_model: Callable[[str | Path, AbstractDataLoader | None], None]
    amend_best: Callable[[], None]

    def __init__(self, config: Config, model: nn.Module) -> None:
        super().__init__(config, model)
        # RecBole's own collector and evaluator, for the metrics that ranks do not give.
        values = config.final_config_dict
        self._beyond = sorted({*values["metrics"]} - {*from_ranks(values["metrics"])})
        narrowed = {**values, "metrics": self._beyond}
        self.eval_collector, self.evaluator = Collector(narrowed), Evaluator(narrowed)

    def evaluate(
        self,
        eval_data: AbstractDataLoader | None,
        load_best_model: bool = True,
        model_file: str | Path | None = None,
        show_progress: bool = False,
    ) -> dict[str, float] | None:
        """Rank the target of each row once, and compute all metrics that follow from the ranks.

        They are those of RecBole's evaluator where no scores tie. RecBole's collector runs for the
        other metrics alone. ``self.ranks`` and ``self.tied`` are filled.

        Parameters are RecBole's: ``load_best_model`` loads ``best.safetensors`` of the run before,
        or ``model_file``, another checkpoint of the same model and items.

        Raises
        ------
        CheckpointError
            The checkpoint is damaged or belongs to another model or other items.
        TrainingError
            A score is NaN or +inf: no item could be ranked against it.
        """
        if not eval_data:
            return None
        if load_best_model:
            self.load_model(model_file or self.saved_model_file, eval_data)
        self.ranks, equal = self._ranks_of_all(eval_data, show_progress and sys.stderr.isatty())
        self.tied = int(np.count_nonzero(equal))
        if load_best_model and self.tied:
            logger.warning(
                f"{self.tied} of {len(self.ranks)} targets share their score with other items; "
                "each has the mean position of those as its rank"
            )
        result = self._metrics(self.ranks)
        self.wandblogger.log_eval_metrics(result, head="eval")
        return result

    def _ranks_of_all(self, eval_data: FullSortEvalDataLoader, progress: bool) -> tuple[Rows, Rows]:
        """Rank the targets of all rows; of several processes each ranks its own."""
        rows, group = np.arange(len(eval_data.dataset)), processes.group()
        # RecBole's collector must see every row; what it keeps is not put together here.
        if group.world == 1 or self._beyond:
            return self.rank_rows(eval_data, rows, progress)
        found = np.zeros((2, len(rows)), dtype=np.int64)
        found[:, group.own()] = self.rank_rows(eval_data, rows[group.own()], progress)
        ranks, equal = collectives.summed_counts(found)
        return ranks, equal

    @torch.no_grad()
    def rank_rows(
        self, eval_data: FullSortEvalDataLoader, rows: Rows, progress: bool = False
    ) -> tuple[Rows, Rows]:
        """Rank the targets of some rows with the model as it is.

        Parameters
        ----------
        eval_data
            RecBole's full-ranking loader.
        rows
            ``(n,)`` numbers of the rows, in the order of the loader.
        progress
            Whether to show a bar.

        Returns
        -------
        tuple
            ``(n,)`` ranks, from 1, and how many other items have the target's score.
        """
        self.model.eval()
        self.tot_item_num = eval_data.dataset.item_num
        if self.item_tensor is None:
            self.item_tensor = eval_data.dataset.get_item_feature().to(self.device)
        ranks, equal = np.empty((2, len(rows)), dtype=np.int64)
        bar = tqdm(total=len(rows), desc="evaluation", unit="row", disable=not progress)
        with bar:
            for where, interaction, items in chunks(self.model, eval_data, rows):
                scores = self._scores(interaction, items)
                ranks[where], equal[where] = target_ranks(scores, items)
                self.eval_collector.eval_batch_collect(
                    scores, interaction, torch.arange(len(items)), items
                )
                bar.update(len(items))
                del scores  # The next ones may take its place, near the processor.
        return ranks, equal

    def _metrics(self, ranks: Rows) -> dict[str, float]:
        """Return all metrics that are asked for, in their order."""
        names, digits = self.config["metrics"], self.config["metric_decimal_place"]
        counted = metrics_from_ranks(ranks, self.config["topk"], from_ranks(names))
        others = self.evaluator.evaluate(self.eval_collector.get_data_struct())
        order = [name.lower() for name in names]
        found = sorted(
            {**counted, **others}.items(), key=lambda pair: order.index(pair[0].partition("@")[0])
        )
        return {name: round(float(value), digits) for name, value in found}

    def _scores(self, interaction: Interaction, items: Tensor) -> Tensor:
        """Return the scores ``(B, n_items)``: checked, and without a masked history."""
        scores: Tensor = self._full_sort_batch_eval((interaction, None, None, None))[1]
        if bool(scores.max() < torch.inf):  # False for NaN, too
            return mask_history(scores, interaction, items, self.config)
        raise TrainingError(
            f"{type(self.model).__name__} gave {int(torch.isnan(scores).sum())} NaN and "
            f"{int(torch.isposinf(scores).sum())} infinite scores for {len(scores)} rows of an "
            "evaluation. No item can be ranked against them, so no metric is computed. "
            "Look for a division by zero or a logarithm of zero in full_sort_predict."
        )

    def _validate_untrained(self, valid_data: FullSortEvalDataLoader | None) -> None:
        """Put the untrained model's metrics into the history as epoch 0 (``part_metrics: epoch``).

        Early stopping and the choice of the best epoch do not see it. A model that only counts,
        such as Pop, has nothing to say before it has counted.
        """
        wanted = self.config["part_metrics"] == "epoch" and bool(valid_data) and self.eval_step > 0
        counts = getattr(self.model, "type", None) == ModelType.TRADITIONAL
        if not wanted or counts or self.history or self.start_epoch:
            return
        with _undisturbed(valid_data):
            valid = self.evaluate(valid_data, load_best_model=False) or {}
        record: EpochRecord = {"epoch": 0, "loss": {}, "valid": valid}
        self._add_parts(valid_data, record)
        self.history.append(record)

    def _tune(self, valid_data: FullSortEvalDataLoader) -> None:
        """Let a model choose on validation rows what it chooses there; once, before validation."""
        tuned = any("valid" in one for one in self.history if one["epoch"])
        model = self.model
        if tuned or not isinstance(model, HasTuning):
            return
        start = time.perf_counter()
        self.model.train(False)
        with _undisturbed(valid_data), torch.no_grad():
            model.tune(valid_data)
        self.seconds["eval"] += time.perf_counter() - start

    def _fill_new_items(self, valid_data: FullSortEvalDataLoader | None, saved: bool) -> None:
        """With ``cold_items``: fill what is learned by id for items that training never held."""
        dataset = valid_data.dataset if valid_data else None
        held = getattr(dataset, "held_out", None)
        if dataset is None or held is None or not held.any():
            return
        if saved:
            self.load_model(self.saved_model_file, valid_data)
        new, policy = np.flatnonzero(held), self.config["new_item_ids"]
        near = nearest_known(dataset.item_features, dataset.train_counts, new, policy)
        filled = fill_unseen(self.model, dataset.item_num, new, near)
        logger.info(f"{len(new)} new items: {policy} in {', '.join(filled) or 'no table'}")
        self._amended(valid_data, saved)

    def _amended(self, valid_data: FullSortEvalDataLoader, saved: bool) -> None:
        """Keep a model that was changed after training, and validate it again."""
        start = time.perf_counter()
        if saved:
            self.amend_best()
        found = self.evaluate(valid_data, load_best_model=False) or {}
        self.best_valid_result = found
        self.best_valid_score = found[self.valid_metric.lower()]
        self.seconds["eval"] += time.perf_counter() - start

    def _fit_late(self, valid_data: FullSortEvalDataLoader | None, saved: bool) -> None:
        """Let a trained model fit what is added to its score, and keep that with the best weights.

        The validation metrics are from then on those of the whole score.
        """
        model = self.model
        if not valid_data or not isinstance(model, HasLateFit):
            return
        start = time.perf_counter()
        if saved:
            self.load_model(self.saved_model_file, valid_data)
        self.model.train(False)
        model.fit_late(valid_data)
        self.seconds["eval"] += time.perf_counter() - start
        self._amended(valid_data, saved)

    def _add_parts(self, valid_data: FullSortEvalDataLoader, record: EpochRecord) -> None:
        """Add the parts' validation metrics to an epoch's record where they are asked for."""
        if self.config["part_metrics"] != "epoch":
            return
        start = time.perf_counter()
        with _undisturbed(valid_data):
            metrics = from_ranks(self.config["metrics"])
            found = part_metrics(self.model, valid_data, self.config["topk"], metrics)
        if found:
            record["parts"] = found
        passed = time.perf_counter() - start
        self.seconds["studies"] = self.seconds.get("studies", 0.0) + passed


@contextmanager
def _undisturbed(loader: AbstractDataLoader) -> Iterator[None]:
    """Leave all random generators as they were: what is only looked at must not change training."""
    state = checkpoint.rng_state()
    generator = getattr(loader, "generator", None)
    shuffling = None if generator is None else generator.get_state()
    try:
        yield
    finally:
        checkpoint.set_rng_state(state)
        if generator is not None:
            generator.set_state(shuffling)
