"""Loading interactions and item columns: RecBole's steps, with strict readers.

Interactions stand in ``<name>.inter``, or in Parquet partitions, ``<name>.inter.parquet``, of which
RecBole's steps see numbers in the place of names.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from recbole.data.dataset import SequentialDataset
from recbole.utils import FeatureSource, FeatureType

from recbole_mm.compat import AnyPandas
from recbole_mm.data.atomic import header, read_atomic, require_columns
from recbole_mm.data.candidates import items_with_features
from recbole_mm.data.feature_files import FeatureFiles
from recbole_mm.data.partitions import (
    PARTITIONS,
    Fields,
    SortedNames,
    datasets_in,
    read_partitions,
)
from recbole_mm.errors import ConfigError, DataError

# Epoch milliseconds of today are 1.7e12, epoch seconds 1.7e9; nothing real lies near the border.
_MILLISECONDS = 1e11
# RecBole's default interval of counts, parsed.
_ANY_COUNT = [("[", 0.0, math.inf, ")")]
# Tables that RecBole may number sessions by.
_TABLES = (FeatureSource.INTERACTION, FeatureSource.USER)
# A table of columns and their type, as RecBole numbers names.
Remap = list[tuple[pd.DataFrame, str, FeatureType]]


class Loading(AnyPandas, SequentialDataset):
    """The part of a data set that reads files and numbers sessions and items.

    Attributes
    ----------
    counts
        Takes how many items and rows of the item file are of no use.
    """

    counts: dict[str, int]
    item_feat: pd.DataFrame | None
    _files: FeatureFiles
    _only_features: set[str]
    _inter: Path
    _fields: Fields
    # Names of the sessions of Parquet partitions until they are numbered; else None.
    _session_names: np.ndarray | None = None
    # Names of their items meanwhile, each once.
    _item_names: pd.DataFrame

    def _load_data(self, token: str, dataset_path: str) -> None:
        self._inter = inter_file(token, Path(dataset_path))
        self._fields = Fields(self.uid_field, self.iid_field, self.time_field)
        super()._load_data(token, dataset_path)
        items = set(self.inter_feat[self.iid_field].unique())
        if self.config["candidates"] == "features":
            self._only_features = items_with_features(self._files) - items
            self.counts["items_without_interactions"] = len(self._only_features)
        if self.item_feat is not None:
            known = self.item_feat[self.iid_field].isin(items | self._only_features)
            self.counts["items_only_in_item_file"] = int((~known).sum())
            self.item_feat = self.item_feat[known].reset_index(drop=True)

    def _load_inter_feat(self, token: str, dataset_path: str) -> None:
        if self._inter.name.endswith(PARTITIONS):
            self._load_partitions(self._inter)
            return
        require_columns(self._inter, header(self._inter), self._fields)
        super()._load_inter_feat(token, dataset_path)

    def _load_partitions(self, path: Path) -> None:
        """Make the table of interactions from Parquet; it holds numbers, not names."""
        self._refuse_names(path)
        coded = read_partitions(path, self._fields)
        self._session_names = coded.session_names
        items = pd.Categorical.from_codes(coded.item, pd.Index(coded.item_names.tolist()))
        columns = zip(self._fields, (coded.session, items, coded.time), strict=True)
        self.inter_feat = pd.DataFrame(dict(columns), copy=False)
        _refuse_two_units(self.inter_feat[self.time_field], path, "row", 1)
        kinds = (FeatureType.TOKEN, FeatureType.TOKEN, FeatureType.FLOAT)
        for name, kind in zip(self._fields, kinds, strict=True):
            self.set_field_property(name, kind, FeatureSource.INTERACTION, 1)
        self.field2bucketnum[self.time_field] = 2

    def _refuse_names(self, path: Path) -> None:
        """Refuse settings that ask for other columns, or for sessions by name."""
        asked = {source: self._get_load_and_unload_col(source)[0] or set() for source in _TABLES}
        more = asked[FeatureSource.INTERACTION] - set(self._fields) | asked[FeatureSource.USER]
        by_name = self.config["alias_of_user_id"] or self.uid_field in (
            self.config["val_interval"] or ()
        )
        if more or by_name:
            wrong = (
                f"load_col asks for {', '.join(sorted(more))}"
                if more
                else (f"alias_of_user_id or val_interval asks for {self.uid_field} by name")
            )
            raise ConfigError(
                f"{path}: {wrong}, but of Parquet partitions nothing is read beside "
                f"{', '.join(self._fields)}. Choose rows before they are written, or use "
                "the atomic file."
            )

    def _load_feat(self, filepath: str, source: FeatureSource) -> pd.DataFrame | None:
        load, unload = self._get_load_and_unload_col(source)
        types = header(filepath)
        names = [n for n in types if (not load or n in load) and not (unload and n in unload)]
        if load == set() or not names:
            return None
        require_columns(Path(filepath), types, load or ())
        frame = read_atomic(filepath, names)
        if source == FeatureSource.INTERACTION:
            self._check_interactions(Path(filepath), frame)
        for name in names:
            self._register(name, FeatureType(types[name]), source, frame)
        if source == FeatureSource.ITEM:
            self.counts["duplicate_item_rows"] = int(frame[self.iid_field].duplicated().sum())
        return frame

    def _register(
        self, name: str, kind: FeatureType, source: FeatureSource, frame: pd.DataFrame
    ) -> None:
        """Note a column's type as RecBole does and bring its cells into RecBole's form."""
        width = 1
        if kind.value.endswith("seq"):
            separator = self.config["seq_separator"]
            cells = [
                np.array([part for part in cell.split(separator) if part]) for cell in frame[name]
            ]
            frame[name] = [c.astype(float) for c in cells] if kind.value == "float_seq" else cells
            width = max(map(len, cells))
        elif kind == FeatureType.TOKEN:
            frame[name] = frame[name].where(frame[name] != "", np.nan)
        self.set_field_property(name, kind, source, width)
        if "float" in kind.value:
            self.field2bucketnum[name] = 2

    def _check_interactions(self, path: Path, frame: pd.DataFrame) -> None:
        """Refuse interactions without session, item or time, and times of two units."""
        for name in (self.uid_field, self.iid_field):
            _raise_where(frame[name] == "", path, f"{name} is empty")
        time = frame[self.time_field]
        _raise_where(time.isna(), path, f"{self.time_field} is empty")
        _refuse_two_units(time, path)

    def _filter_by_inter_num(self) -> None:
        """Drop rare sessions and items as RecBole does, where that is asked for.

        By default it counts all interactions in Python for nothing.
        """
        keys = ("user_inter_num_interval", "item_inter_num_interval")
        if any(self._parse_intervals_str(self.config[key]) != _ANY_COUNT for key in keys):
            super()._filter_by_inter_num()

    def _remap_ID_all(self) -> None:  # noqa: N802
        """Give names their numbers; of Parquet partitions, not interaction by interaction."""
        if self._session_names is None:
            super()._remap_ID_all()
            return
        session = self.inter_feat[self.uid_field].to_numpy()
        used = np.zeros(len(self._session_names), bool)
        used[session] = True
        item = self.inter_feat[self.iid_field].cat.remove_unused_categories().cat
        self._item_names = pd.DataFrame({self.iid_field: item.categories})
        super()._remap_ID_all()
        names = SortedNames(self._session_names[used])
        self.field2id_token[self.uid_field] = names.padded
        self.field2token_id[self.uid_field] = names
        self.inter_feat[self.uid_field] = np.cumsum(used)[session]
        self.inter_feat[self.iid_field] = self._item_names[self.iid_field].to_numpy()[item.codes]
        del self._item_names, self._session_names

    def _get_remap_list(self, field_list: np.ndarray) -> Remap:
        """Put the sorted tokens first, so that ids do not depend on the order of the rows."""
        remap_list: Remap = super()._get_remap_list(field_list)
        if self._session_names is not None:
            remap_list = [
                (self._item_names if feat is self.inter_feat else feat, field, kind)
                for feat, field, kind in remap_list
                if field != self.uid_field
            ]
        if not remap_list:
            return remap_list
        tokens, _ = self._concat_remaped_tokens(remap_list)
        known = np.unique(tokens[~pd.isna(tokens)].astype(str))
        if self.iid_field in field_list:
            known = np.array(sorted(self._only_features.union(known.tolist())))
        first = pd.DataFrame({field_list[0]: known})
        return [(first, field_list[0], FeatureType.TOKEN), *remap_list]


def _raise_where(
    bad: pd.Series, path: Path, what: str, place: str = "line", first: int = 2
) -> None:
    if bad.any():
        line = int(np.argmax(bad.to_numpy())) + first
        raise DataError(
            f"{path}, {place} {line}: {what} ({int(bad.sum())} such {place}(s)). Mend or remove "
            "them."
        )


def _refuse_two_units(time: pd.Series, path: Path, place: str = "line", first: int = 2) -> None:
    """Refuse times of which some are in seconds and some in milliseconds."""
    milliseconds = time >= _MILLISECONDS
    if milliseconds.any() and (~milliseconds & (time > 0)).any():
        what = f"{time.name} is in milliseconds, other rows are in seconds"
        _raise_where(milliseconds, path, what, place, first)


def inter_file(name: str, folder: Path) -> Path:
    """Return the interactions of the data set ``name`` in ``folder``: a file, or partitions.

    Raises
    ------
    DataError
        If they are not there, naming the data sets that are, or are there twice.
    """
    atomic, parquet = folder / f"{name}.inter", folder / f"{name}{PARTITIONS}"
    if atomic.is_file() and parquet.exists():
        raise DataError(
            f"{folder}: {atomic.name} and {parquet.name} both hold interactions. Expected one of "
            "them; move the other away."
        )
    if parquet.exists():
        return parquet
    if not atomic.is_file():
        there = ", ".join(datasets_in(folder.parent)) or "none"
        raise DataError(
            f"{atomic}: no such file. Data sets in {folder.parent}: {there}. "
            "Name another folder with --data_path, or make the files with `recbole-mm prepare`."
        )
    return atomic
