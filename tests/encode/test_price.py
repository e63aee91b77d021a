"""Prices as vectors: soft levels by hand, and the job that writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import recbole_mm
from recbole_mm.cli import main
from recbole_mm.data.itememb import read_itememb
from recbole_mm.encode.price import price_vectors


def test_soft_levels_by_hand() -> None:
    """Two bumps at ln 1 and ln e^2, one apart each: exp(-1/2 d^2), made unit vectors."""
    prices = np.exp(np.linspace(0.0, 2.0, 1001))
    low, high = np.quantile(np.log(prices), [0.01, 0.99])
    found = price_vectors(prices, 3)
    assert found.shape == (1001, 3) and found.dtype == np.float32
    width = (high - low) / 2
    raw = np.exp(-0.5 * ((1.0 - np.array([low, low + width, high])) / width) ** 2)
    np.testing.assert_allclose(found[500], raw / np.linalg.norm(raw), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-6)


def test_near_prices_are_near_and_outliers_stay_finite() -> None:
    prices = np.concatenate([np.geomspace(1, 100, 500), [1e-9, 1e12]])
    found = price_vectors(prices)
    assert np.isfinite(found).all()
    assert found[100] @ found[101] > 0.99 > 0.2 > found[0] @ found[499]
    assert found[-2] @ found[0] > 0.9 and found[-1] @ found[499] > 0.9


def test_one_price_for_all() -> None:
    found = price_vectors(np.full(5, 3.0))
    assert np.isfinite(found).all() and np.allclose(found, found[0])


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    cells = ["$1,299.00", "12.99", "no price", "0", "5"]
    lines = [f"i{n}\t{cell}" for n, cell in enumerate(cells)]
    text = "\n".join(["item_id:token\tprice:token", *lines]) + "\n"
    (folder / "shop.item").write_text(text, "utf-8")
    return tmp_path


def test_the_job_writes_what_can_be_read(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["encode", "--dataset=shop", f"--data_path={shop}", "--modality=price"]
    assert main(command) == 0
    assert "items: 3" in (out := capsys.readouterr().out) and "missing: 2" in out
    found = read_itememb(shop / "shop" / "shop.price.itememb", "price")
    assert list(found.ids) == ["i0", "i1", "i4"]
    expected = price_vectors(np.array([1299.0, 12.99, 5.0]))
    np.testing.assert_allclose(found.vectors, expected, rtol=1e-6)


def test_a_missing_column_is_said(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "shop" / "shop.item").write_text("item_id:token\ttitle:token\ni1\tlamp\n", "utf-8")
    assert main(["encode", "--dataset=shop", f"--data_path={shop}", "--modality=price"]) == 2
    assert "expected a column price with prices; its columns are" in capsys.readouterr().err


def test_the_function_of_the_package_makes_the_same(shop: Path) -> None:
    made = recbole_mm.encode("shop", modality="price", data_path=shop, feature_path=shop / "out")
    assert made == shop / "out" / "shop.price.itememb"
    assert list(read_itememb(made, "price").ids) == ["i0", "i1", "i4"]
