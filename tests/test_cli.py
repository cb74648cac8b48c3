"""The command line as a user meets it: real files; real processes where these matter.

The others run in this process, which need not import torch anew.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

import recon_search as rs
from recon_search.conflict.scores import ConflictScores
from recon_search.errors import SplitError
from recon_search.stages.export import default_target, export
from tests.command import call
from tests.idx import write_item_set
from tests.stages.recipes import TINY

MNIST = ["--set", "data.name=multi-mnist", "--set", "data.canvas=36"]


def recon_search(*arguments, cwd):
    """Run a command in a process of its own."""
    command = [sys.executable, "-m", "recon_search", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of the tiny recipe."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.toml").write_text(TINY.replace("k = 3", "k = 20"))  # enough to widen instead
    done = recon_search("run", "tiny.toml", "--out", "out", cwd=folder)
    return folder, done.stdout


def test_run_prints_a_table_and_leaves_its_artefacts(finished):
    folder, output = finished
    for word in ("joint, split", "pcgrad, split", "wider joint network", "delta_m", "single-task"):
        assert word in output
    comparison = json.loads((folder / "out/comparison.json").read_text())
    rows = {row["name"]: row for row in comparison["rows"]}
    assert len(rows) == 11, "separate networks are the last"
    assert rows["joint, split"]["n_parameters"] > rows["joint, unsplit"]["n_parameters"]
    wider = rows["wider joint network"]["n_parameters"] / rows["joint, split"]["n_parameters"]
    assert 0.8 < wider < 1.2
    assert all(len(row["delta_m"]) == 2 for row in rows.values())
    page = (folder / "out/report.html").read_text()
    assert "data:image/png;base64" in page
    assert "2 separate backbones" in page
    assert (folder / "out/split.png").read_bytes().startswith(b"\x89PNG")
    assert "http" not in page.replace("http-equiv", "")


def test_export_loads_into_plain_timm(finished):
    folder, _ = finished
    model = rs.load(folder / "out/model")
    description = json.loads((folder / "out/export/left.json").read_text())
    plain = timm.create_model(**description["timm"]).eval()
    plain.load_state_dict(load_file(folder / "out/export/left.safetensors"), strict=True)
    images = torch.randn(2, 1, 12, 12)
    assert torch.equal(plain(images), model.backbone(images)["left"])
    done = call("export", "out/model", "--task", "right", "--out", "r.safetensors", cwd=folder)
    assert "Largest difference to the model: 0" in done.output
    done = call("export", "out/model", "--task", "write", cwd=folder)
    assert done.code == 2
    assert "got 'write'. Did you mean 'right'?" in done.error


@pytest.mark.parametrize("kind", ["safetensors", "torch-export", "onnx"])
@pytest.mark.parametrize("task", [None, "left"])
def test_every_format_computes_what_the_model_computes(finished, tmp_path, kind, task):
    """`export` runs the written file for batches of 1 and 5; it returns the largest difference."""
    folder, _ = finished
    target = tmp_path / default_target(kind, task)
    assert export(folder / "out/model", kind, task, target) < 1e-4
    assert target.exists()


def test_timm_holds_one_task(finished, tmp_path):
    folder, _ = finished
    with pytest.raises(SplitError, match="needs --task"):
        export(folder / "out/model", "timm", None, tmp_path / "m.safetensors")


def test_rank_and_split_from_saved_scores(finished):
    folder, _ = finished
    done = call("rank", "out/scores.safetensors", "--threshold", "-0.05", cwd=folder)
    assert "layer1.0.conv1" in done.output
    assert (folder / "out/conflicts.png").read_bytes().startswith(b"\x89PNG")
    ranking = json.loads(call("rank", "out/scores.safetensors", "--json", cwd=folder).output)
    scores = rs.ConflictScores.load(folder / "out/scores.safetensors")
    assert {row["layer"] for row in ranking["layers"]} == set(scores.layers)
    assert ranking["reliability"]["k"] == 10
    assert 0 <= ranking["reliability"]["stability"] <= 1
    arguments = ["--scores", "out/scores.safetensors", "--set", "split.k=5", "--out", "five.json"]
    assert call("split", "tiny.toml", *arguments, cwd=folder).code == 0
    assert len(rs.Split.load(folder / "five.json").layers) == 5


def test_two_rankings_are_compared(finished, tmp_path):
    folder, _ = finished
    done = call("rank", "out", "out/scores.safetensors", "--k", "7", cwd=folder)
    assert done.code == 0, done.error
    assert "Kendall's tau 1.00" in done.output
    counts = {
        layer: n
        for n, layer in enumerate(rs.ConflictScores.load(folder / "out/scores.safetensors").layers)
    }
    (tmp_path / "counts.json").write_text(json.dumps(counts))
    done = call("rank", "out", tmp_path / "counts.json", "--k", "7", "--json", cwd=folder)
    found = json.loads(done.output)
    assert [top["k"] for top in found["tops"]] == [1, 3, 5, 7, 10, 20, 40]
    assert all(
        own is not None and other is None for own, other in (t["stability"] for t in found["tops"])
    )
    code, _, error = call("rank", "out", "published:recon-multi-fashion-mnist", cwd=folder)
    assert (code, error.count("\n")) == (2, 1)
    assert "Two rankings must be of the same layers, got 43 and 41" in error
    assert call("rank", "out", "out", "--plot", "x.png", cwd=folder).code == 2
    assert not (folder / "x.png").exists()


def test_the_order_that_recons_authors_published_can_be_tried(tmp_path, invoke):
    """Their files map layers to counts."""
    (tmp_path / "tiny.toml").write_text(TINY)
    counts = {"layer1.0.bn1": 5, "bn1": 9, "fc": 1, "layer1.1.bn1": 7}
    (tmp_path / "counts.json").write_text(json.dumps(counts))
    assert invoke("split", "tiny.toml", "--counts", "counts.json").code == 0
    assert set(rs.Split.load(tmp_path / "split.json").layers) == {
        "bn1",
        "layer1.1.bn1",
        "layer1.0.bn1",
    }


def test_a_split_found_on_one_data_set_is_reused_on_another(finished):
    """Other tasks, other class counts, other image sizes: the split carries over."""
    folder, _ = finished
    for name in ("mnist", "fashion-mnist"):
        write_item_set(folder / "data" / name)
    done = call(
        "train", "tiny.toml", "--set", "data.name=multi-fashion-mnist", "--set", "data.canvas=36",
        "--data-root", "data", "--split", "out/split.json", "--out", "reused", "--json", cwd=folder,
    )  # fmt: skip
    assert done.code == 0, done.error
    assert list(json.loads(done.output)["test"]) == ["digit", "fashion"]
    split = rs.load(folder / "reused/model").backbone.split
    assert split.tasks == ("digit", "fashion")
    assert list(split.layers) == list(rs.Split.load(folder / "out/split.json").layers)


def test_a_split_for_another_backbone_is_refused(finished):
    folder, _ = finished
    done = call(
        "train", "tiny.toml", "--set", "backbone.args.channels=[4,4,8,16]",
        "--split", "out/split.json", "--out", "other", cwd=folder,
    )  # fmt: skip
    assert done.code == 2
    assert "The split must fit the backbone" in done.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "backbone.name=resnet_18"], "Did you mean 'resnet18"),
        (["--set", "split.kk=3"], "`split.kk` is no key of a recipe"),
        (["--set", "split.k=80"], "`split.k` must be between 0 and 43"),
        (["--set", "split.threshold=-1"], "`split.threshold`"),
        (["--set", "split.rule=cuont"], "Did you mean 'count'?"),
        (["--set", "train.method=pcgard"], "Did you mean 'pcgrad'"),
        (["--set", "train.optimizer=sdg"], "Did you mean 'sgd'"),
        (MNIST, "got no data root"),
        ([*MNIST, "--data-root", "nowhere"], "train-labels-idx1-ubyte"),
        (["--set", "train.lr=1e30"], "Every loss must be finite"),
        (["--set", "backbone={name='vit_tiny_patch16_224'}"], "backbone.args.img_size"),
        (["--set", "probe.window=[0.9, 0.1]"], "A probe window must be [start, stop] in tenths"),
        (["--set", "split.threshold=-0.005"], "a multiple of 0.01"),
        (["--set", "train.method='mgda'", "--set", "train.options.epsilon=-1"], "`train.options`"),
        (["--set", "train.batch_size=1", "--set", "data.train=2"], "Raise train.batch_size"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, invoke, arguments, message):
    (tmp_path / "tiny.toml").write_text(TINY)
    code, _, error = invoke("run", "tiny.toml", "--out", "out", "--workers", "1", *arguments)
    assert code == 2
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_a_folder_in_which_nothing_was_computed_takes_another_recipe(tmp_path, invoke):
    (tmp_path / "tiny.toml").write_text(TINY)
    arguments = ["train", "tiny.toml", "--out", "out", "--workers", 1]
    assert invoke(*arguments, "--set", "data.train=0").code == 2
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out/recipe.json").write_text("{}")
    assert invoke(*arguments, "--set", "train.epochs=1").code == 0
    again = invoke(*arguments, "--set", "train.epochs=2")
    assert "--out must name a new folder" in again.error


@pytest.mark.parametrize("command", ["split", "compare"])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("backbone.name=resnet34", "and backbone (resnet34, 75 layers"),
        ("tasks", "--scores must be of the recipe's tasks (left, right)"),
        ("metadata", "these lack backbone, layer_infos, recipe, seeds"),
    ],
)
def test_scores_of_something_else_are_refused_and_nothing_is_written(
    finished, tmp_path, command, override, message
):
    folder, _ = finished
    scores = ConflictScores.load(folder / "out/scores.safetensors")
    given = scores
    if override == "tasks":
        given = ConflictScores(scores.layers, ["seg", "depth"], scores.metadata)
    if override == "metadata":
        given = ConflictScores(scores.layers, scores.tasks)
    given.save(tmp_path / "given.safetensors")
    arguments = [command, folder / "tiny.toml", "--scores", "given.safetensors", "--out", "new"]
    if command == "compare":
        arguments += ["--split", folder / "out/split.json"]
    if "=" in override:
        arguments += ["--set", override]
    code, _, error = call(*arguments, cwd=tmp_path)
    assert code == 2
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_scores_of_a_loop_of_ones_own_can_be_ranked(tmp_path, invoke):
    scores = ConflictScores(["conv1", "bn1"], ["a", "b"])
    scores.update(torch.eye(2).expand(2, 2, 2) - 0.5, at=0.7)
    scores.save(tmp_path / "scores.safetensors")
    code, out, _ = invoke("rank", "scores.safetensors", "--k", "500")
    assert code == 0
    assert "conv1" in out
    assert "nothing sets the top 2 apart" in " ".join(out.split())
    code, out, _ = invoke("rank", "scores.safetensors", "--json")
    assert json.loads(out)["reliability"]["stability"] is None
    code, _, error = invoke("rank", "scores.safetensors", "--window", "nan", "1")
    assert code == 2
    assert error.startswith("error: A probe window must be")


def save_toy_split(folder):
    layers = ["layer2.0.conv1", "layer4.0.bn1"]
    backbone = {"name": "test_resnet", "args": {}}
    rs.Split.private(layers, ["p", "q"], backbone=backbone).save(folder / "split.json")


@pytest.mark.parametrize("picture", ["net.png", "net.svg"])
def test_a_saved_split_is_shown_and_drawn(tmp_path, invoke, picture):
    save_toy_split(tmp_path)
    code, output, error = invoke(
        "split", "--show", "split.json", "--image", "1", "32", "32", "--out", picture
    )
    assert (code, error) == (0, "")
    for word in ("test_resnet on 1x32x32", "private to p | q", "same weights", "x unsplit", "ms"):
        assert word in output
    assert (tmp_path / picture).stat().st_size > 10_000


def test_a_shown_split_as_json(tmp_path, invoke):
    save_toy_split(tmp_path)
    code, output, _ = invoke("split", "--show", "split.json", "--image", "1", "32", "32", "--json")
    shown = json.loads(output)
    assert code == 0
    assert [row["layer"] for row in shown["layers"] if len(row["copies"]) > 1] == [
        "layer2.0.conv1",
        "layer4.0.bn1",
    ]
    costs = {row["name"]: row for row in shown["cost"]}
    assert costs["total"]["parameters"] > costs["unsplit"]["parameters"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give a RECIPE to choose a split, or --show"),
        (["--show", "split.json", "--out", "net.jpg"], "must end in .png or .svg, got 'net.jpg'"),
        (["tiny.toml", "--show", "split.json"], "--show takes no RECIPE"),
        (["tiny.toml", "--json"], "need --show"),
        (["--show", "nowhere.json"], "found no file at nowhere.json"),
    ],
)
def test_split_says_what_it_needs(tmp_path, invoke, arguments, message):
    save_toy_split(tmp_path)
    code, _, error = invoke("split", *arguments)
    assert code == 2
    assert message in error


def test_ls_backbones(invoke):
    _, output, _ = invoke("ls", "backbones", "test_resn*", "--sizes", "--json")
    rows = {row["name"]: row["n_parameters"] for row in json.loads(output)}
    model = timm.create_model("test_resnet", num_classes=0)
    assert rows["test_resnet"] == sum(p.numel() for p in model.parameters())
    _, output, _ = invoke("ls", "backbones", "vit_tiny")
    assert "vit_tiny_patch16_224\n" in output
    code, _, error = invoke("ls", "backbones", "resnet_18")
    assert code == 2
    assert "'resnet_18' matches none. Did you mean 'resnet18'" in error


def test_ls_layers(invoke):
    _, output, _ = invoke("ls", "layers", "test_resnet", "--args", "in_chans=1", "--json")
    rows = json.loads(output)
    assert rows[0]["shape"][1] == 1
    assert [row["layer"] for row in rows] == list(
        rs.layers(timm.create_model("test_resnet", num_classes=0))
    )
    found = next(row for row in rows if row["layer"] == "layer2.0.conv1")
    assert (found["type"], found["stage"], found["block"]) == ("Conv2d", "layer2", "layer2.0")
    _, output, _ = invoke("ls", "layers", "test_resnet")
    assert f"{len(rows)} splittable layers" in output
    for arguments, message in (
        (["resnet_18"], "Did you mean 'resnet18'"),
        (["resnet18", "--args", "wdith=3"], "unexpected keyword argument 'wdith'"),
        (["resnet18", "--args", "wdith"], "must be key=value, got 'wdith'"),
    ):
        code, _, error = invoke("ls", "layers", *arguments)
        assert code == 2
        assert message in error


def test_a_truncated_scores_file_is_one_line_and_exit_code_2(finished, tmp_path):
    folder, _ = finished
    content = (folder / "out/scores.safetensors").read_bytes()
    (tmp_path / "scores.safetensors").write_bytes(content[:1000])
    code, _, error = call("rank", "scores.safetensors", cwd=tmp_path)
    assert code == 2
    assert "undamaged safetensors file" in error
    assert error.count("\n") == 1


def test_an_existing_run_is_not_overwritten(finished):
    folder, _ = finished
    code, _, error = call("run", "tiny.toml", "--out", "out", cwd=folder)
    assert code == 2
    assert "Pass --resume to go on with it" in error


def test_a_run_killed_in_the_middle_of_an_epoch_finishes_the_same(finished):
    folder, _ = finished
    expected = json.loads((folder / "out/comparison.json").read_text())
    command = [sys.executable, "-m", "recon_search", "run", "tiny.toml", "--out", "killed"]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, start_new_session=True
    ) as running:
        wait_for_a_first_epoch(folder / "killed")
        os.killpg(running.pid, signal.SIGKILL)
    assert not (folder / "killed/comparison.json").exists()
    assert list((folder / "killed").glob("trainings/*/checkpoint.safetensors"))
    done = call("run", "tiny.toml", "--out", "killed", "--resume", "--workers", 1, cwd=folder)
    assert done.code == 0, done.error
    found = json.loads((folder / "killed/comparison.json").read_text())
    for comparison in (expected, found):
        del comparison["digest"], comparison["best"]["directory"], comparison["trainings"]
    assert found == expected


def test_seeds_that_are_added_later_reuse_what_is_trained(finished, tmp_path):
    folder, _ = finished
    shutil.copytree(folder / "out", tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/trainings/*/model/*")}
    first = json.loads((tmp_path / "out/comparison.json").read_text())
    command = ["run", folder / "tiny.toml", "--out", "out", "--resume", "--workers", 1]
    n_seeds = len(first["seeds"]) + 1
    done = call(*command, "--seeds", n_seeds, cwd=tmp_path)
    assert done.code == 0, done.error
    found = json.loads((tmp_path / "out/comparison.json").read_text())
    assert found["seeds"] == [*first["seeds"], n_seeds - 1]
    for one, more in zip(first["rows"], found["rows"], strict=True):
        assert more["delta_m"][:-1] == one["delta_m"]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def wait_for_a_first_epoch(out: Path):
    """Wait until some training of the comparison has a checkpoint but no result."""
    for _ in range(6000):
        begun = {path.parent for path in out.glob("trainings/*/checkpoint.safetensors")}
        done = {path.parent for path in out.glob("trainings/*/result.json")}
        if len(done) >= 2 and begun - done:
            return
        time.sleep(0.01)
    raise AssertionError("no training began")


def test_help_does_not_wait_for_torch():
    assert "Commands:" in recon_search("--help", cwd=".").stdout
    code = "import sys, recon_search.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A finished search of the tiny recipe, begun with one trial less."""
    folder = tmp_path_factory.mktemp("searched")
    settings = '[search]\npruner = "none"\n[search.space]\n"split.k" = { low = 2, high = 5 }\n'
    (folder / "tiny.toml").write_text(TINY.partition("[compare]")[0] + settings)
    arguments = ["search", "tiny.toml", "--out", "out", "--workers", 1, "--set", "compare.seeds=1"]
    arguments += ["--set", "compare.controls=['random']"]
    first = recon_search(*arguments, "--trials", 2, "--no-judge", cwd=folder)
    assert not (folder / "out/comparison.json").exists()
    second = call(*arguments, "--trials", 3, cwd=folder)
    assert second.code == 0, second.error
    return folder, first.stdout, second.output


def test_search_goes_on_shows_its_trials_and_judges_the_best(searched):
    folder, first, second = searched
    assert "2/2: 2 complete" in first
    assert "3/3: 3 complete" in second
    summary = json.loads((folder / "out/search.json").read_text())
    counted = [row for row in summary["trials"] if row["state"] == "complete"]
    assert len(counted) == 3
    best = next(row for row in summary["trials"] if row["is_best"])
    assert best["delta_m"] == max(row["delta_m"] for row in counted)
    chosen = rs.Split.load(folder / "out/split.json")
    assert set(chosen.layers) == set(best["layers"])
    comparison = json.loads((folder / "out/comparison.json").read_text())
    assert 0 not in comparison["seeds"], "judged on seeds that the choice has not seen"
    assert rs.load(folder / "out/model").tasks == ("left", "right")
    page = (folder / "out/report.html").read_text()
    assert "The search" in page
    assert f"best {best['delta_m']:+.2f}" in page


def test_a_search_that_finds_no_split_still_reports(tmp_path, invoke):
    (tmp_path / "tiny.toml").write_text(TINY.partition("[compare]")[0])
    arguments = ["--trials", 1, "--workers", 1]  # the first guess is no split
    done = invoke("search", "tiny.toml", "--out", "out", *arguments)
    assert "No split did better" in done.output
    page = (tmp_path / "out/report.html").read_text()
    assert "no split did better than none" in page
    assert "1 complete" in page
    assert not (tmp_path / "out/split.json").exists()


def test_a_run_and_a_search_do_not_share_a_folder(searched, finished):
    folder, _, _ = searched
    code, _, error = call("run", "tiny.toml", "--out", "out", "--resume", cwd=folder)
    assert code == 2
    assert "--out must name a folder of its own for a run, found a search" in error
    folder, _ = finished
    code, _, error = call("search", "tiny.toml", "--out", "out", cwd=folder)
    assert code == 2
    assert "a folder of its own for a search, found a run" in error


def test_refused_inputs_of_a_search_leave_nothing(finished, tmp_path):
    folder, _ = finished
    arguments = ["search", folder / "tiny.toml", "--out", "out"]
    for wrong in (["--scores", "absent.safetensors"], ["--storage", "sqlite:////no/folder/x.db"]):
        assert call(*arguments, *wrong, cwd=tmp_path).code == 2
        assert not (tmp_path / "out").exists()
    show = ["search", "--show", "name", "--storage", "sqlite:///typo.db"]
    assert "found no file of sqlite:///typo.db" in call(*show, cwd=tmp_path).error
    assert not (tmp_path / "typo.db").exists()


def test_every_epoch_of_every_trial_is_an_event_once(searched):
    folder, _, _ = searched
    lines = (folder / "out/events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    epochs = Counter(
        (each["training"], each["epoch"])
        for each in events
        if each["event"] == "epoch" and each["stage"] == "search"
    )
    trials = [each["trial"] for each in events if each["event"] == "trial"]
    assert len(trials) == 3
    assert set(epochs.values()) == {1}
    assert {f"trial {number}" for number in trials} <= {name for name, _ in epochs}
    assert {"single left, seed 0", "single right, seed 0"} <= {name for name, _ in epochs}
    assert {epoch for _, epoch in epochs} == {1, 2}


def test_show_prints_a_study_from_its_database_alone(searched, tmp_path):
    folder, _, _ = searched
    shown = call("search", "--show", folder / "out", "--out", tmp_path, cwd=tmp_path)
    assert "Study tiny: 3 complete" in shown.output
    assert (tmp_path / "search.png").read_bytes().startswith(b"\x89PNG")
    rows = json.loads(call("search", "--show", folder / "out", "--json", cwd=tmp_path).output)
    assert rows["trials"] == json.loads((folder / "out/search.json").read_text())["trials"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give a RECIPE to search"),
        (["--show", "nowhere"], "found no nowhere/search.db"),
        (["tiny.toml", "--storage", "no url"], "--storage must be a database URL, got 'no url'"),
        (
            ["tiny.toml", "--set", "search.space={'data.train'=[1]}"],
            "takes keys of split and train",
        ),
        (["tiny.toml", "--set", "search.trials=0"], "`search.trials`"),
    ],
)
def test_a_search_that_cannot_be_is_one_line(arguments, message, tmp_path, invoke):
    (tmp_path / "tiny.toml").write_text(TINY)
    code, _, error = invoke("search", *arguments)
    assert code == 2
    assert message in error
    assert "Traceback" not in error


def test_a_checkpoint_is_converted_and_loads(tmp_path, invoke):
    donor = timm.create_model("resnet18", channels=[4, 4, 8, 8], num_classes=3)
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in donor.state_dict().items()}},
        tmp_path / "a.pth",
    )
    code, output, _ = invoke("convert", "a.pth", "a.safetensors")
    assert code == 0
    assert f"{len(donor.state_dict())} tensors" in output
    (tmp_path / "tiny.toml").write_text(TINY)
    arguments = ["--set", "backbone.weights=a.safetensors"]
    code, output, error = invoke("validate", "tiny.toml", *arguments)
    assert (code, error) == (0, "")
    assert "Valid." in output


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.name=multi-digit"], "Did you mean 'multi-digits'"),
        (["data.name=multi-mnist", "data.canvas=36"], "got no data root"),
        (["backbone.args={num_classes=3}"], "must not hold num_classes"),
        (["backbone.args={global_pool=''}"], "must give a vector"),
        (["train.optimizer=adahessian"], "train.optimizer"),
        (["train.method=krum"], "at least 3 tasks"),
        (["compare.methods=['trimmed-mean']"], "at least 3 tasks"),
        (["backbone.weights=nowhere.safetensors"], "nowhere.safetensors"),
        (["backbone.args={block='basic'}"], "backbone.args"),
        (["head.kind=conv"], "linear"),
        (["head={kind='no_such_module:Head'}"], "no_such_module"),
        (["train.lr=1e300"], "must fit float32"),
        (["train.batch_size=1"], "Raise train.batch_size"),
        (["data.canvas=100000"], "Lower data.canvas"),
        (["backbone.args={checkpoint_path='x'}"], "Set backbone.weights"),
    ],
)
def test_validate_finds_what_run_would_find(tmp_path, invoke, overrides, message):
    (tmp_path / "tiny.toml").write_text(TINY)
    options = [part for override in overrides for part in ("--set", override)]
    code, _, error = invoke("validate", "tiny.toml", *options)
    assert code == 2
    assert message in error
    assert error.count("\n") == 1
    assert error.startswith("error: ")


def test_a_quick_validation_takes_no_steps(tmp_path, invoke):
    (tmp_path / "tiny.toml").write_text(TINY)
    arguments = ["validate", "tiny.toml", "--set", "train.batch_size=1"]
    assert invoke(*arguments)[0] == 2
    assert invoke(*arguments, "--quick")[0] == 0
