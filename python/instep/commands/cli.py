"""The command line: ``instep``, also ``python -m instep``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple, Protocol, cast

from instep import __version__

__all__ = ["main"]


class Command(NamedTuple):
    """A subcommand: where its code is, and its line in the help."""

    module: str
    summary: str


# A command's module defines add_arguments(parser) and run(arguments) -> exit status.
COMMANDS = {
    "bench": Command(
        "instep.commands.bench.command",
        "Time a step of Adam beside plain NumPy and the memory's own limit",
    ),
    "demo": Command(
        "instep.commands.demo.command",
        "Train a network with instep.AdamW and with AdamW in plain NumPy",
    ),
    "info": Command(
        "instep.commands.info", "Show what was compiled, what this machine supports, what is used"
    ),
    "inspect": Command("instep.commands.inspect", "Verify a checkpoint and show what is in it"),
}


class _CommandModule(Protocol):
    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, arguments: argparse.Namespace) -> int: ...


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="instep", description="In-place, fused optimizer steps on NumPy arrays."
    )
    parser.add_argument("--version", action="version", version=f"instep {__version__}")
    parser.set_defaults(run=None)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=command.summary, description=f"{command.summary}."
        )
        if name in argv:  # so that a command never waits for the imports of another command
            module = cast(_CommandModule, import_module(command.module))
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status; wrong usage raises SystemExit with 2.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after the program's name; those of this process by default.
    """
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:  # also after --help, which leaves by SystemExit
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:  # the reader has closed the pipe: instep info | head -1
        # The rest is still in the buffer, and Python would try to write it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130  # shells report this for a program that Ctrl-C has ended


def _run(argv: Sequence[str]) -> int:
    parser = _parser(argv)
    arguments = parser.parse_args(argv)
    run: Callable[[argparse.Namespace], int] | None = arguments.run
    if run is None:
        parser.print_help()
        return 0
    return run(arguments)
