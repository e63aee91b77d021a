"""Reading prices as people write them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_PLAIN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
# Groups of three behind blanks or apostrophes, or digits with points and commas.
_NUMBER = re.compile(r"\d{1,3}(?:[ \u00a0\u202f']\d{3})+(?:[.,]\d+)?(?!\d)|[.,]?\d[\d.,]*")
_CURRENCY = re.compile(
    r"(?:\b|(?<=\d))(?:US|USD|EUR|GBP|JPY|CNY|INR|CAD|AUD|CHF|SEK|NOK|DKK|PLN|BRL|Rs\.?|kr\.?)"
    r"(?=\W|\d|$)|[$€£¥₹₩₽₺฿¢]"
)
_RANGE = re.compile(r"\s*(?:-|–|—|~|to)\s*")
_NEGATIVE = re.compile(r"[-−]\s*[.,]?\d|\(.*\d.*\)$")
_NOTHING = ("", "nan", "none", "null", "n/a", "na", "-", "–", "—")

PARSED, RANGE, EMPTY = "read", "range_read_as_its_mean", "empty"
NOT_POSITIVE, UNREADABLE = "not_positive", "unreadable"


def parse_price(text: str) -> tuple[float, str]:
    """Read one price.

    The rule: currency signs and codes are dropped; of ``.`` and ``,`` the later one is the decimal
    mark, a single ``,`` only if not exactly three digits follow it (``12,99`` is 12.99, ``1,299``
    is 1299), a single ``.`` always; blanks and ``'`` group digits; a range is read as its mean.
    Whatever is zero, negative, infinite, or more than a number or a range, is missing.

    Parameters
    ----------
    text
        The cell.

    Returns
    -------
    tuple
        The price (NaN if missing) and one of the words ``read``, ``range_read_as_its_mean``,
        ``empty``, ``not_positive``, ``unreadable``.
    """
    text = text.strip()
    if text.lower() in _NOTHING:
        return math.nan, EMPTY
    if "\0" in text:  # serves below as the mark of a number
        return math.nan, UNREADABLE
    if _PLAIN.fullmatch(text):
        return _positive([float(text)])
    bare = _CURRENCY.sub("", text).strip()
    if _NEGATIVE.match(bare):
        return math.nan, NOT_POSITIVE
    numbers = [_value(chunk) for chunk in _NUMBER.findall(bare)]
    between = _NUMBER.sub("\0", bare)
    is_range = len(numbers) == 2 and _RANGE.fullmatch(between.strip("\0")) is not None
    if not (between == "\0" or (is_range and between[0] == between[-1] == "\0")):
        return math.nan, UNREADABLE
    return _positive(numbers)


def parse_prices(cells: Iterable[str]) -> tuple[NDArray[np.float64], dict[str, int]]:
    """Read a column of prices; return them (NaN if missing) and how many had which outcome."""
    known: dict[str, tuple[float, str]] = {}
    values, outcomes = [], []
    for cell in cells:
        if cell not in known:
            known[cell] = parse_price(cell)
        values.append(known[cell][0])
        outcomes.append(known[cell][1])
    return np.array(values, dtype=np.float64), dict(sorted(Counter(outcomes).items()))


def _positive(numbers: list[float]) -> tuple[float, str]:
    """Return the mean of one or two numbers if all are usable."""
    if any(math.isnan(number) for number in numbers):
        return math.nan, UNREADABLE
    if any(number <= 0 or math.isinf(number) for number in numbers):
        return math.nan, NOT_POSITIVE
    if len(numbers) == 1:
        return numbers[0], PARSED
    return round(sum(numbers) / len(numbers), 6), RANGE


def _value(chunk: str) -> float:
    """Return the value of digits with marks; NaN if the marks make no sense."""
    digits = re.sub(r"[ \u00a0\u202f']", "", chunk).rstrip(".,")
    dot, comma = digits.rfind("."), digits.rfind(",")
    if dot >= 0 and comma >= 0:
        decimal = "." if dot > comma else ","
    elif digits.count(".") == 1:
        decimal = "."
    elif digits.count(",") == 1 and not re.fullmatch(r"[1-9]\d{0,2},\d{3}", digits):
        decimal = ","
    else:
        decimal = ""
    whole, fraction = digits, ""
    if decimal:
        whole, _, fraction = digits.rpartition(decimal)
    if not re.fullmatch(r"\d*|\d{1,3}(?:[.,]\d{3})+", whole) or not re.fullmatch(r"\d*", fraction):
        return math.nan
    return float(f"{re.sub('[.,]', '', whole) or '0'}.{fraction or '0'}")
