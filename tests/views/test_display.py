"""What a person hears of a run: lines where output is piped, bars on a terminal."""

import io

import optuna
import pytest
from optuna.study import StudyDirection
from rich.console import Console

from recon_search.runs.listener import Listener
from recon_search.training.loop import Progress
from recon_search.views.display import ConsoleListener

NASTY = "joint [/red] [b]x[/b] {0}, seed 0"


def listening(**options):
    console = Console(width=200, file=io.StringIO(), **options)
    return ConsoleListener(console), console.file


def test_every_training_that_is_done_is_a_line_where_output_is_piped():
    listener, output = listening()
    with listener.over("compare", 2):
        listener.step(NASTY, Progress(5, 10, 1.0, 100.0))
        listener.finish(NASTY, 2.5)
        listener.finish("known, seed 1", 0.0)
    lines = output.getvalue().splitlines()
    assert [line.partition(" (")[0] for line in lines] == [
        f"compare 1/2: {NASTY}",
        "compare 2/2: known, seed 1",
    ]
    assert "(2.5 s, about" in lines[0]


def test_a_terminal_shows_names_as_they_are():
    listener, output = listening(force_terminal=True)
    with listener.over("compare", 2):
        listener.step(NASTY, Progress(5, 10, 1.25, 100.0))
    shown = output.getvalue()
    assert NASTY in shown
    assert "loss 1.250  100 images/s" in shown


@pytest.mark.parametrize("title", ["compare", "search"])
def test_the_display_ends_with_what_it_shows_however_that_ends(title):
    listener, output = listening()
    with pytest.raises(KeyboardInterrupt), listener.over(title, 3):
        raise KeyboardInterrupt
    before = output.getvalue()
    listener.finish("late", 1.0)
    listener.step("late", Progress(1, 2, 0.0, 1.0))
    listener.study("late", 3, [], [StudyDirection.MAXIMIZE])
    assert output.getvalue() == before, "nothing is shown that was not begun"
    listener.end()


def test_one_display_follows_another():
    listener, output = listening()
    for title in ("probe", "compare"):
        with listener.over(title, 1):
            listener.finish(title, 0.0)
    assert "probe 1/1: probe" in output.getvalue()
    assert "compare 1/1: compare" in output.getvalue()


def test_a_sentence_is_one_line_as_it_is():
    listener, output = listening()
    text = f"Warning: {NASTY} " + "and so on " * 40
    listener.say(text)
    assert output.getvalue().splitlines() == [text]


def make_study():
    study = optuna.create_study(study_name=NASTY, direction="maximize")
    study.add_trial(optuna.trial.create_trial(value=1.0))
    return study


def test_trials_that_end_during_a_search_are_lines():
    listener, output = listening()
    study = make_study()
    with listener.over("search", 3):
        listener.study(NASTY, 3, study.trials, study.directions)
        study.add_trial(optuna.trial.create_trial(value=2.0))
        listener.study(NASTY, 3, study.trials, study.directions)
    (line,) = output.getvalue().splitlines()
    assert line.startswith("trial 1: complete")
    assert "2/3" in line


def test_a_searchs_bar_has_the_name_of_its_study():
    listener, output = listening(force_terminal=True)
    study = make_study()
    with listener.over("search", 3):
        listener.study(NASTY, 3, study.trials, study.directions)
    assert f"search {NASTY}" in output.getvalue()


def test_who_does_not_care_hears_everything_in_silence(capsys):
    listener = Listener()
    with listener.over("compare", 1):
        listener.step("a", Progress(1, 2, 0.0, 1.0))
        listener.finish("a", 1.0)
        listener.study("s", 1, [], [])
        listener.say("text")
    assert capsys.readouterr() == ("", "")
