"""Networks that are branched already, or wrapped for several processes, are told what to pass."""

import copy
import functools

import pytest
import timm
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

import recon_search as rs
from recon_search.errors import BackboneError, ReconSearchError, SplitError, TrainingError
from recon_search.graph.cost import cost, layer_graph
from recon_search.graph.layers import backbone_digest, describe
from recon_search.methods.registry import METHODS

TASKS = ("a", "b")
SPLIT = rs.Split.private(["conv1"], TASKS)


@functools.cache
def made():
    return timm.create_model("resnet18", channels=[4, 4, 8, 8], num_classes=0)


@functools.cache
def grown():
    return rs.branch(made(), SPLIT)


def small():
    return copy.deepcopy(made())


def branched():
    return copy.deepcopy(grown())


def model():
    backbone = branched()
    return rs.MultiTaskModel(backbone, {task: nn.Linear(8, 2) for task in TASKS}, {})


class Wrapping(nn.Module):
    """A module of the user's own around a branched backbone."""

    def __init__(self):
        super().__init__()
        self.net = branched()

    def forward(self, x):
        return self.net(x)["a"]


@pytest.fixture(scope="module", autouse=True)
def one_process(tmp_path_factory):
    """A process group of this process alone."""
    store = distributed.FileStore(str(tmp_path_factory.mktemp("group") / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def sharded(module):
    return fully_shard(module, mesh=init_device_mesh("cpu", (1,)))


def fully_sharded(module):
    return FullyShardedDataParallel(module, device_id=torch.device("cpu"))


def branch_it(module):
    return rs.branch(module, SPLIT)


ON_PLAIN = [SPLIT.check, backbone_digest, layer_graph, lambda module: cost(module, SPLIT)]
ON_ANY = [rs.layers, branch_it, describe]


@pytest.mark.parametrize("read", ON_PLAIN, ids=["check", "digest", "graph", "cost"])
@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (branched, r"this one is branched already\. Pass backbone\.single\(task\)"),
        (model, r"this one is branched already\. Pass backbone\.backbone\.single\(task\)"),
        (Wrapping, r"'net' is branched already\. Pass backbone\.net\.single\(task\)"),
    ],
)
def test_what_is_of_plain_networks_refuses_branched_ones(read, make, advice):
    with pytest.raises(BackboneError, match=advice) as raised:
        read(make())
    assert "\n" not in str(raised.value)


def test_the_network_of_one_task_is_plain():
    single = branched().single("a")
    SPLIT.check(single)
    assert backbone_digest(single) == backbone_digest(small())
    assert cost(single, SPLIT) == cost(small(), SPLIT)


def test_a_model_is_described_as_its_backbone():
    whole = model()
    assert describe(whole) == describe(whole.backbone)
    assert list(rs.layers(whole)) == [info.name for info in describe(whole)] == list(
        rs.layers(small())
    )  # fmt: skip


@pytest.mark.parametrize("read", [*ON_PLAIN, *ON_ANY])
@pytest.mark.parametrize("make", [small, branched, model])
@pytest.mark.parametrize(
    ("wrap", "advice"),
    [
        (DistributedDataParallel, r"wrapped in DistributedDataParallel\. Pass its \.module\."),
        (nn.DataParallel, r"wrapped in DataParallel\. Pass its \.module\."),
        (fully_sharded, r"wrapped in FullyShardedDataParallel\. Pass its \.module\."),
    ],
)
@pytest.mark.filterwarnings("ignore:.*FSDP")
@pytest.mark.filterwarnings("ignore:.*FullyShardedDataParallel")
def test_wrapped_networks_are_named(read, make, wrap, advice):
    with pytest.raises(BackboneError, match=advice) as raised:
        read(wrap(make()))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("read", [*ON_PLAIN, *ON_ANY])
def test_sharded_networks_are_to_be_read_before(read):
    with pytest.raises(BackboneError, match=r"sharded by FSDP\. Call this before fully_shard\."):
        read(sharded(small()))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("wrap", [DistributedDataParallel, nn.DataParallel, sharded])
def test_every_method_wants_the_model_itself(method, wrap):
    try:
        rs.create_surgeon(model(), method)
    except ReconSearchError as error:
        pytest.skip(str(error))  # a package is missing, or there are too few tasks
    name = type(wrap(model())).__name__
    with pytest.raises(TrainingError, match=f"got a {name}. Pass its .module"):
        rs.create_surgeon(wrap(model()), method)


@pytest.mark.parametrize(
    ("backbone", "heads", "error", "message"),
    [
        (small, TASKS, BackboneError, "got ResNet. Make it with recon_search.branch."),
        (lambda: DistributedDataParallel(branched()), TASKS, BackboneError, "Pass its .module."),
        (dict, TASKS, BackboneError, "got dict"),
        (branched, ("a", "b", "c"), SplitError, r"named after its tasks \(a, b\), got 'c'"),
        (branched, ("A", "b"), SplitError, "got 'A'"),
    ],
)
def test_a_model_has_a_branched_backbone_and_heads_of_its_tasks(backbone, heads, error, message):
    with pytest.raises(error, match=message):
        rs.MultiTaskModel(backbone(), {task: nn.Linear(8, 2) for task in heads}, {})
