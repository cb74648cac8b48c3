"""Files of somebody else make networks of plain values: nothing is fetched, opened or called."""

import json
import socket

import pytest
import timm
from safetensors.torch import save_file

import recon_search as rs
from recon_search import artefact
from recon_search.errors import ArtefactError
from recon_search.graph.split import Split
from recon_search.model.foreign import backbone_of
from tests.stages.recipes import TINY


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """Whoever asks for a connection fails the test."""

    def connect(*_):
        raise AssertionError("something was to be fetched")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"name": "hf-hub:timm/resnet18.a1_in1k"}, "a backbone of timm's, got 'hf-hub:"),
        ({"name": "local-dir:/tmp"}, "a backbone of timm's, got 'local-dir:"),
        ({"name": "resnet19"}, "Did you mean 'resnet18'"),
        ({"name": ["resnet18"]}, "a backbone of timm's"),
        *(
            ({"name": "resnet18", "args": args}, message)
            for args, message in [
                ({"pretrained": True}, "`backbone.args.pretrained` reaches outside"),
                ({"pretrained_cfg_overlay": {"url": "http://x/y"}}, "reaches outside"),
                ({"pretrained_cfg": {}}, "reaches outside"),
                ({"checkpoint_path": "/etc/passwd"}, "reaches outside"),
                ({"cache_dir": "here"}, "reaches outside"),
                ({"block_args": {"file": "a"}}, r"args\.block_args\.file` reaches outside"),
                ({"act_layer": "http://x/y"}, "act_layer` must be a word, got 'http"),
                ({"act_layer": "../x"}, "must be a word"),
                ({"norm_layer": ["a", "b/c"]}, r"norm_layer\.1` must be a word"),
                ({"depth": 10**9}, "depth` must be at most 8192"),
                ({"layers": [1] * 65}, "must have 64 entries at most"),
                ({"drop_rate": float("inf")}, "must be finite"),
                ([1], "`backbone.args` must be a table"),
            ]
        ),
        ({"name": "resnet18", "args": {}, "features": -1}, "`features` input should be"),
    ],
)
def test_what_reaches_outside_is_refused(record, message):
    with pytest.raises(ArtefactError, match=message) as caught:
        backbone_of(record, "theirs.json")
    assert str(caught.value).startswith("theirs.json must")
    assert "\n" not in str(caught.value)


def test_plain_values_make_a_network():
    args = {"channels": [4, 4, 8, 8], "act_layer": "relu", "drop_rate": 0.1, "stem_type": None}
    found = backbone_of({"name": "resnet18", "args": args, "features": 6}, "theirs.json")
    assert (found.args, found.features, found.weights, found.pretrained) == (args, 6, None, False)


def test_a_split_to_show_fetches_nothing(tmp_path, invoke):
    backbone = {"name": "resnet18", "args": {"pretrained": True}}
    Split.private(["conv1"], ["a", "b"], backbone=backbone).save(tmp_path / "split.json")
    done = invoke("split", "--show", "split.json")
    assert done.code == 2
    assert "split.json must make its backbone of plain values" in done.error


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": {"name": "hf-hub:a/b", "args": {}}},
        {"backbone": {"name": "resnet18", "args": {"pretrained_cfg": {"file": "/etc/hosts"}}}},
        {"head": {"kind": "os:system"}},
        {"head": {"kind": "shutil:rmtree"}},
        {"head": {"kind": "builtins:print"}},
        {"tasks": [{"kind": "subprocess:Popen", "args": ["touch", "written"]}]},
    ],
    ids=str,
)
def test_a_model_directory_fetches_and_calls_nothing(tmp_path, make_model, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    model = make_model([]).float()
    model.config["input"] = {"shape": [1, 32, 32], "mean": [0.1], "std": [0.3]}
    model.save("model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    artefact.write_json(tmp_path / "model/config.json", config | change)
    with pytest.raises(rs.ReconSearchError, match=r"config\.json"):
        rs.load("model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    "change",
    [
        {"model_args": {"checkpoint_path": "secret.pth"}},
        {"model_args": {"pretrained_cfg_overlay": {"url": "http://x/y"}}},
        {"model_args": {"cache_dir": "here"}},
        {"model_args": {"act_layer": "../x"}},
        {"model_args": [1]},
        {"model_args": 1},
        {"architecture": "local-dir:/tmp"},
        {"architecture": 3},
        {"pretrained_cfg": {"mean": "abc", "std": "abc"}},
        {"pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.0, 0.1, 0.1]}},
        {"pretrained_cfg": {"input_size": 3}},
        {"pretrained_cfg": 3},
    ],
    ids=str,
)
def test_the_folder_of_a_backbone_fetches_and_opens_nothing_else(tmp_path, invoke, change):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    model = timm.create_model("resnet18", channels=[4, 4, 8, 8], num_classes=0)
    save_file(model.state_dict(), theirs / "model.safetensors")
    config = {
        "architecture": "resnet18",
        "model_args": {"channels": [4, 4, 8, 8]},
        "pretrained_cfg": {"num_classes": 0, "input_size": [3, 32, 32]},
    }
    (tmp_path / "tiny.toml").write_text(TINY)
    words = ("validate", "tiny.toml", "--quick", "--set", "backbone.name=local-dir:theirs",
             "--set", "backbone.args={}")  # fmt: skip
    (theirs / "config.json").write_text(json.dumps(config))
    assert invoke(*words).code == 0
    changed = {key: {**config[key], **each} if isinstance(each, dict) else each
               for key, each in change.items()}  # fmt: skip
    (theirs / "config.json").write_text(json.dumps(config | changed))
    done = invoke(*words)
    assert done.code == 2
    (line,) = done.error.splitlines()
    assert "backbone" in line


@pytest.mark.parametrize("kind", ["torch:os.makedirs", "torch.hub:shutil.rmtree"])
def test_what_a_package_has_imported_is_not_its_own(tmp_path, make_model, kind):
    make_model([]).float().save(tmp_path / "model", input={"shape": [1, 32, 32]})
    path = tmp_path / "model/config.json"
    artefact.write_json(path, json.loads(path.read_text()) | {"head": {"kind": kind}})
    with pytest.raises(ArtefactError, match=r"got .* Do not trust the file"):
        rs.load(tmp_path / "model")
