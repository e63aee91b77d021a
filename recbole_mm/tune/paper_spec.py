"""The tables and figures of a paper, as ``properties/paper/<name>.yaml`` describes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict, cast

from recbole_mm import yaml_files
from recbole_mm.errors import ConfigError
from recbole_mm.files import Plain, fits
from recbole_mm.rows import RowSpec, as_argument, parse_row
from recbole_mm.tune.sweep_report import Axis


class _EveryDataset(TypedDict):
    title: str
    own: str
    make: str


class _EveryStudy(TypedDict):
    title: str
    rows: dict[str, str]


class Study(_EveryStudy, total=False):
    """A table or figure.

    ``rows`` maps the paper's name of a row to a row of a comparison, in which ``{own}`` stands for
    the keys of the paper's model on the data set at hand; ``absent`` names rows that are not made
    here. ``key`` and ``values`` make it a sweep of its only row, ``groups`` a table of groups of
    test rows: ``history`` or ``popularity``. ``metric`` is that of pictures and groups, the last
    column unless given.
    """

    absent: list[str]
    metric: str
    key: str
    values: list[Plain]
    groups: str


class _Spec(TypedDict):
    title: str
    protocol: dict[str, Plain]
    columns: dict[str, str]
    own: str
    datasets: dict[str, _EveryDataset]
    studies: dict[str, Study]


@dataclass(frozen=True)
class Paper:
    """A paper's studies.

    Attributes
    ----------
    name, title
        Its name on the command line, and that of its model.
    protocol
        Keys of every run.
    columns
        Metrics of its tables, and what they are called there.
    own
        Keys of its model on data sets that it does not have.
    datasets
        Its data sets: what they are called there, the model's keys, and the command that makes
        them.
    studies
        Its tables and figures by name.
    """

    name: str
    title: str
    protocol: Mapping[str, Plain]
    columns: Mapping[str, str]
    own: str
    datasets: Mapping[str, _EveryDataset]
    studies: Mapping[str, Study]

    def study(self, name: str | None) -> tuple[str, Study]:
        """Return a study by its name, the first one without.

        Raises
        ------
        ConfigError
            There is none of that name.
        """
        wanted = name or next(iter(self.studies))
        if wanted not in self.studies:
            known = "; ".join(f"{key} ({one['title']})" for key, one in self.studies.items())
            raise ConfigError(f"--study={wanted}: {self.title} has no such study, but: {known}")
        return wanted, self.studies[wanted]

    def rows(self, study: Study, dataset: str) -> list[RowSpec]:
        """Return the rows of a study on a data set."""
        own = self.datasets[dataset]["own"] if dataset in self.datasets else self.own
        rows = [(label, parse_row(text.replace("{own}", own))) for label, text in
                study["rows"].items()]  # fmt: skip
        return [replace(row, label=label) for label, row in rows]

    def metric(self, study: Study) -> str:
        """Return the metric of a study's picture or groups."""
        return study.get("metric", list(self.columns)[-1])

    def called(self, dataset: str) -> str:
        """Return what the paper calls a data set."""
        return self.datasets[dataset]["title"] if dataset in self.datasets else dataset


def names() -> list[str]:
    """Return the papers that are known."""
    return sorted(file.stem for file in yaml_files.path("paper").glob("*.yaml"))


def paper_of(name: str) -> Paper:
    """Read a paper's studies.

    Raises
    ------
    ConfigError
        There is no such paper, or its file is wrong.
    """
    if name not in names():
        raise ConfigError(f"--name={name}: no such paper; expected one of {', '.join(names())}")
    file = yaml_files.path("paper", f"{name}.yaml")
    found = yaml_files.load_yaml(file)
    if not fits(found, _Spec):
        raise ConfigError(
            f"{yaml_files.short(file)}: a key is missing or has a value of another type; expected "
            "the form of the other files in properties/paper"
        )
    spec = cast(_Spec, found)
    return Paper(name, **spec)


def axis(study: Study) -> Axis | None:
    """Return what a study sweeps, or None."""
    if "key" not in study:
        return None
    return Axis(study["key"], tuple(as_argument(value) for value in study["values"]))


def without(row: RowSpec, keys: Sequence[str]) -> dict[str, Plain]:
    """Return a row's keys as values, without some."""
    return {
        key: yaml_files.parse_value(text, row.label) for key, text in row.keys if key not in keys
    }
