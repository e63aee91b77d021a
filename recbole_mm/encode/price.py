"""The job ``recbole-mm encode --modality=price``: prices of the ``.item`` file as vectors."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recbole_mm.data.atomic import header, read_atomic
from recbole_mm.data.prices import parse_prices
from recbole_mm.encode.manifest import Manifest, package_versions
from recbole_mm.encode.store import Store
from recbole_mm.errors import EncodeError
from recbole_mm.files import sha256_file

logger = logging.getLogger(__name__)

MODALITY = "price"
N_BUMPS = 16
# The outermost bumps stand at these quantiles of the catalogue's logarithms.
_ENDS = (0.01, 0.99)


def price_vectors(prices: NDArray[np.float64], n_bumps: int = N_BUMPS) -> NDArray[np.float32]:
    """Return soft levels of prices: how near each is to evenly spaced points, as unit vectors.

    ``v_k = exp(-(ln p - c_k)^2 / (2 w^2))``, ``c_k`` evenly spaced by ``w`` between the first and
    the last percentile of ``ln p``. Prices that are near have a cosine near 1.

    Parameters
    ----------
    prices
        ``(n,)``, above 0, of any currency.
    n_bumps
        Width ``d`` of the vectors.

    Returns
    -------
    numpy.ndarray
        float32 ``(n, d)``, rows of length 1.
    """
    logs = np.log(prices)
    low, high = np.quantile(logs, _ENDS)
    centres = np.linspace(low, high, n_bumps)
    width = max((high - low) / (n_bumps - 1), 1e-6)
    # An outlier is as far as the nearest end allows, lest its row underflow to zeros.
    distance = (np.clip(logs, low - width, high + width)[:, None] - centres) / width
    bumps = np.exp(-0.5 * distance**2)
    unit: NDArray[np.float32] = (bumps / np.linalg.norm(bumps, axis=1)[:, None]).astype(np.float32)
    return unit


def encode_price(
    folder: Path, dataset: str, out: Path, item_field: str = "item_id", column: str = "price"
) -> Path:
    """Write ``<out>/<dataset>.price.itememb`` from a column of the ``.item`` file.

    Items without a readable price get no row.

    Raises
    ------
    EncodeError
        No such file or column, or no price that can be read.
    """
    item_file = folder / f"{dataset}.item"
    names = list(header(item_file)) if item_file.is_file() else []
    if not {item_field, column} <= set(names):
        found = f"its columns are {', '.join(names)}" if names else "there is no such file"
        raise EncodeError(f"{item_file}: expected a column {column} with prices; {found}.")
    rows = read_atomic(item_file, [item_field, column]).drop_duplicates(item_field)
    prices, outcomes = parse_prices(rows[column].astype(str))
    priced = np.isfinite(prices)
    if not priced.any():
        raise EncodeError(f"{item_file}: no price in column {column} can be read ({outcomes}).")
    tokens = [str(token) for token in rows[item_field][priced]]
    manifest = Manifest(
        dataset=dataset,
        modality=MODALITY,
        kind="imported",
        itememb_sha256="",
        dim=N_BUMPS,
        counts={"items": len(tokens), "missing": int((~priced).sum())},
        source={"column": column, "item_sha256": sha256_file(item_file)},
        versions=package_versions(),
    )
    store = Store(out, dataset, MODALITY)
    with store.writing():
        store.previous()
        store.publish(tokens, price_vectors(prices[priced]), manifest)
    logger.info("%s: soft levels of %d prices.", store.path, len(tokens))
    return store.path
