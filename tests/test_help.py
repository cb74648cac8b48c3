"""What `--help` says: every command, and an example at its end that the command line takes."""

import os
import shlex
import subprocess
import sys

import click
import pytest
from click.shell_completion import ShellComplete

from recon_search.cli import cli, completion
from recon_search.conflict.rules import RULES
from recon_search.data.registry import DEFAULTS, DOMAINS, FACTORY, READERS
from recon_search.methods.registry import METHODS
from recon_search.runs.writers import WRITERS
from recon_search.views.keys import key_rows
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
        (["train", "--method"], "nash", [("plain", "nash-mtl")]),
        (["train", "--split"], "published:recon-n", [("plain", "published:recon-nyuv2-mtan")]),
        (["rank", "x", "--rule"], "ga", [("plain", "gain")]),
        (["ls", "keys"], "spl", [("plain", "split")]),
        (["ls", "keys"], "split.thr", [("plain", "split.threshold")]),
        (["run", "--log"], "ten", [("plain", "tensorboard")]),
        (["run", "--set"], "split.thr", [("plain", "split.threshold=")]),
        (["run", "--set"], "tasks.N", []),
        (["run", "--set"], "train.method=nash", [("plain", "train.method=nash-mtl")]),
        (["run", "--set"], "data.name=office-h", [("plain", "data.name=office-home")]),
        (["run", "--set"], "split.when=d", [("plain", "split.when=during")]),
        (
            ["run", "--set"],
            "backbone.pretrained=",
            [("plain", "backbone.pretrained=true"), ("plain", "backbone.pretrained=false")],
        ),
        (["run", "--set"], "train.lr=", []),
        (["run", "--set"], "no.such=x", []),
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


def test_a_shell_completes_the_names_that_are_registered():
    assert set(completion.METHODS) == set(METHODS)
    assert set(completion.RULES) == set(RULES)
    assert set(completion.DATA) == {*DEFAULTS, *READERS, *DOMAINS, FACTORY}
    assert set(completion.WRITERS) == set(WRITERS)
    keys = {row["key"] for row in key_rows()}
    assert completion.OF_KEYS.keys() <= keys


def test_a_shell_does_not_wait_for_torch():
    """Completing PATH=VALUE, which reads the whole schema, in a process of its own."""
    words = {"COMP_WORDS": "recon-search run --set split.rule=gai", "COMP_CWORD": "3"}
    script = (
        "import sys; from recon_search.cli import cli; "
        "sys.argv = ['recon-search']\n"
        "try: cli(prog_name='recon-search')\n"
        "finally: print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env={**os.environ, **words, "_RECON_SEARCH_COMPLETE": "bash_complete"},
    )  # fmt: skip
    assert done.stdout.split() == ["plain,split.rule=gain", "False"]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_says_what_it_does_or_what_it_is_by_default(path):
    for option in COMMANDS[path].params:
        if isinstance(option, click.Option):
            assert option.help or option.show_default, option.name
