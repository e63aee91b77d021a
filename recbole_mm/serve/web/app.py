"""The HTTP interface: POST /recommend, GET /health, GET /model, and the OpenAPI page at /docs."""

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.requests import Request
from fastapi.responses import Response

from recbole_mm.errors import DataError, MMError
from recbole_mm.serve.card import read_card
from recbole_mm.serve.encoding import PICTURE
from recbole_mm.serve.recommender import Recommender
from recbole_mm.serve.web.batching import Batcher, BusyError
from recbole_mm.serve.web.limits import App, Bounded, Rates
from recbole_mm.serve.web.messages import Answer, Health, Question
from recbole_mm.serve.wishes import Wish
from recbole_mm.serve.writing import as_plain
from recbole_mm.version import __version__

# Models with new items by what was asked, and how many of them are kept.
Longer = OrderedDict[str, Recommender]
_KEPT = 4


@dataclass(frozen=True)
class Limits:
    """How much the service takes on.

    Attributes
    ----------
    most_bytes
        Largest body of a request.
    most_waiting
        Sessions that may wait for the model; more are answered 503.
    rate
        Requests per second and client; more are answered 429. 0 for any number.
    """

    most_bytes: int = 1 << 20
    most_waiting: int = 4096
    rate: float = 1000.0


def make_app(recommender: Recommender, limits: Limits | None = None) -> App:
    """Return the ASGI application of a model.

    Parameters
    ----------
    recommender
        Of a pack.
    limits
        How much it takes on.
    """
    limits = limits or Limits()
    batcher = Batcher(recommender, limits.most_waiting)
    name = f"{recommender.config['model']} on {recommender.config['dataset']}"

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        work = asyncio.create_task(batcher.work())
        yield
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work

    app = FastAPI(title=f"recbole_mm: {name}", version=__version__, lifespan=lifespan)
    app.exception_handler(RequestValidationError)(_say_why)
    _add_paths(app, recommender, batcher)
    return Bounded(app, limits.most_bytes, Rates(limits.rate))


async def _say_why(request: Request, error: Exception) -> Response:
    """Answer what does not fit with place and reason.

    FastAPI would repeat the input, which need not be writable: NaN, half a character.
    """
    assert isinstance(error, RequestValidationError)
    told = [{name: one[name] for name in ("type", "loc", "msg")} for one in error.errors()]
    return Response(json.dumps({"detail": told}), 422, media_type="application/json")


def _add_paths(app: FastAPI, recommender: Recommender, batcher: Batcher) -> None:
    """Add what can be asked for."""
    longer: Longer = OrderedDict()
    card = read_card(recommender.restored.place)

    @app.post("/recommend", response_model=Answer, response_model_exclude_none=True)
    async def recommend(question: Question) -> Response:
        """Recommend items to sessions."""
        return await _recommend(recommender, batcher, question, longer)

    @app.get("/health")
    async def health() -> Health:
        """Say whether the service works."""
        config, items = recommender.config, len(recommender.items) - 1
        return Health(
            status="ok", model=config["model"], dataset=config["dataset"], items=items,
            waiting=batcher.waiting,
        )  # fmt: skip

    @app.get("/model")
    async def model() -> dict[str, Any]:
        """Return the model card: data, protocol, metrics, floor, limits."""
        return card


async def _with_new_items(
    recommender: Recommender, batcher: Batcher, question: Question, longer: Longer
) -> Recommender:
    """Return the model that also knows the question's new items; the latest are kept."""
    if not question.new_items:
        return recommender
    plain = [one.model_dump() for one in question.new_items]
    key = json.dumps([plain, question.new_item_ids], sort_keys=True)
    if key in longer:
        longer.move_to_end(key)
        return longer[key]
    item = recommender.config["ITEM_ID_FIELD"]
    if any(PICTURE in one.columns for one in question.new_items):
        raise DataError(f"'{PICTURE}' names a file of this machine; give vectors instead.")
    rows = [{**one.columns, item: one.item_id} for one in question.new_items]
    vectors: dict[str, dict[str, list[float]]] = {}
    for one in question.new_items:
        for modality, vector in one.vectors.items():
            vectors.setdefault(modality, {})[one.item_id] = vector
    made = await batcher.do(
        lambda: recommender.with_new_items(rows, question.new_item_ids, vectors)
    )
    longer[key] = made
    if len(longer) > _KEPT:
        longer.popitem(last=False)
    return made


async def _recommend(
    recommender: Recommender, batcher: Batcher, question: Question, longer: Longer
) -> Response:
    """Answer a question, or say why not."""
    seen = question.exclude_seen
    if seen is None:
        seen = recommender.config["history"] == "mask"
    try:
        by = await _with_new_items(recommender, batcher, question, longer)
        wish = Wish.of(
            by.items, question.k, seen, question.leave_out, question.keep_to,
            question.parts,
        )  # fmt: skip
        found = await batcher.ask(question.sessions, wish, by)
    except MMError as error:
        raise HTTPException(422, str(error)) from error
    except BusyError as error:
        reason = f"{batcher.waiting} sessions wait already; ask again in a second"
        raise HTTPException(503, reason, {"Retry-After": "1"}) from error
    # What was computed here need not be checked once more, item by item.
    plain = {"recommendations": [as_plain(one) for one in found]}
    return Response(json.dumps(plain, ensure_ascii=False), media_type="application/json")
