"""What the names and the order of items may change, and what not.

Ids are the sorted tokens, so the order of rows in no file matters at all. New names in another
order give other ids; weights are drawn by id, so such a run starts elsewhere, as with another
seed. That cannot be had otherwise together with independence of the rows' order: where two items
first occur at one time, nothing but their names or the file could tell which comes first. What
must hold is that nothing else depends on ids: the same weights under new names give the same
scores.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_mm.config import MMConfig
from recbole_mm.data.itememb import itememb_path, read_itememb, write_itememb
from recbole_mm.run import run
from recbole_mm.run.prepared import Prepared, prepare
from recbole_mm.testing.case import SMALL, write_toy

MODELS = ["SASRec", "GRU4Rec", "SRIM", "AlterRec", "NFRec", "MMSBR", "MDSRec"]
COUNTING = ["Counting", "SPop", "SessionRules", "SessionKNN", "ContentKNN", "Pop"]
Rename = Callable[[str], str]


def backwards(token: str) -> str:
    """Turn the sorting order of the items round."""
    return f"x{999 - int(token[1:]):03d}"


def longer(token: str) -> str:
    """Keep the sorting order."""
    return f"name-{token}"


def write(folder: Path, rename: Rename, seed: int | None = None) -> Path:
    """Write the toy with other names and, with a seed, other orders of rows in every file."""
    write_toy(folder, SMALL, ("text", "image"))
    place = folder / SMALL.name
    for name in ("toy.inter", "toy.item"):
        lines = (place / name).read_text().splitlines()
        column = lines[0].split("\t").index("item_id:token")
        rows = [line.split("\t") for line in mixed(lines[1:], seed)]
        for row in rows:
            row[column] = rename(row[column])
        (place / name).write_text("\n".join([lines[0], *map("\t".join, rows)]) + "\n")
    for modality in ("text", "image"):
        path = itememb_path(place, SMALL.name, modality)
        emb = read_itememb(path, modality)
        order = mixed(range(len(emb.ids)), seed)
        path.unlink()
        write_itememb(
            path, modality, [rename(emb.ids[row]) for row in order], emb.vectors[list(order)]
        )
    return folder


def mixed(rows: list | range, seed: int | None) -> list:
    if seed is None:
        return list(rows)
    return [rows[k] for k in np.random.default_rng(seed).permutation(len(rows))]


def settings(folder: Path, **more: object) -> dict[str, object]:
    return {"data_path": str(folder), "run_folder": str(folder / "run"), "epochs": 1,
            "use_gpu": False, "floor": False, "train_batch_size": 64, **more}  # fmt: skip


@pytest.mark.parametrize("model", ["SASRec", "SRIM", "MMSBR", "Counting", "SessionKNN"])
@pytest.mark.parametrize(("rename", "seed"), [(longer, None), (str, 5)], ids=["names", "rows"])
def test_order_of_rows_and_names_in_the_same_order_change_nothing(
    model: str, rename: Rename, seed: int | None, tmp_path: Path
) -> None:
    first = run(model, SMALL.name, (), settings(write(tmp_path / "a", str))).record
    second = run(model, SMALL.name, (), settings(write(tmp_path / "b", rename, seed))).record
    for key in ("valid", "test", "ranks", "history"):
        assert first[key] == second[key], key  # type: ignore[literal-required]


def prepared(model: str, folder: Path) -> Prepared:
    return prepare(MMConfig(model, SMALL.name, (), settings(folder)))


def places(there: Prepared, here: Prepared, rename: Rename) -> torch.Tensor:
    """Return, for each id of ``there``, the id of the same item in ``here``."""
    field = here.dataset.iid_field
    tokens, ids = here.dataset.field2id_token[field], there.dataset.field2token_id[field]
    place = torch.zeros(len(tokens), dtype=torch.long)
    for number, token in enumerate(tokens[1:], start=1):
        place[ids[rename(token)]] = number
    return place


def move(value: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Reorder every axis that runs over the items."""
    for axis, size in enumerate(value.shape):
        if size == len(place):
            value = value.index_select(axis, place)
    return value


def drawn(one: Prepared) -> dict[str, torch.Tensor]:
    """Return what is drawn at random: weights, and MDSRec's groups, which k-means starts from."""
    groups = {name: b for name, b in one.model.named_buffers() if name.endswith("labels")}
    return {**dict(one.model.named_parameters()), **groups}


@pytest.mark.parametrize("model", MODELS)
def test_the_same_weights_under_new_names_give_the_same_scores(model: str, tmp_path: Path) -> None:
    here = prepared(model, write(tmp_path / "a", str))
    there = prepared(model, write(tmp_path / "b", backwards))
    place = places(there, here, backwards)
    with torch.no_grad():
        for name, value in drawn(here).items():
            drawn(there)[name].copy_(move(value, place))
    there.model.load_state_dict(there.model.state_dict())  # drops what was cached
    batches = [next(iter(one.test))[0] for one in (here, there)]
    scores = [
        one.model.eval().full_sort_predict(batch).detach().view(len(batch), -1)
        for one, batch in zip((here, there), batches, strict=True)
    ]
    torch.testing.assert_close(
        scores[1][:, 1:], scores[0].index_select(1, place)[:, 1:], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("model", COUNTING)
def test_counting_models_do_not_know_names(model: str, tmp_path: Path) -> None:
    """No weights are drawn, and tied items share their mean position: all numbers are the same."""
    keys = {"modality": "image"} if model == "ContentKNN" else {}
    first = run(model, SMALL.name, (), settings(write(tmp_path / "a", str), **keys)).record
    there = settings(write(tmp_path / "b", backwards), **keys)
    second = run(model, SMALL.name, (), there).record
    assert first["ranks"] == second["ranks"]
    for key in ("valid", "test", "slices", "tied"):
        assert first[key] == second[key], key  # type: ignore[literal-required]
