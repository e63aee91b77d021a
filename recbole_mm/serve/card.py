"""The model card of a pack: data, protocol, metrics, floor, limits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_mm.errors import CheckpointError
from recbole_mm.files import read_json
from recbole_mm.run.record import marks, read_result

if TYPE_CHECKING:
    from recbole_mm.serve.restored import Restored

CARD = "card.json"
_PROTOCOL = (
    "split_by", "split_ratio", "split_seed", "train_prefixes", "eval_targets", "cold_targets",
    "candidates", "history", "MAX_ITEM_LIST_LENGTH",
)  # fmt: skip


def model_card(restored: Restored) -> dict[str, Any]:
    """Return what a user of the model must know, as plain values.

    Metrics, floor and fingerprint are those of the run's ``result.json``; a run that did not end
    has none.
    """
    config, dataset = restored.config, restored.dataset
    card: dict[str, Any] = {
        "model": config["model"],
        "preset": config["preset"],
        "seed": config["seed"],
        "data": {
            "name": config["dataset"],
            "source": dataset.card.source,
            "licence": dataset.card.licence,
            "session": dataset.card.session,
            "synthetic": dataset.card.synthetic,
            "counts": dict(dataset.counts),
        },
        "protocol": {key: config[key] for key in _PROTOCOL},
        "limits": _limits(restored),
    }
    record = read_result(restored.place)
    if record is None:
        return card
    floor = record.get("floor")
    card |= {
        "marks": marks(record),
        "valid": record["valid"],
        "test": record["test"],
        "floor": None if floor is None else {"model": floor["model"], "test": floor["test"]},
        "best_epoch": record["best_epoch"],
        "parameters": record["parameters"],
        "fingerprint": record["fingerprint"],
        "versions": record["versions"],
    }
    return card


def read_card(pack: Path) -> dict[str, Any]:
    """Return the card of a pack.

    Raises
    ------
    CheckpointError
        It is missing or damaged.
    """
    path = pack / CARD
    try:
        card = read_json(path)
        if not isinstance(card, dict):
            raise ValueError(f"it holds a {type(card).__name__}, expected a dictionary")
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is no model card ({error}). Pack the run again.") from error
    return card


def _limits(restored: Restored) -> list[str]:
    """Return what the model cannot do."""
    items = restored.items
    unseen = int((items.clicks[1:] == 0).sum())
    found = [
        f"knows {len(items) - 1} items, {unseen} of them without a click in training; other items "
        "of a session are skipped",
        f"reads the newest {restored.scorer.length} items of a session and no user",
        "a session without a known item gets the most clicked items of training",
    ]
    if restored.dataset.card.synthetic:
        found.append("SYNTHETIC data: scores say nothing about real shops")
    return found


def card_page(card: dict[str, Any]) -> str:
    """Return the card as a Markdown page."""
    data = card["data"]
    marked = " ".join(card.get("marks", []))
    lines = [f"# {card['model']} ({card['preset']}) on {data['name']} {marked}".rstrip(), ""]
    about = {name: data[name] for name in ("source", "licence", "session") if data[name]}
    lines += [f"- {name}: {value}" for name, value in about.items()]
    lines += [f"- {name}: {value}" for name, value in card["protocol"].items()]
    lines += ["", "| metric | validation | test | floor, test |", "|---|---|---|---|"]
    floor = (card.get("floor") or {}).get("test", {})
    for name, value in card.get("test", {}).items():
        below = f"{floor[name]:.4f}" if name in floor else ""
        lines.append(f"| {name} | {card['valid'][name]:.4f} | {value:.4f} | {below} |")
    if "test" not in card:
        lines.append("| the run has no result | | | |")
    lines += ["", "Limits:", "", *(f"- {limit}" for limit in card["limits"]), ""]
    return "\n".join(lines)
