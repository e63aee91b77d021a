"""What may be asked for over HTTP, with bounds; what does not fit is answered 422, with why."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MOST_SESSIONS, MOST_ITEMS, MOST_K, MOST_FILTERED = 256, 1000, 1000, 10_000
_ID_LENGTH = 256

MOST_NEW = 1000
Cell = Annotated[str, Field(max_length=20_000)] | float | None
Vector = Annotated[list[float], Field(max_length=10_000)]
ItemId = Annotated[str, Field(min_length=1, max_length=_ID_LENGTH)]
Session = Annotated[list[ItemId], Field(max_length=MOST_ITEMS)]


class Strict(BaseModel):
    """A message that holds what it may hold and nothing else."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)


class NewItem(Strict):
    """An item that was not there in training; its text is encoded unless vectors are given."""

    item_id: ItemId
    columns: dict[ItemId, Cell] = Field(
        default_factory=dict, max_length=50,
        description="What made its text, price or category in training, by column of .item.",
    )  # fmt: skip
    vectors: dict[ItemId, Vector] = Field(
        default_factory=dict, max_length=10, description="Vectors by modality."
    )


class Question(Strict):
    """Sessions, and what is asked for them."""

    sessions: list[Session] = Field(
        min_length=1, max_length=MOST_SESSIONS,
        description="Item ids of each session in order of time, the newest last.",
        examples=[[["CP0003", "CP0217"], ["CP0530"]]],
    )  # fmt: skip
    k: int = Field(10, ge=1, le=MOST_K, description="Items to recommend to each session.")
    exclude_seen: bool | None = Field(
        None, description="Leave out the items of the session; default: as the model was tested."
    )
    leave_out: list[ItemId] = Field(
        default_factory=list, max_length=MOST_FILTERED, description="Items never recommended."
    )
    keep_to: list[ItemId] | None = Field(
        None, max_length=MOST_FILTERED, description="The only items recommended."
    )
    parts: bool = Field(False, description="Also say what each part of the score adds.")
    new_items: list[NewItem] = Field(
        default_factory=list, max_length=MOST_NEW,
        description="Items that were not there in training, ranked beside the known ones.",
    )  # fmt: skip
    new_item_ids: Literal["neighbours", "zero"] = Field(
        "neighbours", description="What new items get in the place of what is learned by id."
    )


class Item(Strict):
    """A recommended item."""

    item_id: str
    score: float
    title: str
    parts: dict[str, float] | None = None


class Recommended(Strict):
    """What one session is recommended."""

    items: list[Item]
    note: str
    skipped: int


class Answer(Strict):
    """One entry per session, in the order of the question."""

    recommendations: list[Recommended]


class Health(Strict):
    """Whether the service works, and how busy it is."""

    status: str
    model: str
    dataset: str
    items: int
    waiting: int
