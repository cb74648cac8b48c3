"""A command run in the test's own process, which need not import torch anew."""

import contextlib
import io
import sys
from typing import NamedTuple
from unittest import mock

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
