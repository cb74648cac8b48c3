"""What `--help` says: every command, and an example at its end that the command line takes."""

import shlex

import click
import pytest

from tests.command import commands, parse

COMMANDS = commands()


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_ends_with_an_example_of_the_command(path, invoke):
    done = invoke(*path, "--help")
    assert done.code == 0
    example = done.output.rstrip().splitlines()[-1].strip()
    assert example.startswith("Example: recon-search ")
    words = shlex.split(example.removeprefix("Example: recon-search "))
    assert tuple(words[: len(path)]) == path
    parse(words)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_says_what_it_does_or_what_it_is_by_default(path):
    for option in COMMANDS[path].params:
        if isinstance(option, click.Option):
            assert option.help or option.show_default, option.name
