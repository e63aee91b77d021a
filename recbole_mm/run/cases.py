"""Single sessions looked at: the first items of each part of the score, as a Markdown page.

Any model can be looked at. One with ``score_parts(interaction)`` is shown part by part, one with
``item_neighbours(item)`` (lists of item ids by name) also with the items it takes for like the
target. MDSRec's paper shows such a page as its Figure 5.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender
from torch import Tensor

from recbole_mm.data.item_columns import USUAL_FIELDS
from recbole_mm.encode.text.fields import default_fields, item_texts
from recbole_mm.errors import MMError
from recbole_mm.evaluation.hooks import HasItemNeighbours, HasScoreParts
from recbole_mm.evaluation.masking import is_masked, mask_history
from recbole_mm.evaluation.parts import WHOLE
from recbole_mm.evaluation.ranking import target_ranks
from recbole_mm.files import atomic_write
from recbole_mm.run.record import model_name

if TYPE_CHECKING:
    from recbole_mm.data.session_dataset import SessionDataset
    from recbole_mm.run.prepared import Prepared

logger = logging.getLogger(__name__)

PAGE = "cases.md"
# Characters of a title, and items of a history, that are shown.
_TITLE, _HISTORY = 60, 10


def write_cases(prepared: Prepared, folder: Path) -> Path | None:
    """Write ``cases.md`` with the sessions of ``case_sessions`` into a run folder.

    Parameters
    ----------
    prepared
        A trained model with its data; test rows are shown.
    folder
        The run folder.

    Returns
    -------
    Path or None
        The page; None if no session is asked for.
    """
    wanted = [str(token) for token in prepared.config["case_sessions"]]
    if not wanted:
        return None
    with atomic_write(folder / PAGE) as stream:
        stream.write(case_page(prepared, wanted, int(prepared.config["case_topk"])))
    logger.info("%d session(s) are shown in %s", len(wanted), folder / PAGE)
    return folder / PAGE


def case_page(prepared: Prepared, sessions: Sequence[str], topk: int = 5) -> str:
    """Return a Markdown page about the test rows of some sessions.

    Parameters
    ----------
    prepared
        A trained model with its data.
    sessions
        Session tokens; one without test row is named on the page and in a warning.
    topk
        Items shown per part of the score.
    """
    config, dataset = prepared.config, prepared.dataset
    titles = item_titles(dataset)
    tokens = np.array(dataset.session_tokens(dataset.rows("test").session))
    lines = [f"# {model_name(config['model'], config['preset'])} on {config['dataset']}", ""]
    for session in sessions:
        rows = np.flatnonzero(tokens == session)
        if not len(rows):
            logger.warning("case_sessions: %s has no row in the test part", session)
            lines += [f"## Session {session}", "", "No row in the test part.", ""]
        for row in rows:
            lines += [f"## Session {session}", "", *_case(prepared, int(row), titles, topk), ""]
    return "\n".join(lines)


def item_titles(dataset: SessionDataset) -> list[str]:
    """Return what to call each item, by internal id: title and token, or the token alone.

    The title is the column ``title`` or else the first text column.
    """
    tokens = dataset.tokens(np.arange(dataset.item_num))
    folder, name = dataset.config["data_path"], dataset.dataset_name
    try:
        fields = default_fields(folder, name)
        field = min(fields, key=lambda one: one != USUAL_FIELDS[0])
        texts = item_texts(folder, name, [field], dataset.iid_field).texts
    except MMError:
        texts = {}
    return [_cell(texts.get(token, ""), token) for token in tokens]


def _cell(title: str, token: str) -> str:
    """Return an item's name as it may stand in a table."""
    short = title if len(title) <= _TITLE else title[: _TITLE - 3].rstrip() + "..."
    return (f"{short} ({token})" if short else token).replace("|", "\\|")


@torch.no_grad()
def _case(prepared: Prepared, row: int, titles: Sequence[str], topk: int) -> Iterator[str]:
    """Yield the lines about one test row."""
    dataset, model = prepared.dataset, prepared.model.eval()
    rows = dataset.rows("test")
    target, history = int(rows.target[row]), rows.history[row][: rows.length[row]]
    batch = prepared.test.collate_fn([row])[0].to(prepared.config["device"])
    items = torch.tensor([target])
    scores = {
        name: mask_history(table, batch, items, prepared.config)
        for name, table in _scores(model, batch)
    }
    shown = [titles[item] for item in history[-_HISTORY:]]
    more = f" ({len(history) - _HISTORY} older ones left out)" if len(history) > _HISTORY else ""
    ranks = [f"{name} {_rank(table, target)}" for name, table in scores.items()]
    masked = ", no candidates" if is_masked(prepared.config) else ""
    yield f"History{masked}{more}: {' → '.join(shown)}"
    yield ""
    yield f"Target: **{titles[target]}**, rank by {', '.join(ranks)}"
    yield ""
    yield from _table({n: _best(table, topk) for n, table in scores.items()}, titles, {target})
    lists = model.item_neighbours(target) if isinstance(model, HasItemNeighbours) else {}
    if lists:
        found = [set(map(int, one)) for one in lists.values()]
        shared = set.intersection(*found) if len(found) > 1 else set()
        yield ""
        yield f"Most like the target; bold in all lists ({len(shared)}):"
        yield ""
        yield from _table({name: list(one)[:topk] for name, one in lists.items()}, titles, shared)


def _scores(model: AbstractRecommender, batch: Interaction) -> Iterator[tuple[str, Tensor]]:
    """Yield the whole score ``(1, n_items)`` and each of its parts."""
    yield WHOLE, model.full_sort_predict(batch).view(len(batch), -1)
    if isinstance(model, HasScoreParts):
        yield from model.score_parts(batch).items()


def _best(scores: Tensor, topk: int) -> list[int]:
    """Return the first items of a table ``(1, n_items)``, without those that are struck out."""
    best = scores[0, 1:].topk(min(topk, scores.shape[1] - 1))
    struck = best.values <= torch.finfo(scores.dtype).min
    return [int(item) + 1 for item in best.indices[~struck]]


def _rank(scores: Tensor, target: int) -> int:
    """Return the target's rank as the run's metrics count it."""
    return int(target_ranks(scores, torch.tensor([target]))[0][0])


def _table(
    lists: Mapping[str, Iterable[int]], titles: Sequence[str], bold: set[int]
) -> Iterator[str]:
    """Yield a table with one column of items per list."""
    columns = [list(map(int, one)) for one in lists.values()]
    yield f"| | {' | '.join(lists)} |"
    yield "|---" * (len(columns) + 1) + "|"
    for place in range(max(map(len, columns), default=0)):
        items = [column[place] if place < len(column) else 0 for column in columns]
        cells = [f"**{titles[i]}**" if i in bold else titles[i] if i else "" for i in items]
        yield f"| {place + 1} | {' | '.join(cells)} |"
