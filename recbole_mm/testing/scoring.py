"""Checks of a model's scores: shape, padding, neighbours in the batch, target, caches."""

from __future__ import annotations

import random

import torch
from recbole.model.abstract_recommender import AbstractRecommender
from torch import Tensor, nn

from recbole_mm import stock
from recbole_mm.data.batches import cut_to_longest
from recbole_mm.testing.case import Case, Failed, changed, restore, scores, snapshot, step, total

TOLERANCE = 1e-5


def _difference(left: Tensor, right: Tensor) -> float:
    """Return the largest difference of two score tables, in units of the largest score.

    The padding item's column is left out.
    """
    left, right = left[:, 1:].double(), right[:, 1:].double()
    return float((left - right).abs().max() / left.abs().max().clamp_min(1e-9))


def _require_equal(left: Tensor, right: Tensor, what: str) -> None:
    """Fail unless two score tables agree to the tolerance."""
    difference = _difference(left, right)
    if not difference <= TOLERANCE:  # also catches NaN
        raise Failed(
            f"scores differ by {difference:.2g} of their size {what}", f"at most {TOLERANCE:g}"
        )


def _require_same(left: Tensor, right: Tensor, what: str) -> None:
    """Fail unless two score tables agree in every bit."""
    if not torch.equal(left, right):
        raise Failed(
            f"scores differ by {_difference(left, right):.2g} of their size {what}", "equal bits"
        )


def _require_finite(table: Tensor, what: str) -> None:
    """Fail if a score other than the padding item's is not finite."""
    wrong = int((~table[:, 1:].isfinite()).sum())
    if wrong:
        raise Failed(f"{wrong} scores {what} are not finite", "finite scores of all items")


def check_scores(case: Case) -> str | None:
    """Demand a finite score per row and item from ``full_sort_predict``, in RecBole's shape."""
    model, batch = case.twin(), case.batch()
    n_items = case.trained.prepared.dataset.item_num
    with torch.no_grad():
        raw = model.full_sort_predict(batch)
    if tuple(raw.shape) not in ((len(batch) * n_items,), (len(batch), n_items)):
        raise Failed(
            f"full_sort_predict gave shape {tuple(raw.shape)} for {len(batch)} rows",
            f"({len(batch)}, {n_items}) or flattened",
        )
    _require_finite(raw.view(len(batch), n_items), "of the first validation rows")
    return None


def check_batch_of_one(case: Case) -> str | None:
    """Score one row alone, and train on it if the model is trained by gradients."""
    model = case.twin()
    _require_finite(scores(model, case.batch(case.rows(1))), "of a batch of one row")
    if case.learns:
        rows = case.trained.prepared.train.dataset.inter_feat[:1]
        loss = step(model.train(), case.train_batches(rows)[0], torch.optim.SGD(_weights(model)))
        if not abs(loss) < torch.inf:
            raise Failed(f"the loss of a batch of one row is {loss}", "a finite loss")
    return None


def check_session_of_one(case: Case) -> str | None:
    """Score sessions of one item, alone and beside longer ones."""
    model, rows, fields = case.twin(), case.rows(), case.fields
    history = torch.zeros_like(rows[fields.history])
    history[:, 0] = rows[fields.history][:, 0]
    half = torch.arange(len(rows)) % 2 == 0
    history[half] = rows[fields.history][half]
    lengths = torch.where(half, rows[fields.length], 1)
    short = changed(rows, **{fields.history: history, fields.length: lengths})
    _require_finite(scores(model, case.batch(short)), "of sessions of one item")
    _require_finite(scores(model, case.batch(short[1:2])), "of one session of one item")
    return None


def check_padding_columns(case: Case) -> str | None:
    """Compare scores with and without columns of padding behind the longest session.

    Also the loss of a training batch, where the model says that it ignores such columns.
    """
    model, fields = case.twin(), case.fields
    rows = case.trained.prepared.valid.dataset.inter_feat
    width = rows[fields.history].shape[1] // 2
    short = case.batch(rows[rows[fields.length] <= width][:32])
    narrow = changed(short, **{fields.history: short[fields.history][:, :width]})
    what = f"between sessions padded to {width} and to {2 * width} items"
    _require_equal(scores(model, short), scores(model, narrow), what)
    if case.learns and stock.ignores_padding(type(model)):
        _require_loss_of_cut_rows(case, model)
    return None


def _require_loss_of_cut_rows(case: Case, model: AbstractRecommender) -> None:
    """Fail unless short training rows give the same loss with all columns and with fewer."""
    fields, losses = case.fields, []
    rows = case.trained.prepared.train.dataset.inter_feat
    rows = rows[rows[fields.length] <= 2][:32]
    for batch in (rows, cut_to_longest(rows, [fields.history], fields.length)):
        torch.manual_seed(0)
        random.seed(0)  # for RecBole's transforms
        losses.append(float(total(model.calculate_loss(case.train_batches(batch)[0])).detach()))
    if not abs(losses[0] - losses[1]) <= TOLERANCE * max(1.0, abs(losses[0])):
        raise Failed(
            f"cut to 2 columns, training rows have the loss {losses[1]:g} instead of {losses[0]:g}",
            "equal losses, or ignores_padding = False in the class",
        )


def check_batch_neighbours(case: Case) -> str | None:
    """Compare a row's scores in a batch, in another order, and alone."""
    model, rows = case.twin(), case.rows()
    together = scores(model, case.batch(rows))
    for number in range(4):
        alone = scores(model, case.batch(rows[number : number + 1]))
        _require_equal(together[number : number + 1], alone, "between a row in a batch and alone")
    backwards = scores(model, case.batch(rows[list(range(len(rows)))[::-1]]))
    _require_equal(together, backwards.flip(0), "between a batch and the same in reverse order")
    return None


def check_padding_item(case: Case) -> str | None:
    """Make sure that padding is never ranked, and that its vector changes no item's score."""
    fit, model, batch = case.trained, case.twin(), case.batch()
    loaded = next(iter(fit.prepared.valid))
    ranked = fit.trainer._full_sort_batch_eval(loaded)[1]
    if bool((ranked[:, 0] != -torch.inf).any()):
        raise Failed("evaluation gives the padding item a score", "-inf")
    before = scores(model, batch)
    rows = _padding_rows(model, fit.prepared.dataset.item_num)
    with torch.no_grad():
        for row in rows:
            row.copy_(3.0 + torch.arange(len(row), dtype=row.dtype))
    what = "when the padding item's vector changes"
    _require_equal(before, scores(model.eval(), batch), what)
    return None if rows else "the model has no item table with a row for the padding item"


def _padding_rows(model: nn.Module, n_items: int) -> list[Tensor]:
    """Return the padding rows of all item tables, as views."""
    rows = {
        id(part.weight): part.weight[part.padding_idx]
        for part in model.modules()
        if isinstance(part, nn.Embedding) and part.padding_idx is not None
    }
    for weight in model.parameters():
        if weight.ndim == 2 and weight.shape[0] == n_items:
            rows.setdefault(id(weight), weight[0])
    return list(rows.values())


def check_missing_features(case: Case) -> str | None:
    """Demand finite scores of sessions of items without features."""
    model, dataset = case.twin(), case.trained.prepared.dataset
    if dataset.item_features is None:
        return "the model reads no feature files"
    masks = torch.stack(list(dataset.item_features.masks.values()))
    bare = torch.nonzero(~masks.any(dim=0)).flatten()[1:]
    rows, fields = case.rows(len(bare)), case.fields
    history = torch.zeros_like(rows[fields.history])
    history[:, 0], history[:, 1] = bare, bare.flip(0)
    lengths = torch.full_like(rows[fields.length], 2)
    columns = {fields.history: history, fields.length: lengths, fields.target: bare}
    table = scores(model, case.batch(changed(rows, **columns)))
    _require_finite(table, "of sessions of items without features")
    return None


def check_target_unread(case: Case) -> str | None:
    """Exchange the rows' targets; no bit of the scores may change."""
    model, rows, target = case.twin(), case.rows(), case.fields.target
    targets = rows[target]
    for other in (targets.roll(1), targets.flip(0)):
        exchanged = case.batch(changed(rows, **{target: other}))
        what = "when the targets are exchanged"
        _require_same(scores(model, case.batch(rows)), scores(model, exchanged), what)
    return None


def check_predict_agrees(case: Case) -> str | None:
    """Compare ``predict`` with the column of ``item_id`` in ``full_sort_predict``."""
    model, batch = case.twin(), case.batch()
    try:
        with torch.no_grad():
            single = model.predict(batch)
    except NotImplementedError:
        return "the model has no predict"
    if tuple(single.shape) != (len(batch),):
        raise Failed(f"predict gave shape {tuple(single.shape)}", f"({len(batch)},)")
    column = scores(model, batch).gather(1, batch[case.fields.target].unsqueeze(1))
    padded = [torch.cat([torch.zeros_like(x), x], dim=1) for x in (single.unsqueeze(1), column)]
    _require_equal(padded[0], padded[1], "between predict and full_sort_predict")
    return None


def check_cache(case: Case) -> str | None:
    """Make sure that scores belong to the present weights, whatever the model has cached."""
    model, batch = case.twin(), case.batch()
    weights, first = snapshot(model), scores(model, batch)
    _require_same(first, scores(model, batch), "between two evaluations in a row")
    if case.learns:
        step(model.train(), case.train_batches()[0], torch.optim.Adam(_weights(model), lr=0.1))
    else:
        model.train().calculate_loss(case.train_batches()[0])
    after = scores(model.eval(), batch)
    what = "between a model after a training step and a new one with the same weights"
    _require_same(scores(case.twin(model), batch), after, what)
    counted = not case.learns and torch.equal(first, after)
    if torch.equal(first, after) and not counted:
        raise Failed("a training step changed no score", "other scores")
    restore(model, weights)
    what = "between a model and itself after its weights were loaded back"
    _require_same(first, scores(model, batch), what)
    return "the model counted when it was built; training changes nothing" if counted else None


def _weights(model: nn.Module) -> list[nn.Parameter]:
    """Return the trainable parameters."""
    return [weight for weight in model.parameters() if weight.requires_grad]
