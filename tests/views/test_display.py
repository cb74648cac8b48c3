"""What a person hears of a run: lines where output is piped, bars on a terminal."""

import io

import optuna
import pytest
from optuna.study import StudyDirection
from rich.console import Console

from recon_search.runs.listener import Listener
from recon_search.training.loop import Progress
from recon_search.views import display as display_module
from recon_search.views.display import ConsoleListener, Display

NASTY = "joint [/red] [b]x[/b] {0}, seed 0"


def listening(level="normal", **options):
    console = Console(**({"width": 200, "file": io.StringIO()} | options))
    return ConsoleListener(console, level), console.file


def record(epoch=1):
    return {"epoch": epoch, "train": {"a": 1.0, "b": 2.0}, "validation": {}, "seconds": 3.0}


def test_every_training_that_is_done_is_a_line_where_output_is_piped():
    listener, output = listening()
    with listener.over("compare", 2):
        listener.step(NASTY, Progress(5, 10, 1.0, 100.0))
        listener.finish(NASTY, 2.5)
        listener.start("known, seed 1")
        listener.finish("known, seed 1", 0.0)
    lines = output.getvalue().splitlines()
    assert [line.partition(" (")[0] for line in lines] == [
        f"compare 1/2: {NASTY}",
        "compare 2/2: known, seed 1",
    ]
    assert "(2.5 s, about" in lines[0]
    assert lines[1].endswith("(known, about 0 s left)"), "nothing was heard of it: it was there"


def test_a_terminal_shows_names_as_they_are():
    listener, output = listening(force_terminal=True)
    with listener.over("compare", 2):
        listener.step(NASTY, Progress(5, 10, 1.25, 100.0, 2, 4, {"a": 1.0, "[b]": 1.5}))
    shown = output.getvalue()
    assert NASTY in shown
    for text in ("epoch 2/4", "1.25", "a 1.00, [b] 1.50", "100 images/s", "0/2 trainings"):
        assert text in shown


def test_what_moves_is_taken_away_and_what_was_done_stays():
    listener, output = listening(force_terminal=True)
    with listener.over("compare", 1):
        listener.step("one", Progress(5, 10, 1.25, 100.0, 2, 4))
        listener.finish("one", 1.0)
    assert "compare: 1 training in " in output.getvalue().rpartition("\x1b[2K")[2]


def test_a_terminal_that_is_full_says_how_many_more_there_are():
    console = Console(width=80, height=10, force_terminal=True, file=io.StringIO())
    display = Display("compare", 50, console)
    display.begin("new")
    for number in range(39):
        display.step(f"one {number}", Progress(5, 10, 1.0, 1.0, 2, 4))
    with console.capture() as shown:
        console.print(display.draw())
    lines = shown.get().splitlines()
    assert len(lines) <= 10
    assert lines[0] == "new  begins"
    assert "and 33 more" in lines[-2]


@pytest.mark.parametrize(
    ("level", "total", "n_lines"),
    [("normal", 1, 2), ("normal", 2, 0), ("verbose", 2, 2), ("quiet", 1, 0)],
)
def test_epochs_are_lines_where_there_is_one_training_or_somebody_asks(level, total, n_lines):
    listener, output = listening(level)
    with listener.over("train", total):
        for epoch in (1, 2):
            listener.step("one", Progress(5 * epoch, 10, 1.0, 100.0, epoch, 2))
            listener.epoch("one", record(epoch))
    lines = output.getvalue().splitlines()
    assert len(lines) == n_lines
    if lines:
        assert lines[-1] == ("train: one, epoch 2/2: training loss 1.50 (a 1.00, b 2.00), 3.0 s")


def test_long_silence_among_many_trainings_is_broken_by_an_epoch(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(display_module.time, "perf_counter", lambda: clock[0])
    listener, output = listening()
    with listener.over("compare", 2):
        for clock[0] in (10.0, 70.0, 80.0):
            listener.epoch("one", record())
    assert len(output.getvalue().splitlines()) == 1


def test_the_time_left_counts_what_is_to_come_and_not_what_was_known(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(display_module.time, "perf_counter", lambda: clock[0])
    display = Display("probe", 4, Console(file=io.StringIO()), later=5)
    assert display.left() is None, "nothing tells yet"
    display.finish("known before", 100.0)
    display.step("one", Progress(1, 11, 1.0, 1.0, 1, 1))
    clock[0] = 10.0
    display.step("one", Progress(11, 11, 1.0, 1.0, 1, 1))
    assert display.left() == pytest.approx(10 / (10 / 11) * 7)
    display.finish("one", 10.0)
    assert display.left() == pytest.approx(10 * 7)


def test_quiet_is_silent_but_for_warnings():
    listener, output = listening("quiet", force_terminal=True)
    with listener.over("compare", 1):
        listener.step("one", Progress(1, 2, 0.0, 1.0))
        listener.finish("one", 1.0)
    listener.say("Stable: after 3 seeds")
    listener.say("Warning: few seeds")
    assert output.getvalue().splitlines() == ["Warning: few seeds"]


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


def test_a_terminal_shows_what_runs_is_done_is_best_and_matters():
    listener, output = listening(force_terminal=True)
    study = optuna.create_study(study_name="s", direction="maximize")
    for number in range(6):
        trial = study.ask()
        k = trial.suggest_int("split.k", 0, 40)
        trial.suggest_categorical("split.rule", ["count"])
        study.tell(trial, float(k + number / 100))
    study.ask().suggest_int("split.k", 0, 40)
    with listener.over("search", 30):
        listener.study("s", 30, study.trials, study.directions)
    shown = output.getvalue()
    for text in ("trial   6  begins", "6 complete, 1 running", "best +", "matters: split.k 100%"):
        assert text in shown
    assert "6/30 trials" in shown


def test_who_does_not_care_hears_everything_in_silence(capsys):
    listener = Listener()
    with listener.over("compare", 1):
        listener.step("a", Progress(1, 2, 0.0, 1.0))
        listener.epoch("a", record())
        listener.finish("a", 1.0)
        listener.expect(3)
        listener.study("s", 1, [], [])
        listener.say("text")
    assert capsys.readouterr() == ("", "")
