"""Item vectors in the order of a data set's internal item ids."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from recbole_mm.data.controls import check_source, replaced
from recbole_mm.data.feature_files import FeatureFiles
from recbole_mm.data.sidecar import ItemEmb
from recbole_mm.errors import FeatureError

logger = logging.getLogger(__name__)

POLICIES = ("zero", "mean", "error")
_LISTED = 10


@dataclass(frozen=True, eq=False)
class ItemFeatures:
    """Per modality a frozen table of item vectors and a mask of the items that have one.

    Row ``i`` belongs to internal item id ``i``; row 0 is the padding item: zeros, mask False.

    Attributes
    ----------
    tables
        ``{modality: (n_items, d) float32}``.
    masks
        ``{modality: (n_items,) bool}``, True where the vector is the item's own.
    hashes
        ``{modality: SHA-256}`` of item tokens, masks and real vectors. It does not depend on the
        order of the file or of the internal ids, nor on rows of items that the data set lacks, nor
        on ``source``: rows of a comparison that replace the same vectors may stand in one table.
    source
        ``real``, or what stands in the tables instead: ``random`` or ``shuffled`` vectors.
    folder
        Where feature files are written, and what is derived from them may be kept; None keeps
        nothing.
    """

    tables: dict[str, Tensor]
    masks: dict[str, Tensor]
    hashes: dict[str, str]
    source: str = "real"
    folder: Path | None = None

    @classmethod
    def load(
        cls,
        files: FeatureFiles,
        item_tokens: Iterable[str],
        modalities: Iterable[str],
        missing: str = "zero",
        source: str = "real",
        seed: int = 0,
        source_of: Collection[str] | None = None,
    ) -> ItemFeatures:
        """Read the file of every modality and align its vectors by item token.

        The vocabulary stays as it is: vectors of other items are left out and counted.

        Parameters
        ----------
        files
            The data set's feature files.
        item_tokens
            Tokens by internal id, the padding token first (``dataset.field2id_token[iid_field]``).
        modalities
            For example ``("text", "image")``.
        missing
            Vector of an item without row: ``zero``; ``mean``, the mean of the vectors of all items
            of the vocabulary that have one (content only, no interactions); or ``error``.
            The mask is False either way.
        source
            ``real``; ``random`` or ``shuffled`` replace the vectors, see
            `recbole_mm.data.controls.replaced`. The mask stays, and ``missing`` is applied after.
        seed
            Seed of what replaces them.
        source_of
            Modalities whose vectors are replaced; None takes all.

        Raises
        ------
        FeatureError
            If a file is missing or wrong, no item of the data set has a vector, the policy or
            source is unknown, or the policy is ``error`` and items are missing.
        """
        if missing not in POLICIES:
            raise FeatureError(
                f"missing_features is {missing!r}, expected one of {', '.join(POLICIES)}."
            )
        check_source(source)
        tokens = [str(token) for token in item_tokens]
        features = cls({}, {}, {}, source, files.folders[0] if files.folders else None)
        wanted = list(modalities)
        _check_concerned(source_of, wanted)
        for modality in wanted:
            path = files.find(modality)
            own = source if source_of is None or modality in source_of else "real"
            features._add(modality, path, files.read(modality), tokens, missing, own, seed)
        return features

    def table(self, modality: str) -> Tensor:
        """Return the vectors ``(n_items, d)`` of a modality."""
        return self.tables[self._known(modality)]

    def mask(self, modality: str) -> Tensor:
        """Return ``(n_items,)`` bool, True for items with a vector of their own."""
        return self.masks[self._known(modality)]

    def width(self, modality: str) -> int:
        """Return the length ``d`` of a modality's vectors."""
        return self.table(modality).shape[1]

    def register_buffers(self, module: nn.Module, modalities: Iterable[str] | None = None) -> None:
        """Give ``module`` the buffers ``<modality>_table`` and ``<modality>_mask``.

        They move with the module to its device, are no parameters and are left out of its state
        dict: a checkpoint holds what was learned, the hashes say which vectors it was learned with.
        """
        for modality in self.tables if modalities is None else modalities:
            module.register_buffer(f"{modality}_table", self.table(modality), persistent=False)
            module.register_buffer(f"{modality}_mask", self.mask(modality), persistent=False)

    def _known(self, modality: str) -> str:
        """Return ``modality`` if it was loaded."""
        if modality not in self.tables:
            raise FeatureError(
                f"modality {modality!r} was not loaded, only: {', '.join(self.tables) or 'none'}. "
                "Name it in the model's modalities."
            )
        return modality

    def _add(
        self,
        modality: str,
        path: Path,
        emb: ItemEmb,
        tokens: list[str],
        missing: str,
        source: str,
        seed: int,
    ) -> None:
        """Align one file and keep its table, mask and hash."""
        table, mask = _aligned(path, emb, tokens)
        # Sorted by token, so that sums and hashes do not depend on the numbering of items.
        order = np.array(sorted(range(1, len(tokens)), key=tokens.__getitem__))
        changed = replaced(table, mask, order, source, modality, seed)
        _fill(path, table, mask, tokens, order, missing)
        ignored = len(emb.ids) - int(mask.sum())
        _log_coverage(modality, table, mask, missing, ignored)
        self.hashes[modality] = _content_hash(table, mask, tokens, order)
        if source != "real":
            _fill(path, changed, mask, tokens, order, missing)
            table = changed
            logger.warning("%s features are %s, by feature_source.", modality, source)
        self.tables[modality] = torch.from_numpy(table)
        self.masks[modality] = torch.from_numpy(mask)


def _check_concerned(source_of: Collection[str] | None, modalities: Sequence[str]) -> None:
    """Refuse the name of a modality that is not read: nothing would be replaced."""
    if unread := sorted(set(source_of or ()) - set(modalities)):
        raise FeatureError(
            f"feature_source_of names {', '.join(unread)}, which this model does not read here; it "
            f"reads {', '.join(modalities) or 'none'}."
        )


def _aligned(path: Path, emb: ItemEmb, tokens: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors ``(n_items, d)`` in the order of the tokens, and which items have one."""
    # Row 0, padding, stands for "not an item of the data set".
    index = {token: row for row, token in enumerate(tokens)}
    rows = np.array([index.get(token, 0) for token in emb.ids])
    known = rows > 0
    mask = np.zeros(len(tokens), dtype=bool)
    mask[rows[known]] = True
    if not known.any():
        raise FeatureError(
            f"{path}: none of its {len(rows)} ids is an item of the data set (file: "
            f"{emb.ids[0]!r}, data set: {tokens[-1]!r}). Expected tokens of the .inter file."
        )
    table = np.zeros((len(tokens), emb.vectors.shape[1]), dtype=np.float32)
    table[rows[known]] = emb.vectors[known]
    return table, mask


def _fill(
    path: Path, table: np.ndarray, mask: np.ndarray, tokens: list[str], order: np.ndarray, how: str
) -> None:
    """Apply the policy for missing items to ``table`` in place."""
    lacking = order[~mask[order]]
    if not len(lacking):
        return
    if how == "error":
        shown = ", ".join(repr(tokens[row]) for row in lacking[:_LISTED])
        more = f" and {len(lacking) - _LISTED} more" if len(lacking) > _LISTED else ""
        raise FeatureError(
            f"{path}: {len(lacking)} item(s) of the data set have no vector: {shown}{more}. Add "
            "their rows, or choose --missing_features=zero or --missing_features=mean."
        )
    if how == "mean":
        present = order[mask[order]]
        table[lacking] = table[present].mean(axis=0, dtype=np.float64).astype(np.float32)


def _log_coverage(
    modality: str, table: np.ndarray, mask: np.ndarray, missing: str, ignored: int
) -> None:
    """Say how many items have a vector."""
    items, present = len(mask) - 1, int(mask.sum())
    logger.info(
        "%s features: %d of %d items have a vector of %d numbers (%.1f %%); %d missing -> %s; "
        "%d row(s) of other items left out.",
        modality, present, items, table.shape[1], 100 * present / items, items - present, missing,
        ignored,
    )  # fmt: skip


def _content_hash(table: np.ndarray, mask: np.ndarray, tokens: list[str], order: np.ndarray) -> str:
    """Return the SHA-256 of tokens, masks and vectors, sorted by token."""
    digest = hashlib.sha256(f"{table.shape[1]}\n".encode())
    digest.update("\n".join(tokens[row] for row in order).encode("utf-8", "surrogatepass"))
    digest.update(mask[order].tobytes())
    digest.update(table[order].tobytes())
    return digest.hexdigest()
