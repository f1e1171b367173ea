"""`imd SUBCOMMAND …`: the arguments, and what the exit codes mean."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import imd
from imd.command.output import Output
from imd.protocol.errors import ConfigurationError

OK = 0
SOMETHING = 1
"""it worked, and there is something to know: warnings, a message that was refused, an id that is nowhere"""
BROKEN = 2
"""it does not work: a configuration that cannot be used, a server that does not answer"""
USAGE = 64
INTERRUPTED = 130

SUBCOMMANDS = (
    "chat",
    "token",
    "check",
    "doctor",
    "trace",
    "room",
    "nodes",
    "gateway",
    "drain",
    "upgrade",
    "migrate",
)

EPILOG = """exit codes:
  0    fine
  1    there is something to know: warnings, a message that was refused, an id that is nowhere
  2    it does not work: a configuration that cannot be used, a server that does not answer
  64   the command line makes no sense
  130  interrupted

On a terminal the output has colours; in a pipe it is plain, or JSON with --json."""


class Parser(argparse.ArgumentParser):
    """Leaves with USAGE, as 2 means something else here."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")


def make_parser(names: Sequence[str] = SUBCOMMANDS) -> Parser:
    """A parser of these subcommands; it imports their modules."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        prog="imd", description="Talks to a node, and looks after one.", epilog=EPILOG, formatter_class=plain
    )
    parser.add_argument("--version", action="version", version=f"imd {imd.__version__}")
    commands = parser.add_subparsers(metavar="SUBCOMMAND", required=True, parser_class=Parser)
    for name in names:
        module = importlib.import_module(f"imd.command.{name}")
        summary, _, details = (module.__doc__ or "").partition("\n\n")
        command = commands.add_parser(
            name,
            help=summary[:1].lower() + summary[1:].rstrip("."),
            description=summary,
            epilog=details.strip(),
            formatter_class=plain,
        )
        module.add_arguments(command)
        command.add_argument("--json", action="store_true", help="JSON instead of text")
        command.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    # Each subcommand imports much: the others only where the help or a complaint lists them.
    known = words[:1] if words[:1] and words[0] in SUBCOMMANDS else SUBCOMMANDS
    options: Any = make_parser(known).parse_args(words)
    output = Output(options.json)
    try:
        return int(options.run(options, output))
    except ConfigurationError as error:
        output.problem(str(error))
        return BROKEN
    except BrokenPipeError:
        # The reader has closed the pipe. Python must not flush into it at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        return INTERRUPTED
