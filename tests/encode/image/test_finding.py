"""Pictures that a column of the item table names: paths, addresses, and what dataset.json says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recbole_mm.cli import main
from recbole_mm.data.itememb import read_itememb
from recbole_mm.encode import encode_image
from recbole_mm.encode.image.job import NoPicturesError
from recbole_mm.encode.manifest import load_manifest, manifest_path
from recbole_mm.errors import EncodeError

from ..conftest import needs, noise

needs("PIL", "torchvision", "sentence_transformers")

from PIL import Image  # noqa: E402

GOODS = """sku,name,photo
a,Tea,pics/green tea.jpg
b,Cup,pics/gone.jpg
c,Pot,http://127.0.0.1:9/pot.jpg
d,Mug,
e,Jug,
"""
CLICKS = "session,sku,time\n" + "".join(
    f"s{number},{item},{1_700_000_000 + number * 100 + place}\n"
    for number in range(4)
    for place, item in enumerate("abcde")
)


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Prepare a shop whose item table lies beside its pictures; e has one named by item."""
    tables = tmp_path / "tables"
    (tables / "pics").mkdir(parents=True)
    (tables / "clicks.csv").write_text(CLICKS)
    (tables / "goods.csv").write_text(GOODS)
    Image.fromarray(noise(1)).save(tables / "pics" / "green tea.jpg")
    Image.fromarray(noise(2)).save(tables / "pics" / "e.png")
    argv = ["prepare", "tabular", f"--out={tmp_path}/data", "--dataset=shop"]
    assert main([*argv, f"--inter={tables}/clicks.csv", f"--items={tables}/goods.csv"]) == 0
    capsys.readouterr()
    return tmp_path


def test_paths_begin_at_the_item_table_and_need_no_option(shop, clip, capsys) -> None:
    argv = ["encode", "--dataset=shop", f"--data_path={shop}/data", "--modality=image"]
    assert main([*argv, f"--image_encoder={clip}"]) == 0
    path = shop / "data" / "shop" / "shop.image.itememb"
    assert read_itememb(path, "image").ids == ["a"]
    missing = load_manifest(manifest_path(path)).missing
    assert missing["b"] == "no file pics/gone.jpg"
    assert missing["c"] == "an address; name the column (--image_col) to fetch it"
    assert missing["d"] == missing["e"] == "no picture"


def test_a_folder_serves_paths_and_pictures_named_by_item(shop, clip) -> None:
    folder, pics = shop / "data" / "shop", shop / "tables" / "pics"
    path = encode_image(folder, "shop", images=pics, encoder=str(clip))
    assert read_itememb(path, "image").ids == ["e"]  # paths begin at --images now
    moved = encode_image(folder, "shop", shop / "out", images=shop / "tables", encoder=str(clip))
    emb = read_itememb(moved, "image")
    assert emb.ids == ["a", "e"]
    alone = read_itememb(path, "image").vectors
    np.testing.assert_allclose(emb.vectors[1], alone[0], atol=1e-5)


def test_addresses_are_fetched_only_where_the_column_is_named(shop, clip) -> None:
    folder = shop / "data" / "shop"
    path = encode_image(folder, "shop", image_col="photo", encoder=str(clip))
    missing = load_manifest(manifest_path(path)).missing
    assert missing["c"].startswith("http://127.0.0.1:9/pot.jpg: ")


def test_the_old_name_of_the_option_is_answered(shop, capsys) -> None:
    argv = ["encode", "--dataset=shop", f"--data_path={shop}/data", "--image_urls=photo"]
    assert main(argv) == 2
    assert "--image_urls is called --image_col now" in capsys.readouterr().err


def test_a_wrong_column_and_no_pictures_at_all(shop, clip) -> None:
    folder = shop / "data" / "shop"
    with pytest.raises(Exception, match="column.s. photos not found"):
        encode_image(folder, "shop", image_col="photos", encoder=str(clip))
    with pytest.raises(EncodeError, match="no picture of any of the 5 items"):
        encode_image(folder, "shop", image_col="name", encoder=str(clip))
    item = folder / "shop.item"
    item.write_text(item.read_text().replace("Tea", "long " * 300), encoding="utf-8")
    with pytest.raises(EncodeError, match="no file long long") as caught:
        encode_image(folder, "shop", image_col="name", encoder=str(clip))
    assert len(str(caught.value)) < 700
    (folder / "dataset.json").unlink()
    with pytest.raises(NoPicturesError, match="--image_col=COLUMN"):
        encode_image(folder, "shop", encoder=str(clip))
