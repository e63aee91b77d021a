"""Items after training: content from their own vectors, what is learned by id filled."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_mm import cli
from recbole_mm.data.atomic import read_atomic
from recbole_mm.data.itememb import write_itememb
from recbole_mm.encode import encode_image, encode_text
from recbole_mm.encode.text.tfidf import TfidfEncoder
from recbole_mm.errors import DataError, EncodeError, FeatureError
from recbole_mm.evaluation.new_items import fill_unseen, nearest_known
from recbole_mm.run import run
from recbole_mm.serve.recommender import Recommender
from recbole_mm.testing.case import SMALL, write_toy

from ..encode.conftest import needs, noise, tiny_vision

SESSIONS = [["i0003", "i0017"], ["i0030"], ["i0041", "i0007", "i0020"]]


def twin_of(recommender: Recommender, item: str) -> tuple[list[dict], dict]:
    """Return a new item with the vectors and columns of a known one, and one without any."""
    dataset = recommender.restored.dataset
    number = recommender.items.index[item]
    columns = dataset.item_columns
    row = {name: columns.cells[name][number] for name in columns.types}
    features = dataset.item_features
    tables = features.tables if features is not None else {}
    vectors = {name: {"twin": table[number].numpy()} for name, table in tables.items()}
    return [{"item_id": "twin", **row}, {"item_id": "bare"}], vectors


@pytest.mark.parametrize("policy", ["neighbours", "zero"])
@pytest.mark.parametrize(
    "model",
    [
        "SRIM",
        "AlterRec",
        "MDSRec",
        "MMSBR",
        "ContentKNN",
        "SASRec",
        "SASRecF",
        "Pop",
        "FDSA",
        "LLM2BERT4Rec",
        "CoHHN",
        "MISSRec",
        "UniSRec",
        "DIMO",
    ],
)
def test_known_items_keep_their_scores_and_new_ones_get_some(model, policy, packed) -> None:
    known = Recommender.load(packed(model))
    longer = known.with_new_items(*_with_policy(twin_of(known, "i0005"), policy))
    sessions = [[known.items.index[item] for item in session] for session in SESSIONS]
    before = known.scorer.scores(known.scorer.rows(sessions))
    after = longer.scorer.scores(longer.scorer.rows(sessions))
    count = len(known.items)
    assert after.shape[1] == count + 2 and longer.items.tokens[count:] == ["twin", "bare"]
    torch.testing.assert_close(after[:, :count], before, rtol=1e-5, atol=1e-6)
    assert after[:, count:].isfinite().all()
    found = longer.recommend([["twin"], ["twin", "i0003"], ["bare"]], 62)
    assert all(one.note == "" and len(one.items) == 62 for one in found)
    # What was loaded is as it was.
    assert torch.equal(known.scorer.scores(known.scorer.rows(sessions)), before)


def _with_policy(given: tuple[list[dict], dict], policy: str) -> tuple[list[dict], str, dict]:
    return given[0], policy, given[1]


def test_the_content_part_of_a_twin_is_that_of_its_like(packed) -> None:
    known = Recommender.load(packed("AlterRec"))
    longer = known.with_new_items(*_with_policy(twin_of(known, "i0005"), "zero"))
    rows = longer.scorer.rows([[3, 17], [30]])
    parts = longer.restored.model.score_parts(rows)
    like, twin, bare = longer.items.index["i0005"], longer.items.index["twin"], -1
    torch.testing.assert_close(parts["text"][:, twin], parts["text"][:, like])
    # Nothing is known of its id: its row is zero, like that of any other new item.
    torch.testing.assert_close(parts["id"][:, twin], parts["id"][:, bare])
    assert ((parts["id"][:, like] - parts["id"][:, twin]).abs() > 1e-3).all()
    cosines = Recommender.load(packed("ContentKNN"))
    longer = cosines.with_new_items(*_with_policy(twin_of(cosines, "i0005"), "zero"))
    scores = longer.scorer.scores(longer.scorer.rows([[3, 17], [5]]))
    torch.testing.assert_close(
        scores[:, longer.items.index["twin"]], scores[:, longer.items.index["i0005"]],
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip


def test_neighbours_by_hand(packed) -> None:
    """The mean of the ten trained items of the largest cosine; the twin is the first of them."""
    known = Recommender.load(packed("AlterRec"))
    longer = known.with_new_items(*_with_policy(twin_of(known, "i0005"), "neighbours"))
    features = known.restored.dataset.item_features
    table, mask = features.tables["text"].numpy(), features.masks["text"].numpy()
    like = known.items.index["i0005"]
    lengths = np.linalg.norm(table, axis=1) * np.linalg.norm(table[like])
    cosines = np.where(mask, table @ table[like] / np.where(lengths > 0, lengths, 1), -2)
    cosines[known.items.clicks == 0] = -2
    nearest = np.argsort(-cosines)[:10]
    assert nearest[0] == like
    name = next(n for n, w in known.restored.model.named_parameters() if len(w) == len(known.items))
    before = dict(known.restored.model.named_parameters())[name].detach().numpy()
    after = dict(longer.restored.model.named_parameters())[name].detach().numpy()
    np.testing.assert_allclose(after[len(known.items)], before[nearest].mean(axis=0), rtol=1e-5)
    assert not after[len(known.items) + 1].any()


def test_unseen_items_are_filled_in_place(packed) -> None:
    restored = Recommender.load(packed("AlterRec")).restored
    clicks = restored.items.clicks.copy()
    clicks[[5, 8]] = 0
    near = nearest_known(restored.dataset.item_features, clicks, np.array([5, 8]))
    assert not {5, 8} & set(near.flatten().tolist())
    weight = dict(restored.model.named_parameters())
    before = {name: one.detach().clone() for name, one in weight.items()}
    filled = fill_unseen(restored.model, len(clicks), np.array([5, 8]), near)
    assert filled and set(filled) < set(weight)
    for name, one in weight.items():
        expected = before[name]
        if name in filled:
            expected[5], expected[8] = before[name][near[0]].mean(0), before[name][near[1]].mean(0)
        torch.testing.assert_close(one.detach(), expected)


def test_bad_new_items_are_named(packed) -> None:
    known = Recommender.load(packed("AlterRec"))
    for rows, error, message in (
        ([], DataError, "there are no new items"),
        ([{"item_id": "i0003"}], DataError, "known already"),
        ([{"item_id": "n"}, {"item_id": "n"}], DataError, "there twice"),
        ([{"title": "x"}], DataError, "empty"),
    ):
        with pytest.raises(error, match=message):
            known.with_new_items(rows)
    for vector, message in (([1.0], "expected"), ([float("nan")] * 12, "finite"), ("x", "numbers")):
        with pytest.raises(FeatureError, match=message):
            known.with_new_items([{"item_id": "n"}], vectors={"text": {"n": vector}})
    with pytest.raises(DataError, match="neighbours or zero"):
        known.with_new_items([{"item_id": "n"}], "mean")
    priced = Recommender.load(packed("MMSBR"))
    with pytest.raises(DataError, match="the price of the new item 'n' is 'cheap'"):
        priced.with_new_items([{"item_id": "n", "price": "cheap"}])


def test_the_command_takes_a_table_and_vectors(packed, tmp_path, capsys) -> None:
    pack = packed("ContentKNN")
    table = Recommender.load(pack).restored.dataset.item_features.tables["text"].numpy()
    write_itememb(tmp_path / "v.itememb", "text", ["new"], table[[6]])
    (tmp_path / "new.csv").write_text("item_id,title,class\nnew,A new thing,kind1\n")
    (tmp_path / "s.jsonl").write_text('["i0005"]\n["new"]\n')
    command = [
        "recommend", f"--run={pack}", f"--sessions={tmp_path / 's.jsonl'}", "--topk=4",
        f"--new_items={tmp_path / 'new.csv'}", f"--new_vectors=text={tmp_path / 'v.itememb'}",
        f"--output={tmp_path / 'o.jsonl'}",
    ]  # fmt: skip
    assert cli.main(command) == 0, capsys.readouterr()
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    items = [[item["item_id"] for item in line["items"]] for line in lines]
    # Item 6 is i0005, and each is the most like the other; own items may come last.
    assert items[0].index("new") < 2 and items[1].index("i0005") < 2
    capsys.readouterr()
    assert lines[1]["skipped"] == 0 and lines[1]["note"] == ""
    title = next(item["title"] for item in lines[0]["items"] if item["item_id"] == "new")
    assert title == "A new thing"
    for wrong in (["--new_items=none.csv"], ["--new_vectors=text"], ["--new_vectors=text=none"]):
        assert cli.main([*command[:4], *wrong]) == 2
        assert capsys.readouterr().err.startswith("error: "), wrong


def words(folder: Path) -> Path:
    """Write a toy whose text vectors count the words of its items."""
    write_toy(folder, SMALL, [])
    encode_text(folder / SMALL.name, SMALL.name, fields=["class"], encoder="tfidf")
    return folder


@pytest.fixture(scope="module")
def counted(tmp_path_factory) -> tuple[Path, Path]:
    """Return the data, and the pack of a model on vectors of counted words."""
    data = words(tmp_path_factory.mktemp("words"))
    keys = {
        "data_path": str(data), "run_folder": str(data / "run"), "use_gpu": False, "floor": False,
        "modality": "text", "text_encoder": "tfidf",
    }  # fmt: skip
    run("ContentKNN", SMALL.name, (), keys)
    return data, Recommender.load(data / "run").pack(data / "pack")


def test_new_texts_are_encoded_by_the_words_of_the_catalogue(counted, tmp_path, capsys) -> None:
    """Equal to what the encoder itself gives; the data are not asked for."""
    data, pack = counted
    known = Recommender.load(pack)
    texts = {"n1": "kind1 kind4 kind4", "n2": "kind0", "n3": "nothing like it", "n4": None}
    rows = [{"item_id": token, "class": text} for token, text in texts.items()]
    longer = known.with_new_items(rows)
    features = longer.restored.dataset.item_features
    frame = read_atomic(data / SMALL.name / f"{SMALL.name}.item", ["class"])
    encoder = TfidfEncoder([cell for cell in frame["class"] if cell], Path())
    expected, _ = encoder.encode([text or "" for text in texts.values()])
    # Directions are kept to single precision.
    np.testing.assert_allclose(features.table("text")[-4:], expected, atol=1e-6)
    assert features.mask("text")[-4:].tolist() == [True, True, False, False]
    # What it knows already gets its own vector once more.
    twin = frame["class"][5]
    again = known.with_new_items([{"item_id": "twin", "class": twin}]).restored.dataset
    like = known.items.index["i0005"]
    found = again.item_features.table("text")
    np.testing.assert_allclose(found[-1], found[like], atol=1e-6)
    (tmp_path / "new.csv").write_text("item_id,class\nn1,kind1 kind4\n")
    (tmp_path / "s.jsonl").write_text('["n1"]\n')
    moved = shutil.copytree(pack, tmp_path / "elsewhere")
    command = [
        "recommend", f"--run={moved}", f"--sessions={tmp_path / 's.jsonl'}", "--topk=3",
        f"--new_items={tmp_path / 'new.csv'}",
    ]  # fmt: skip
    assert cli.main(command) == 0
    assert capsys.readouterr().out.count("\n") == 4


def test_texts_that_changed_since_cannot_be_fitted_on_again(tmp_path) -> None:
    data = words(tmp_path)
    keys = {"data_path": str(data), "run_folder": str(data / "run"), "use_gpu": False,
            "modality": "text", "text_encoder": "tfidf", "floor": False}  # fmt: skip
    run("ContentKNN", SMALL.name, (), keys)
    loaded = Recommender.load(data / "run")
    path = data / SMALL.name / f"{SMALL.name}.item"
    path.write_text(path.read_text().replace("kind1", "kind9"))
    known = Recommender.load(loaded.pack(data / "pack"))
    with pytest.raises(EncodeError, match="texts that had changed when the model was packed"):
        known.with_new_items([{"item_id": "n", "class": "kind0 kind4"}])
    assert known.with_new_items([{"item_id": "n"}])


def test_new_items_of_which_nothing_can_be_encoded_have_no_content(counted) -> None:
    longer = Recommender.load(counted[1]).with_new_items([{"item_id": "n", "class": "unheard of"}])
    assert not longer.restored.dataset.item_features.mask("text")[-1]


def test_the_picture_of_a_new_item_is_encoded_as_in_training(tmp_path, capsys) -> None:
    """A tiny random vision model, real files; its twin gets the same vector."""
    needs("sentence_transformers", "PIL", "torchvision")
    from PIL import Image

    torch.manual_seed(0)
    network, prepare = tiny_vision("vit")
    for part in (network.eval(), prepare):
        part.save_pretrained(tmp_path / "vit")
    write_toy(tmp_path, SMALL, [])
    place = tmp_path / "pictures"
    place.mkdir()
    for number in range(20):
        Image.fromarray(noise(number)).save(place / f"i{number:04d}.png")
    data = tmp_path / SMALL.name
    encode_image(data, SMALL.name, images=place, encoder=str(tmp_path / "vit"))
    keys = {"data_path": str(tmp_path), "run_folder": str(tmp_path / "run"), "use_gpu": False,
            "modality": "image", "floor": False}  # fmt: skip
    run("ContentKNN", SMALL.name, (), keys)
    pack = Recommender.load(tmp_path / "run").pack(tmp_path / "pack")
    shutil.rmtree(data)
    shutil.copy(place / "i0007.png", tmp_path / "seven.png")
    Image.fromarray(noise(99)).save(tmp_path / "other.jpg")
    known = Recommender.load(pack)
    rows = [
        {"item_id": "twin/7", "image": str(tmp_path / "seven.png")},
        {"item_id": "other", "image": str(tmp_path / "other.jpg")},
        {"item_id": "bare", "image": None},
    ]
    features = known.with_new_items(rows).restored.dataset.item_features
    table, mask = features.table("image"), features.mask("image")
    assert mask[-3:].tolist() == [True, True, False]
    like = table[known.items.index["i0007"]]
    torch.testing.assert_close(table[-3], like, atol=1e-6, rtol=0)
    assert (table[-2] - like).abs().max() > 1e-4
    (tmp_path / "new.csv").write_text(f"item_id,image\nnew,{tmp_path / 'seven.png'}\n")
    (tmp_path / "s.jsonl").write_text('["i0007"]\n')
    command = [
        "recommend", f"--run={pack}", f"--sessions={tmp_path / 's.jsonl'}", "--topk=2",
        f"--new_items={tmp_path / 'new.csv'}", f"--output={tmp_path / 'o.jsonl'}",
    ]  # fmt: skip
    assert cli.main(command) == 0, capsys.readouterr()
    items = [one["item_id"] for one in json.loads((tmp_path / "o.jsonl").read_text())["items"]]
    assert "new" in items
    with pytest.raises(EncodeError, match="the picture nowhere.png of the new item 'n' is not"):
        known.with_new_items([{"item_id": "n", "image": "nowhere.png"}])
    capsys.readouterr()
    Path(tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "new.csv").write_text(f"item_id,image\nnew,{tmp_path / 'broken.png'}\n")
    assert cli.main(command) == 2
    assert capsys.readouterr().err.count("\n") == 1
