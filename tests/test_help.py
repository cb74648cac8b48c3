"""What `--help` says: every command, and an example at its end that the command line takes."""

import shlex

import click
import pytest

from recon_search.cli import cli


def commands(command=cli, path=()):
    """Every command and group by the words that call it."""
    found = {path: command}
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            found |= commands(each, (*path, name))
    return found


COMMANDS = commands()


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_ends_with_an_example_of_the_command(path, invoke):
    done = invoke(*path, "--help")
    assert done.code == 0
    example = done.output.rstrip().splitlines()[-1].strip()
    assert example.startswith("Example: recon-search ")
    words = shlex.split(example.removeprefix("Example: recon-search "))
    assert tuple(words[: len(path)]) == path
    command = next(COMMANDS[tuple(words[:n])] for n in (2, 1) if tuple(words[:n]) in COMMANDS)
    depth = next(n for n in (2, 1) if tuple(words[:n]) in COMMANDS)
    command.make_context(words[0], words[depth:])  # raises where an option is unknown


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_says_what_it_does_or_what_it_is_by_default(path):
    for option in COMMANDS[path].params:
        if isinstance(option, click.Option):
            assert option.help or option.show_default, option.name
