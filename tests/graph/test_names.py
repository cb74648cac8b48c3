"""A task may be called anything that prints: in paths, state dicts, generated code and heads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from recon_search.graph.branch import branch
from recon_search.graph.names import decode, encode
from recon_search.graph.partition import from_groups
from recon_search.graph.split import Split
from recon_search.model.container import TaskModules
from tests import toys
from tests.graph.laws import check_paths, randomise

ATTRIBUTES = ("type", "train", "float", "items", "keys", "training", "forward", "__class__")
ODD = (
    "class",
    "None",
    "a.b",
    "a+b",
    "+a",
    "a b",
    "50%",
    "%2E",
    'a"b',
    "a\\b",
    "ﬁ",
    "e\u0301",
    "深度",
)
ODD += ("{x}", "[x]", "a*", "a/b", "'", "+train", "branches", "shared", ".", "+", "_modules")
FOURS = [(ATTRIBUTES + ODD)[start : start + 4] for start in range(0, len(ATTRIBUTES + ODD), 4)]
PLAIN = ("seg", "depth", "left digit", "a-b", "größe", "50%", "x_1", "1", "深度", "%2E", "_parts")


@pytest.mark.parametrize("task", PLAIN)
def test_ordinary_names_stand_for_themselves(task: str) -> None:
    assert encode(task) == task


printable = st.text(min_size=1).filter(str.isprintable)


@given(st.one_of(printable, st.sampled_from(ATTRIBUTES + ODD)))
def test_names_are_read_back_from_paths(task: str) -> None:
    part = encode(task)
    assert decode(part) == task
    assert "." not in part
    nn.Module().add_module(part, nn.Identity())


@given(st.lists(st.one_of(printable, st.text("ab+.%2E", min_size=1)), max_size=4))
def test_groups_are_told_apart(tasks: list[str]) -> None:
    joined = "+".join(map(encode, tasks))
    found, escaped = [], False
    for part in joined.split("+") if tasks else []:
        if part:
            found.append(decode("+" * escaped + part))
        escaped = not part
    assert found == tasks


@pytest.mark.parametrize("tasks", FOURS)
def test_each_path_is_exact_whatever_the_tasks_are_called(
    tasks: tuple[str, ...], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    plain = toys.Normed().double()
    names = list(plain.state_dict())
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    grouped = (tasks[:2], tasks[2:]) if len(tasks) > 2 else tuple((task,) for task in tasks)
    split = Split(tasks, {layers[0]: grouped, layers[1]: tuple((task,) for task in tasks)})
    split.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json") == split
    network = branch(plain, split).train()
    randomise(network, 1)
    x = torch.randn(8, 3, dtype=torch.float64)
    check_paths(network, x)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    twin = branch(plain, split).train()
    twin.load_state_dict(load_file(tmp_path / "model.safetensors"))
    outputs, expected = twin.eval()(x), network.eval()(x)
    assert list(outputs) == list(tasks)
    assert all(torch.equal(outputs[task], expected[task]) for task in tasks)
    assert all(torch.equal(network(x, [task])[task], expected[task]) for task in tasks)
    compiled = torch.compile(network, backend="eager", fullgraph=True)(x)
    exported = torch.export.export(network, (x,)).module()(x)
    assert all(torch.equal(compiled[task], expected[task]) for task in tasks)
    assert all(torch.equal(exported[task], expected[task]) for task in tasks)
    for task in tasks:
        position = tasks.index(task)
        homes = network.blueprint.layout.tree((position,))
        assert any(key.startswith(f"{homes}.") for key in network.state_dict())
    assert from_groups(grouped, tasks) in network.blueprint.layout.tensors.values()


@pytest.mark.parametrize("task", ATTRIBUTES + ODD)
def test_modules_are_kept_by_any_name(task: str) -> None:
    modules = TaskModules({task: nn.Linear(1, 1), "other": nn.Linear(1, 2)})
    assert list(modules) == list(modules.keys()) == [task, "other"]
    assert task in modules
    assert "missing" not in modules
    assert dict(modules.items()) == {task: modules[task], "other": modules["other"]}
    assert [*modules.values()] == [modules[task], modules["other"]]
    modules[task] = nn.Linear(1, 3)
    assert len(modules) == 2
    other = TaskModules({task: nn.Linear(1, 3), "other": nn.Linear(1, 2)})
    other.load_state_dict(modules.state_dict())
    assert torch.equal(other[task].weight, modules[task].weight)  # type: ignore[arg-type]
    assert modules.pop(task).out_features == 3
    assert task not in modules
    del modules["other"]
    assert not list(modules)


def test_modules_by_ordinary_names_are_saved_as_in_a_module_dict() -> None:
    modules = {task: nn.Linear(1, 1) for task in PLAIN}
    assert list(TaskModules(modules).state_dict()) == list(nn.ModuleDict(modules).state_dict())
