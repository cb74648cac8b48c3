"""A model whose numbers are none is not handed over, and nothing is left of the attempt."""

import pytest
import torch

from recon_search.errors import ArtefactError
from recon_search.stages.export import export
from recon_search.stages.formats import EXPORTERS


@pytest.mark.parametrize("kind", ["timm", "safetensors"])
@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ("conv1.weight", r"finite parameters, '.*conv1\.weight'"),
        ("bn1.running_mean", "finite numbers"),
    ],
)
def test_a_model_of_nan_is_refused(tmp_path, make_model, kind, tensor, message):
    model = make_model([]).float()
    model.config["input"] = {"shape": [1, 32, 32], "mean": [0.1], "std": [0.3]}
    state = model.state_dict()
    name = next(name for name in state if name.endswith(tensor))
    state[name][0] = torch.nan
    model.save(tmp_path / "model")
    assert kind in EXPORTERS
    with pytest.raises(ArtefactError, match=message):
        export(tmp_path / "model", kind, "a", tmp_path / "out" / "a.safetensors")
    assert not [*tmp_path.glob("out/*"), *tmp_path.glob("out/.*")]
