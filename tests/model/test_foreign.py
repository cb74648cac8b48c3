"""Files of somebody else make networks of plain values: nothing is fetched, opened or called."""

import json
import socket

import pytest

import recon_search as rs
from recon_search import artefact
from recon_search.errors import ArtefactError
from recon_search.graph.split import Split
from recon_search.model.foreign import backbone_of


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
