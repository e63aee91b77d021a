"""From a model's name to its class, without importing anything before it is needed.

Looked up in this order: the models of this package, models registered with :func:`register_model`
or by an entry point of the group ``recbole_mm.models``, then RecBole's own sequential and general
recommenders. ``recbole.utils.get_model`` is not used: for an unknown name it imports RecBole's
boosted trees, and the user then reads that lightgbm is missing.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TypeVar

from recbole_mm import stock, yaml_files
from recbole_mm.errors import ConfigError
from recbole_mm.spec import CLASSES, OURS, WITH_VECTORS, ModelSpec

ENTRY_POINT_GROUP = "recbole_mm.models"
T = TypeVar("T", bound=type)


_PLUGINS: dict[str, ModelSpec] = {}


def register_model(
    name: str,
    *,
    modalities: Sequence[str] = (),
    trainer: str | type | None = None,
    defaults: str | Path | None = None,
) -> Callable[[T], T]:
    """Make a third-party model known under a name; use it as a class decorator.

    Parameters
    ----------
    name
        Name for ``--model``. A name of RecBole's is then yours; names of this package are refused.
    modalities
        Feature files the model reads, such as ``("text", "image")``.
    trainer
        Trainer class or its path; None takes RecBole's trainer with this package's loop.
    defaults
        YAML file with the default of each key of the model, relative to the module's file.
        The types of the keys are taken from it. ``<stem>.<preset>.yaml`` beside it are its presets.

    Raises
    ------
    ConfigError
        The name is taken, or the YAML file is missing.
    """

    def register(cls: T) -> T:
        if name in OURS:
            raise ConfigError(f"the model name '{name}' belongs to recbole_mm; choose another")
        known = _PLUGINS.get(name)
        spec = ModelSpec(
            name=name,
            path=_path_of(cls),
            trainer=_path_of(trainer) if isinstance(trainer, type) else trainer,
            modalities=tuple(modalities),
            origin="plugin",
            defaults=_defaults_file(cls, defaults),
        )
        if known is not None and known.path != spec.path:
            raise ConfigError(f"the model name '{name}' is taken by {known.path}; choose another")
        _PLUGINS[name], CLASSES[name] = spec, cls
        return cls

    return register


def unregister_model(name: str) -> None:
    """Forget a model registered with :func:`register_model`; an unknown name is no error."""
    _PLUGINS.pop(name, None)
    CLASSES.pop(name, None)


def _path_of(cls: type) -> str:
    """Return ``package.module:Class`` of a class."""
    return f"{cls.__module__}:{cls.__qualname__}"


def _defaults_file(cls: type, defaults: str | Path | None) -> Path | None:
    """Return the full path of a model's YAML, which is relative to the model's own source file."""
    if defaults is None:
        return None
    module_file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    file = Path(module_file).parent / defaults if module_file else Path(defaults)
    if not file.is_file():
        raise ConfigError(f"{_path_of(cls)}: there is no defaults file {file}")
    return file.resolve()


def load_plugins(modules: Sequence[str]) -> None:
    """Import modules whose models register themselves; the current folder is searched as well.

    Raises
    ------
    ConfigError
        A module is not found, or fails while it is imported.
    """
    if modules and "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    for module in modules:
        try:
            importlib.import_module(module)
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                f"--plugins: cannot import '{module}': {type(error).__name__}: {error}"
            ) from error


def resolve(name: str) -> ModelSpec:
    """Find a model by its exact name.

    Raises
    ------
    ConfigError
        No such model (with the nearest names), or one that cannot be compared here.
    """
    spec = OURS.get(name) or _PLUGINS.get(name) or _from_entry_point(name) or _from_recbole(name)
    if spec is not None:
        return spec
    _refuse_other_family(name)
    raise ConfigError(
        f"unknown model '{name}'.{_suggestion(name)} "
        f"A model of your own needs --plugins=<its module>."
    )


def spec_of(model: str | type) -> ModelSpec:
    """Return the spec of a name, of a registered class, or of any RecBole-like class."""
    if isinstance(model, str):
        return resolve(model)
    for spec in (*OURS.values(), *_PLUGINS.values()):
        if spec.path == _path_of(model):
            return spec
    if model.__module__.startswith("recbole.model."):
        return resolve(model.__name__)
    return _unregistered(model.__name__, model)


def available_models() -> list[str]:
    """Return the names accepted by ``--model``: ours, registered ones, then RecBole's."""
    plugins = {*_PLUGINS, *(point.name for point in _entry_points())}
    theirs = {name for family in stock.FAMILIES for name in stock.class_names(family)}
    theirs -= set(stock.UNSUPPORTED) | plugins
    return [*sorted(OURS), *sorted(plugins - set(OURS)), *sorted(theirs)]


def _unregistered(name: str, cls: type) -> ModelSpec:
    """Describe a class that was handed over, or named by an entry point, without the decorator."""
    CLASSES[name] = cls
    declared = getattr(cls, "modalities", ())
    # A class method of that name refines the list once the configuration is known.
    modalities = () if callable(declared) else tuple(declared)
    return ModelSpec(name, _path_of(cls), None, modalities, "plugin")


def _entry_points() -> list[EntryPoint]:
    """Return the models that installed packages declare."""
    return list(entry_points(group=ENTRY_POINT_GROUP))


def _from_entry_point(name: str) -> ModelSpec | None:
    """Load the entry point of that name; its class may carry the decorator or not."""
    for point in _entry_points():
        if point.name == name:
            try:
                cls = point.load()
            except Exception as error:
                raise ConfigError(
                    f"model '{name}' of {point.value} cannot be loaded: "
                    f"{type(error).__name__}: {error}"
                ) from error
            return _PLUGINS.get(name) or _unregistered(name, cls)
    return None


def _from_recbole(name: str) -> ModelSpec | None:
    """Find a stock model by its module file and exact class name."""
    found = stock.source_file(name)
    if found is None or stock.class_in(found[1]) != name:
        return None
    if name in stock.UNSUPPORTED:
        raise ConfigError(
            f"RecBole's model '{name}' is not supported: {stock.UNSUPPORTED[name]}. "
            f"Run it with RecBole itself, or choose another: {', '.join(available_models())}"
        )
    if name in WITH_VECTORS:
        return WITH_VECTORS[name]
    family, file = found
    return ModelSpec(
        name, f"recbole.model.{family}_recommender.{file.stem}:{name}", None, (), "recbole"
    )


def _refuse_other_family(name: str) -> None:
    """Say so when the name is a RecBole model of a family that does not rank items in sessions."""
    found = stock.source_file(name, stock.OTHER_FAMILIES)
    if found is not None and stock.class_in(found[1]) == name:
        raise ConfigError(
            f"RecBole's model '{name}' is not supported: {found[0]} models do not rank the items "
            f"of a session. Choose one of: {', '.join(available_models())}"
        )


def _suggestion(name: str) -> str:
    """Return ' Did you mean …?' with the nearest names, or the list of all."""
    names = available_models()
    by_lower = {known.lower(): known for known in names}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)
    if close:
        return f" Did you mean {' or '.join(by_lower[match] for match in close)}?"
    return f" Known models: {', '.join(names)}."


def defaults_file(spec: ModelSpec, preset: str | None = None) -> Path | None:
    """Return the YAML of a model, or of its preset; None where the model has no YAML of its own.

    Raises
    ------
    ConfigError
        The preset has no file; the existing ones are listed.
    """
    base = spec.defaults or yaml_files.path("model", f"{spec.name}.yaml")
    if preset in (None, "sound"):
        return base if base.is_file() else None
    if preset not in presets(spec):
        raise ConfigError(
            f"the model {spec.name} has no preset '{preset}'; it has: {', '.join(presets(spec))}"
        )
    return base.with_name(f"{base.stem}.{preset}.yaml")


def presets(spec: ModelSpec) -> list[str]:
    """Return the presets of a model: ``sound`` first, then those that have a file."""
    base = spec.defaults or yaml_files.path("model", f"{spec.name}.yaml")
    files = sorted(base.parent.glob(f"{base.stem}.*.yaml"))
    return ["sound", *(file.name[len(base.stem) + 1 : -len(".yaml")] for file in files)]


def ours(name: str) -> ModelSpec | None:
    """Return a model of this package, or None."""
    return OURS.get(name)


def known_defaults(name: str) -> Path | None:
    """Return the YAML of a model of ours or of a registered one, by name; it need not exist."""
    if name in _PLUGINS:
        return _PLUGINS[name].defaults
    return yaml_files.path("model", f"{name}.yaml")
