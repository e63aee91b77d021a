"""Telling from their names which columns are the session, the item, the time and so on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from recbole_mm.errors import ConfigError
from recbole_mm.prepare.tabular.options import NONE, TableOptions
from recbole_mm.prepare.tabular.table import column_names

# Names in order of preference, without case, blanks, - and _.
_SESSION = (
    "sessionid", "session", "sid", "visitid", "basketid", "basket", "cartid", "invoiceno",
    "invoiceid", "invoice", "orderid", "order", "transactionid", "transaction", "receiptid",
)  # fmt: skip
_USER = (
    "userid", "user", "uid", "visitorid", "visitor", "customerid", "customer", "clientid",
    "memberid", "shopperid", "reviewerid",
)  # fmt: skip
_ITEM = (
    "itemid", "item", "iid", "productid", "product", "sku", "articleid", "article", "asin",
    "parentasin", "goodsid", "stockcode", "movieid", "bookid", "songid", "newsid",
)  # fmt: skip
_TIME = (
    "timestamp", "time", "datetime", "eventtime", "eventtimestamp", "date", "ts", "when",
    "unixtime", "createdat", "eventdate", "invoicedate", "orderdate", "purchasedat",
    "unixreviewtime",
)  # fmt: skip
_EVENT = ("eventtype", "event", "action", "behavior", "behaviour", "interaction")
_ITEM_ID = (*_ITEM, "id")
_TEXT = (
    "title", "name", "productname", "itemname", "producttitle", "brand", "categories", "category",
    "genres", "taxonomy", "description", "productdescription",
)  # fmt: skip
_PRICE = ("price", "unitprice", "listprice", "saleprice", "cost")
_IMAGE = (
    "image", "imagepath", "imagefile", "imageurl", "imurl", "img", "picture", "pictureurl",
    "photo", "thumbnail",
)  # fmt: skip


def complete(options: TableOptions) -> tuple[TableOptions, list[str]]:
    """Fill in the columns that were not named, and say which were guessed.

    Returns
    -------
    tuple
        The options with names or None (there is no such column), and the guesses as they would be
        typed, such as ``--item_col=sku``.

    Raises
    ------
    ConfigError
        Naming all options at once that are missing and cannot be guessed.
    """
    if not options.inter or (not options.dataset and not Path(options.inter).is_file()):
        raise _missing(options, [])
    names = column_names(options.inter)
    guessed: dict[str, str | tuple[str, ...]] = {}
    found = _of_interactions(options, names)
    if options.items:
        item = found["item_col"] or ""
        found |= _of_items(options, column_names(options.items), item)
    for key, value in found.items():
        if value and not getattr(options, key):
            guessed[key] = value
    done = replace(options, **found)  # type: ignore[arg-type]
    if not (done.dataset and done.item_col and (done.session_col or _cut(done))):
        raise _missing(done, names)
    return done, [f"--{key}={_typed(value)}" for key, value in guessed.items()]


def event_column(options: TableOptions) -> str | None:
    """Return a column that seems to hold kinds of events, if none was named."""
    return None if options.event_col else first_of(_EVENT, column_names(options.inter))


def first_of(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the column whose name is the first of ``wanted`` that occurs, or None."""
    plain = {re.sub(r"[\s_.-]", "", name).lower(): name for name in reversed(names)}
    return next((plain[name] for name in wanted if name in plain), None)


def _or_guess(given: str | None, wanted: Sequence[str], names: Sequence[str]) -> str | None:
    """Return what was given, nothing if that is ``none``, else a guess."""
    if given == NONE and NONE not in names:
        return None
    return given or first_of(wanted, names)


def _of_interactions(
    options: TableOptions, names: Sequence[str]
) -> dict[str, str | tuple[str, ...] | None]:
    found: dict[str, str | tuple[str, ...] | None] = {
        "item_col": _or_guess(options.item_col, _ITEM, names),
        "time_col": _or_guess(options.time_col, _TIME, names),
        "session_col": options.session_col,
        "user_col": options.user_col,
    }
    if not (options.session_col or options.user_col):
        if options.gap_minutes is None:
            found["session_col"] = first_of(_SESSION, names)
        if not found["session_col"]:
            found["user_col"] = first_of(_USER, names)
    return found


def _of_items(
    options: TableOptions, names: Sequence[str], item: str | tuple[str, ...]
) -> dict[str, str | tuple[str, ...] | None]:
    same = item if item in names else first_of(_ITEM_ID, names)
    if options.text_cols == (NONE,) and NONE not in names:
        text: tuple[str, ...] = ()
    else:
        guesses = (first_of([word], names) for word in _TEXT)
        text = options.text_cols or tuple(name for name in guesses if name)
    return {
        "items_item_col": options.items_item_col or same,
        "text_cols": text,
        "price_col": _or_guess(options.price_col, _PRICE, names),
        "image_col": _or_guess(options.image_col, _IMAGE, names),
    }


def _cut(options: TableOptions) -> bool:
    """Tell whether users can be cut into sessions."""
    return bool(options.user_col and options.time_col)


def _typed(value: str | tuple[str, ...]) -> str:
    text = value if isinstance(value, str) else ",".join(value)
    return f'"{text}"' if " " in text else text


def _missing(options: TableOptions, names: Sequence[str]) -> ConfigError:
    """Return the error that names every missing option."""
    wanted = {
        "--dataset=<name>": not options.dataset,
        "--inter=<file of interactions>": not options.inter,
        "--item_col=<column of the item id>": bool(names) and not options.item_col,
        "--time_col=<column of the time> (users are cut into sessions at pauses)": bool(names)
        and bool(options.user_col and not options.time_col),
        "--session_col=<column of the session id>, or --user_col=<column of the user>": bool(names)
        and not (options.session_col or options.user_col),
    }
    missing = "; ".join(name for name, lacks in wanted.items() if lacks)
    header = f" {options.inter} has the columns {', '.join(names)}." if names else ""
    return ConfigError(f"prepare tabular: missing: {missing}.{header}")
