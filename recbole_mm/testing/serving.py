"""Checks of a model in use: packed, restored without its training data, asked for sessions."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from recbole_mm import stock
from recbole_mm.errors import CheckpointError
from recbole_mm.serve.catalogue import Catalogue
from recbole_mm.serve.pack import write_pack
from recbole_mm.serve.recommender import Recommender
from recbole_mm.serve.restored import Restored
from recbole_mm.testing.case import Case, Failed, scores

_SESSIONS, _TOPK = 16, 5


def check_pack(case: Case) -> str | None:
    """Pack the trained model, restore it, and demand equal bits and the items that they put first.

    Validation rows are scored by both; their histories are recommended to as new sessions.
    """
    prepared = case.trained.prepared
    if stock.scores_by_user(type(prepared.model)):
        return "the model knows sessions by their training rows alone"
    dataset = prepared.train.dataset
    trained = Restored(
        prepared.config, prepared.model.eval(), dataset, Catalogue.of(dataset), case.folder
    )
    with TemporaryDirectory(dir=case.folder) as folder:
        try:
            packed = Recommender.load(write_pack(trained, Path(folder, "pack")))
        except CheckpointError as error:
            raise Failed(str(error), "a pack that scores as the trained model does") from error
    batch = case.batch()
    if not torch.equal(scores(packed.restored.model, batch), scores(trained.model, batch)):
        raise Failed("the packed model gives other scores of validation rows", "equal bits")
    _compare_first_items(case, Recommender(trained), packed)
    return None


def _compare_first_items(case: Case, trained: Recommender, packed: Recommender) -> None:
    """Compare the recommended items with those that the trained model scores highest."""
    rows, fields, tokens = case.rows(_SESSIONS), case.fields, trained.items.tokens
    histories = zip(rows[fields.history].tolist(), rows[fields.length].tolist(), strict=True)
    sessions = [history[:length] for history, length in histories]
    expected = trained.scorer.scores(trained.scorer.rows(sessions))
    order = torch.sort(expected, dim=1, descending=True, stable=True).indices[:, :_TOPK]
    asked = [[tokens[item] for item in session] for session in sessions]
    found = packed.recommend(asked, _TOPK, exclude_seen=False)
    for session, items, one in zip(asked, order.tolist(), found, strict=True):
        if one.items != [tokens[item] for item in items]:
            raise Failed(f"{one.items} is recommended to {session}", "the items scored highest")
