"""A run that is given too little time ends in order, and goes on to the same bytes."""

import itertools
import json

import pytest

from recon_search.recipe import load_recipe
from recon_search.runs import deadline
from recon_search.runs.deadline import Deadline, OutOfTime, in_time
from recon_search.runs.folder import open_folder
from recon_search.runs.run import Run
from recon_search.stages.run import run_all
from recon_search.stages.train import train_one
from tests.stages.recipes import TINY

SMALL = TINY.replace("epochs = 1", "epochs = 2").partition("[compare]")[0]
SMALL += "[compare]\nseeds = 1\ncontrols = []\n"


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by a second whenever somebody looks at it."""
    ticks = itertools.count()
    monkeypatch.setattr(deadline, "now", lambda: float(next(ticks)))


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "tiny.toml").write_text(SMALL)
    return load_recipe(tmp_path / "tiny.toml")


def hear(times, limit, *, known=0, last=10):
    """Epochs that are heard of before time is up, if they end at these times."""
    heard = []
    moments = iter([0.0, *times])
    now = next(moments)

    class Clock:
        at = now

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deadline, "now", lambda: Clock.at)
        hears = in_time(Deadline(limit, 1.0), heard.append, known=known, last=last)
        try:
            for number, Clock.at in enumerate(moments, start=1):
                hears({"epoch": number})
        except OutOfTime:
            return len(heard)
    return None


@pytest.mark.parametrize(
    ("times", "limit", "known", "last", "heard"),
    [
        ([1, 2, 3, 4], 9.0, 0, 4, None),
        ([1, 2, 3, 4], 3.5, 0, 4, 3),  # a fourth would end at 4
        ([1, 2, 3, 4], 4.0, 0, 5, 4),  # a fourth ends just in time
        ([1, 2, 3, 4], 3.9, 0, 4, 3),
        ([5, 6], 1.0, 0, 2, 1),  # one epoch is trained in any case
        ([5, 6], 1.0, 0, 1, None),  # the last is followed by none
        ([9, 9, 9, 10, 11], 1.0, 3, 5, 4),  # three are read from a checkpoint: one is trained
    ],
)
def test_an_epoch_begins_only_where_it_will_end_in_time(times, limit, known, last, heard):
    assert hear(times[:last], limit, known=known, last=last) == heard


def contents(folder):
    """Every file that must not depend on interruptions, and how many epochs each training has."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".safetensors" or path.name in ("split.json", "config.json"):
            found[path.relative_to(folder)] = path.read_bytes()
        if path.name == "metrics.jsonl":
            records = [json.loads(line) for line in path.read_text().splitlines()]
            for record in records:
                del record["seconds"]
            found[path.relative_to(folder)] = records
    comparison = (folder / "comparison.json").read_text().replace(str(folder), "")
    found["comparison.json"] = json.loads(comparison)
    del found["comparison.json"]["digest"]  # of the folder's name, too
    return found


def test_a_run_in_many_short_pieces_gives_the_same_bytes(tmp_path, recipe, clock):
    whole = Run(recipe, tmp_path / "whole", workers=1)
    open_folder(recipe, whole.out, resume=False)
    run_all(whole)
    said = []
    for _ in range(50):
        piece = Run(recipe, tmp_path / "pieces", workers=1, deadline=Deadline.after(3 / 3600))
        open_folder(recipe, piece.out, resume=True)
        try:
            run_all(piece)
            break
        except OutOfTime as left:
            said.append(str(left))
    assert contents(piece.out) == contents(whole.out)
    assert said[0] == "probe: 0 of 1 trainings are done, 1 more begun; the comparison has not begun"
    assert any(text.startswith("compare: ") and "1 more begun" in text for text in said)


def test_an_epoch_is_trained_in_any_case_and_no_second_one_begun_when_time_is_up(
    tmp_path, recipe, clock
):
    run = Run(recipe, tmp_path / "out", workers=1, deadline=Deadline.after(-1 / 3600))
    with pytest.raises(OutOfTime, match="train: 0 of 1 trainings are done, 1 more begun"):
        train_one(run, None)
    with pytest.raises(OutOfTime, match="train: 0 of 1 trainings are done, 1 more begun"):
        train_one(run, None)  # an epoch of this process before this deadline was enough
    (checkpoint,) = run.out.rglob("checkpoint.safetensors")
    lines = checkpoint.with_name("metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1]


def test_the_command_ends_well_says_what_is_left_and_goes_on(tmp_path, invoke, recipe):
    arguments = ["train", "tiny.toml", "--workers", 1, "--device", "cpu", "--out"]
    assert invoke(*arguments, "whole").code == 0
    done = invoke(*arguments, "cut", "--max-hours", "1e-9")
    assert (done.code, done.error) == (0, "")
    assert done.output.splitlines()[-1] == (
        "Time is up (--max-hours 1e-09): train: 0 of 1 trainings are done, 1 more begun. "
        "Go on with --resume."
    )
    assert not (tmp_path / "cut/model").exists()
    assert invoke(*arguments, "cut", "--resume").code == 0
    whole, cut = ((tmp_path / name / "model/model.safetensors") for name in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()


@pytest.mark.parametrize("hours", ["0", "-1", "soon"])
def test_hours_are_a_positive_number(invoke, hours, recipe):
    code, _, error = invoke("run", "tiny.toml", "--max-hours", hours)
    assert code == 2
    assert "--max-hours" in error
