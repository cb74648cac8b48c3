"""Commands: run in the test's own process, which need not import torch anew; or only parsed."""

import contextlib
import io
import sys
from typing import NamedTuple
from unittest import mock

import click
import pytest

from recon_search import cli


class Done(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    output: str
    error: str


def call(*arguments, cwd):
    """Run a command as `recon-search` does, in a folder."""
    output, error = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        mock.patch.object(sys, "argv", ["recon-search", *map(str, arguments)]),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(error),
        pytest.raises(SystemExit) as stopped,
    ):
        cli.main()
    return Done(stopped.value.code, output.getvalue(), error.getvalue())


def commands(command=cli.cli, path=()):
    """Every command and group by the words that call it."""
    found = {path: command}
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            found |= commands(each, (*path, name))
    return found


def parse(words):
    """Parse what follows `recon-search`; returns the command's words and its values.

    Raises:
        click.UsageError: there is no such command, option or choice, or an argument lacks.
    """
    known, path = commands(), ()
    while (*path, *words[:1]) in known and words:
        path, words = (*path, words[0]), words[1:]
    context = known[path].make_context(" ".join(path), list(words))
    return path, context.params
