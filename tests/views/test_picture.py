"""What a split looks like and costs, on toys whose answer is known by hand."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import timm
import torch
from rich.console import Console

from recon_search.errors import SplitError
from recon_search.graph.anatomy import Anatomy, dissect
from recon_search.graph.branch import branch
from recon_search.graph.cost import cost
from recon_search.graph.layers import layers
from recon_search.graph.naming import block, short, stage
from recon_search.graph.split import Split
from recon_search.model.foreign import recorded_backbone
from recon_search.views.outline import cost_rows, cost_table, outline
from recon_search.views.picture import picture
from recon_search.views.plots import save_figure
from tests import toys

ALL, P, Q = ("p", "q"), ("p",), ("q",)
GROUPED = Split(
    ("p", "q", "r"),
    {
        "layer2.0.conv1": (("p", "r"), ("q",)),
        "layer3.0.conv1": (("p",), ("q",), ("r",)),
        "layer4.0.bn1": (("p", "q"), ("r",)),
    },
)


@pytest.fixture(scope="module")
def residual() -> Anatomy:
    return dissect(toys.Residual(), Split.private(["body"], ALL), title="toy", timed=True)


@pytest.fixture(scope="module")
def grouped() -> Anatomy:
    backbone = timm.create_model("test_resnet", num_classes=0)
    return dissect(backbone, GROUPED, example=torch.randn(2, 3, 64, 64), timed=True)


def printed(what: object) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def words(anatomy: Anatomy) -> str:
    return " ".join(text.get_text() for text in picture(anatomy).axes[0].texts)


def test_every_layer_says_how_often_it_is_computed_and_with_whose_weights(
    residual: Anatomy,
) -> None:
    found = {row.label: (row.runs, row.copies, row.n_parameters) for row in residual.layers}
    assert found == {
        "stem": ((ALL,), (ALL,), 1),
        "body": ((P, Q), (P, Q), 2),
        "head": ((P, Q), (ALL,), 1),
    }
    assert residual.reused_parameters == 1


def test_the_network_built_calls_each_layer_as_often_as_said(grouped: Anatomy) -> None:
    example = torch.randn(2, 3, 64, 64)
    backbone = timm.create_model("test_resnet", num_classes=0)
    network = branch(backbone, GROUPED, example=example).eval()
    calls: Counter[str] = Counter()
    for name, module in network.named_modules():
        plain = re.sub(r"^(shared|branches\.[^.]+)\.", "", name)
        module.register_forward_hook(lambda *_, plain=plain: calls.update([plain]))
    network(example)
    for row in grouped.layers:
        assert calls[row.label] == len(row.runs), row.label


def test_the_copies_of_all_layers_are_the_parameters_of_the_groups(grouped: Anatomy) -> None:
    found: Counter[tuple[str, ...]] = Counter()
    for row in grouped.layers:
        found.update(dict.fromkeys(row.copies, row.n_parameters))
    assert found == grouped.cost.parameters


def test_the_tree_of_a_toy(residual: Anatomy) -> None:
    lines = [" ".join(line.split()) for line in printed(outline(residual)).splitlines()]
    assert lines == [
        "toy on 1, tasks p, q: 1 of 3 layers split",
        "├── computed once, for all tasks",
        "│ └── stem 1",
        "└── computed 2 times: p | q",
        "├── body 2 x 2 private to p | q",
        "└── head 1 same weights in every branch",
    ]


def test_the_rows_of_the_cost_table_add_up(residual: Anatomy, grouped: Anatomy) -> None:
    for anatomy in (residual, grouped):
        *groups, total, unsplit, separate = cost_rows(anatomy)
        for key in ("parameters", "flops", "seconds"):
            assert sum(row[key] for row in groups) == pytest.approx(total[key])
            assert separate[key] == len(anatomy.tasks) * unsplit[key]
        assert total["parameters"] == anatomy.cost.total_parameters
        assert total["flops"] == anatomy.cost.total_flops
        assert unsplit["parameters"] == sum(row.n_parameters for row in anatomy.layers)


def test_the_cost_is_that_of_graph_cost(residual: Anatomy) -> None:
    assert residual.cost == cost(toys.Residual(), Split.private(["body"], ALL))
    text = printed(cost_table(residual))
    assert "1.50x" in text  # 6 parameters of 4
    assert "Latency is an estimate" in text


def test_latency_lies_between_one_network_and_one_a_task(grouped: Anatomy) -> None:
    latency = grouped.latency
    assert latency is not None
    assert latency.base < latency.total < 3 * latency.base


def test_without_a_split_everything_is_trunk() -> None:
    anatomy = dissect(toys.Residual(), Split.private([], ALL))
    assert [row.label for row in anatomy.rows()] == ["stem, body, head"]
    assert anatomy.groups == [ALL]
    assert anatomy.latency is None
    assert anatomy.cost.total_flops == anatomy.cost.base_flops
    assert "forks" not in words(anatomy)


def test_rows_merge_within_a_block_and_hold_every_layer_once(grouped: Anatomy) -> None:
    backbone = timm.create_model("test_resnet", num_classes=0)
    for at_most in (48, 6, 1):
        rows = grouped.rows(at_most)
        assert [name for row in rows for name in row.layers] == list(layers(backbone))
    assert len(grouped.rows(1)) < len(grouped.rows())
    labels = [row.label for row in grouped.rows()]
    assert "layer2.0.conv1" in labels
    assert "layer1.0 (4 layers)" in labels


@pytest.mark.parametrize(
    ("layer", "its_stage", "its_block"),
    [
        ("conv1", "", ""),
        ("layer2.0.downsample.1", "layer2", "layer2.0"),
        ("blocks.3.mlp.fc1", "blocks", "blocks.3"),
        ("blocks.3.ls1.gamma", "blocks", "blocks.3"),
        ("stages.1.blocks.0.gamma", "stages.1", "stages.1.blocks.0"),
        ("features.denseblock1.denselayer2.conv1", "features.denseblock1",
         "features.denseblock1.denselayer2"),
    ],
)  # fmt: skip
def test_stage_and_block_of_a_layer(layer: str, its_stage: str, its_block: str) -> None:
    assert (stage(layer), block(layer)) == (its_stage, its_block)


def test_a_weight_computed_from_weights_alone_is_followed_to_the_input() -> None:
    """Standardised convolutions: after the fork they run once per branch, whatever fx says."""
    backbone = timm.create_model("test_nfnet", num_classes=0)
    names = list(layers(backbone))
    anatomy = dissect(backbone, Split.private(names[:1], ALL), example=torch.randn(2, 3, 32, 32))
    assert {row.runs for row in anatomy.layers} == {(P, Q)}


def test_the_picture_names_tasks_forks_groups_and_costs(grouped: Anatomy) -> None:
    text = words(grouped)
    for word in ("p + r", "p + q", "forks", "3 of", "shared by all", "total:", "trunk"):
        assert word in text


def test_tasks_that_part_late_stand_side_by_side(grouped: Anatomy) -> None:
    shown = [
        text.get_text() for text in picture(grouped).axes[0].texts if len(text.get_text()) == 1
    ]
    assert shown[:3] == ["p", "r", "q"]


def test_many_tasks_fit(residual: Anatomy) -> None:
    tasks = [f"attribute {i}" for i in range(40)]
    anatomy = dissect(toys.Residual(), Split.private(["body"], tasks))
    width, height = picture(anatomy).get_size_inches()
    assert width < 20
    assert height < 10


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_picture_is_written(grouped: Anatomy, tmp_path, ending) -> None:
    path = tmp_path / f"split.{ending}"
    save_figure(picture(grouped), path)
    content = path.read_bytes()
    assert len(content) > 10_000
    assert content.startswith(b"\x89PNG") if ending == "png" else b"<svg" in content


def test_a_split_file_must_say_its_backbone() -> None:
    with pytest.raises(SplitError, match=r"timm name and arguments, mine\.json says \{\}"):
        recorded_backbone(Split.private(["body"], ALL), "mine.json")


@pytest.mark.parametrize(
    ("number", "text"), [(64, "64"), (9536, "9.54 k"), (999_999, "1 M"), (11_176_512, "11.2 M")]
)
def test_short_numbers(number: int, text: str) -> None:
    assert short(number) == text
