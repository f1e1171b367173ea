"""The command `imd`: talking to a node, and looking after one. Each subcommand is a module."""

from imd.command.cli import main

__all__ = ["main"]
