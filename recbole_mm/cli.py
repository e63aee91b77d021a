"""The command line: one sub-command per job, ``python -m recbole_mm <command>``.

What the exit codes mean stands in :mod:`recbole_mm.exits`.
Imports of torch and RecBole stand inside the handlers, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from recbole_mm import early, exits, options, processes, protocol, registry, rows, spec, yaml_files
from recbole_mm.errors import ConfigError
from recbole_mm.files import Plain
from recbole_mm.version import __version__

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

Overrides = Mapping[str, Plain]
_OVERRIDES = "--KEY=VALUE sets any key of properties/keys.yaml or of the model's YAML."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code; errors a user can mend are printed in one line."""
    return exits.guarded(lambda: _dispatch(list(sys.argv[1:] if argv is None else argv)))


def _dispatch(argv: list[str]) -> int:
    """Parse the command line and call the command's handler."""
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    if args.command is None:
        parser.print_help()
        return 2
    if processes.launched():
        if args.command not in ("run", "encode"):
            raise ConfigError(f"{args.command} works in one process; start it without torchrun")
        processes.quiet()
    registry.load_plugins(getattr(args, "plugins", None) or [])
    return int(args.handler(args, options.parse_overrides(rest)))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with one sub-parser per command."""
    parser = argparse.ArgumentParser(
        prog="recbole-mm",
        description="Multimodal session recommendation for RecBole.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"recbole_mm {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for add in (
        _run, _compare, _tuning, _blend, _pretrain, _encode, _prepare, _audit,
        _export, _serving, _doctor,
    ):  # fmt: skip
        add(commands)
    return parser


def _option(parser: argparse.ArgumentParser, name: str, help_: str, **more: Any) -> None:
    """Add an option that may be given once."""
    parser.add_argument(f"--{name}", help=help_, **{"action": options.Once, **more})


def _list_option(
    parser: argparse.ArgumentParser,
    name: str,
    help_: str,
    split: Callable[[str], list] = options.words,
) -> None:
    """Add an option of several words: ``--x="a b"``, ``--x a b``."""
    _option(
        parser, name, help_, action=options.Flat, nargs="+", type=split, default=[], metavar="WORD"
    )


def _command(
    commands: Commands,
    name: str,
    help_: str,
    handler: Callable[[argparse.Namespace, Overrides], int],
) -> argparse.ArgumentParser:
    """Add a sub-command."""
    parser = commands.add_parser(
        name, help=help_, description=help_, epilog=_OVERRIDES, allow_abbrev=False
    )
    parser.set_defaults(handler=handler)
    return parser


def _common(parser: argparse.ArgumentParser, model: bool = True) -> None:
    """Add the options that choose model, data and settings."""
    if model:
        _option(parser, "model", "model, such as SRIM or SASRec (doctor lists them)")
    _option(parser, "dataset", "data set, such as Cellphones or ml-100k")
    _list_option(parser, "config_files", "YAML files, later ones win", options.files)
    _list_option(parser, "plugins", "Python modules that register models", options.comma_words)


def _from_files(args: argparse.Namespace, key: str) -> str:
    """Return --model or --dataset, or what the configuration files say.

    Raises
    ------
    ConfigError
        Neither says it.
    """
    value = getattr(args, key) or yaml_files.load_files(getattr(args, "config_files", [])).get(key)
    if not value:
        example = {"model": "SRIM", "dataset": "Cellphones"}[key]
        raise ConfigError(f"which {key}? Give --{key}, for example --{key}={example}")
    return str(value)


def _run(commands: Commands) -> None:
    """Add ``run``."""
    parser = _command(commands, "run", "Train and evaluate one model.", _handle_run)
    _common(parser)
    _option(parser, "resume", "run folder of an interrupted run to go on with", metavar="FOLDER")
    _option(
        parser,
        "explain",
        "print value, source and meaning of a key (or of all), and stop",
        nargs="?",
        const="",
        metavar="KEY",
    )


def _handle_run(args: argparse.Namespace, overrides: Overrides) -> int:
    """Run, and print the result; or explain the configuration."""
    if args.resume:
        model, dataset = args.model or "", args.dataset or ""
    else:
        model, dataset = _from_files(args, "model"), _from_files(args, "dataset")
        early.check_keys(model, dataset, args.config_files, overrides)
    if args.explain is not None:
        return _explain(model, dataset, args, overrides)
    from recbole_mm.run import format_result, run

    result = run(model, dataset, args.config_files, overrides, resume=args.resume)
    if processes.leads():
        print(format_result(result))
    return 0


def _explain(model: str, dataset: str, args: argparse.Namespace, overrides: Overrides) -> int:
    """Print one key, or every key a user may set."""
    from recbole_mm.config import MMConfig

    config = MMConfig(model or None, dataset or None, args.config_files, overrides)
    for key in [args.explain] if args.explain else sorted(config.to_plain()):
        print(config.explain(key))
    return 0


def _compare(commands: Commands) -> None:
    """Add ``compare``."""
    parser = _command(
        commands, "compare", "Run several models over several seeds and compare them.", _on_compare
    )
    _list_option(
        parser, "models", 'models and variants: "SRIM SRIM:preset=official,n_layers=1 SASRec"'
    )
    _common(parser, model=False)
    _list_option(parser, "seeds", 'seeds, such as "0 1 2"', options.numbers)
    _option(
        parser,
        "seeds_for",
        'fewer seeds for some models: "SRIM=3"',
        type=options.counts,
        default={},
    )
    _option(parser, "output", "folder of the runs and tables", metavar="FOLDER")
    _option(parser, "jobs", "runs side by side (default 1)", type=int, default=1)
    _option(parser, "baseline", "model or variant that the others are tested against")
    _option(parser, "tuned", "output folder of tune: rows take their settings", metavar="FOLDER")
    _option(
        parser,
        "knock_out",
        "modalities: also each modality left out, shuffled and random",
        choices=("modalities",),
    )
    parser.add_argument(
        "--table_only", action="store_true", help="write the tables again, without running anything"
    )


def _on_compare(args: argparse.Namespace, overrides: Overrides) -> int:
    """Delegate to :mod:`recbole_mm.compare.execute`."""
    if not (args.table_only and args.output):
        args.dataset = _from_files(args, "dataset")
    if not args.table_only:
        asked = rows.parse_rows(args.models)
        early.check_rows(asked, args.dataset, args.config_files, overrides)
    from recbole_mm.compare.execute import compare_command

    return compare_command(args, overrides)


def _tuning(commands: Commands) -> None:
    """Add ``tune``, ``sweep`` and ``paper``; their options stand beside their steps."""
    from recbole_mm.tune.options import COMMANDS

    for name, command in COMMANDS.items():
        command.add_options(_command(commands, name, command.help, _on_tuning))


def _on_tuning(args: argparse.Namespace, overrides: Overrides) -> int:
    """Delegate to the command's module."""
    from recbole_mm.tune.options import COMMANDS

    if hasattr(args, "dataset"):
        args.dataset = _from_files(args, "dataset")
    asked = [rows.parse_row(text) for text in getattr(args, "models", ())]
    if getattr(args, "model", None) and not args.table_only:
        asked = [rows.RowSpec(args.model, args.model, ())]
    if asked:
        early.check_rows(asked, args.dataset, args.config_files, overrides)
    return int(spec.import_object(COMMANDS[args.command].handler)(args, overrides))


def _blend(commands: Commands) -> None:
    """Add ``blend``."""
    help_ = "Sum the scores of finished runs, with weights fitted on validation rows."
    parser = _command(commands, "blend", help_, _on_blend)
    _list_option(parser, "runs", "folders of finished runs on the same rows", options.files)


def _on_blend(args: argparse.Namespace, overrides: Overrides) -> int:
    """Run the model Blend under the protocol of the runs, and print the result."""
    folders: list[Plain] = [*args.runs]
    shared = protocol.shared_protocol(args.runs)
    keys: dict[str, Plain] = {**shared, "runs": folders, **overrides}
    dataset = str(keys.pop("dataset"))
    early.check_keys(protocol.BLEND, dataset, (), overrides)
    from recbole_mm.run import format_result, run

    print(format_result(run(protocol.BLEND, dataset, (), keys)))
    return 0


def _pretrain(commands: Commands) -> None:
    """Add ``pretrain``."""
    help_ = "Pre-train UniSRec on several data sets; --pretrained=FOLDER starts a run from it."
    parser = _command(commands, "pretrain", help_, _on_pretrain)
    _list_option(parser, "datasets", 'data sets to learn from, such as "A B C"')
    _option(parser, "output", "folder of the weights and of the mixed data", required=True)
    _list_option(parser, "config_files", "YAML files, later ones win", options.files)


def _on_pretrain(args: argparse.Namespace, overrides: Overrides) -> int:
    """Pre-train, and print the result on mixed validation sessions."""
    from recbole_mm.run import format_result
    from recbole_mm.run.pretraining import pretrain

    print(format_result(pretrain(args.datasets, args.output, args.config_files, overrides)))
    return 0


def _encode(commands: Commands) -> None:
    """Add ``encode``; its options stand beside its steps."""
    from recbole_mm.encode.options import add_options

    help_ = "Turn texts, pictures, or vectors you have, into a feature file."
    parser = _command(commands, "encode", help_, _on_encode)
    parser.epilog = None
    add_options(parser)


def _on_encode(args: argparse.Namespace, overrides: Overrides) -> int:
    """Delegate to :mod:`recbole_mm.encode.cli`."""
    from recbole_mm.encode.cli import encode_command

    args.dataset = _from_files(args, "dataset")
    return encode_command(args, overrides)


def _prepare(commands: Commands) -> None:
    """Add ``prepare``; its options stand beside its sources."""
    from recbole_mm.prepare.cli import add_arguments

    parser = _command(commands, "prepare", "Make a data set from raw data.", _on_prepare)
    parser.epilog = None
    add_arguments(parser)


def _on_prepare(args: argparse.Namespace, overrides: Overrides) -> int:
    """Delegate to :mod:`recbole_mm.prepare.cli`, which also names unknown options."""
    from recbole_mm.prepare.cli import prepare_command

    args.options = overrides
    return prepare_command(args)


def _audit(commands: Commands) -> None:
    """Add ``audit``."""
    parser = _command(
        commands, "audit", "Check a data set and its split for leaks, and describe it.", _on_audit
    )
    _common(parser, model=False)


def _on_audit(args: argparse.Namespace, overrides: Overrides) -> int:
    """Split the data set as configured, check it, and print its data sheet."""
    dataset = _from_files(args, "dataset")
    early.check_keys("Pop", dataset, args.config_files, overrides)
    from recbole_mm.data.audit import data_sheet
    from recbole_mm.run.prepared import load_dataset

    print(data_sheet(load_dataset("Pop", dataset, args.config_files, overrides)))
    return 0


def _export(commands: Commands) -> None:
    """Add ``export``."""
    parser = _command(
        commands, "export", "Write the split as files that stock RecBole reads.", _on_export
    )
    _common(parser, model=False)
    _option(parser, "out", "folder for the files", required=True, metavar="FOLDER")


def _on_export(args: argparse.Namespace, overrides: Overrides) -> int:
    """Split the data set as configured, and export it."""
    dataset = _from_files(args, "dataset")
    early.check_keys("Pop", dataset, args.config_files, overrides)
    from recbole_mm.data.export import export_benchmark
    from recbole_mm.run.prepared import load_dataset

    built = load_dataset("Pop", dataset, args.config_files, overrides)
    print(export_benchmark(built, args.out))
    return 0


def _serving(commands: Commands) -> None:
    """Add ``pack``, ``recommend`` and ``serve``; their options stand beside their steps."""
    from recbole_mm.serve.options import COMMANDS

    for name, command in COMMANDS.items():
        parser = _command(commands, name, command.help, _on_serving)
        parser.epilog = None
        command.add_options(parser)


def _on_serving(args: argparse.Namespace, overrides: Overrides) -> int:
    """Delegate to the command's module."""
    from recbole_mm.serve.options import COMMANDS

    _no_keys(args.command, overrides)
    return int(spec.import_object(COMMANDS[args.command].handler)(args))


def _no_keys(command: str, overrides: Overrides) -> None:
    """Refuse keys of a configuration where a command takes none."""
    if overrides:
        raise ConfigError(f"{command} takes no option --{next(iter(overrides))}")


def _doctor(commands: Commands) -> None:
    """Add ``doctor``."""
    _command(commands, "doctor", "Say what is installed, found and missing.", _on_doctor)


def _on_doctor(args: argparse.Namespace, overrides: Overrides) -> int:
    """Delegate to :mod:`recbole_mm.doctor`."""
    from recbole_mm.doctor import doctor

    _no_keys("doctor", overrides)
    return doctor()
