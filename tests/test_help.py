"""What `--help` says: every command, and an example at its end that the command line takes."""

import shlex

import click
import pytest
from click.shell_completion import ShellComplete

from recon_search.cli import cli
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


def test_lists_of_commands_say_what_each_does_in_one_whole_line(invoke):
    for group in ([], ["ls"]):
        _, _, listed = invoke(*group, "--help").output.partition("Commands:\n")
        lines = listed.partition("\n\n")[0].splitlines()
        assert len(lines) > 5
        for line in lines:
            assert len(line) <= 80
            assert len(line.split()) > 3
            assert not line.endswith(("...", ","))


@pytest.mark.parametrize(
    ("words", "incomplete", "found"),
    [
        (["ls"], "ru", [("plain", "runs")]),
        (["run"], "quick", [("plain", "quickstart")]),
        (["init"], "quick", [("plain", "quickstart")]),
        (["run"], "mine", [("file", "mine")]),  # the shell knows files itself
        (["run"], "photos", [("file", "photos")]),
        (["train"], "--meth", [("plain", "--method")]),
    ],
)
def test_a_shell_completes_commands_options_and_recipes(
    words, incomplete, found, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos-of-mine.toml").touch()
    completion = ShellComplete(cli, {}, "recon-search", "_RECON_SEARCH_COMPLETE")
    completed = completion.get_completions(words, incomplete)
    assert [(each.type, each.value) for each in completed] == found


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_says_what_it_does_or_what_it_is_by_default(path):
    for option in COMMANDS[path].params:
        if isinstance(option, click.Option):
            assert option.help or option.show_default, option.name
