"""timm backbones: made, seeded, and what a split file says of them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import timm
import torch
from torch import Tensor, nn

from recon_search import artefact
from recon_search.chance import forked
from recon_search.errors import BackboneError, ReconSearchError, in_one_line, nearest
from recon_search.graph.example import example_input
from recon_search.graph.tensors import named_tensors, on_meta, with_tensors
from recon_search.model.source import find_source, load_weights
from recon_search.model.weights import loading
from recon_search.recipe import BackboneConfig

INSTEAD = {
    "num_classes": "Set backbone.features.",
    "in_chans": "It follows from the data's images.",
    "features_only": "The whole network is used; a task's head chooses what it reads.",
    "out_indices": "The whole network is used; a task's head chooses what it reads.",
    "feature_cls": "The whole network is used; a task's head chooses what it reads.",
    "pretrained": "Set backbone.pretrained.",
    "pretrained_cfg": "Name the weights in backbone.name, as in resnet18.a1_in1k.",
    "pretrained_cfg_overlay": "Set backbone.weights.",
    "pretrained_strict": "Weights always have to fit.",
    "pretrained_filter_fn": "Set backbone.weights to a file with timm's names.",
    "pretrained_model_args": "Set backbone.args itself.",
    "checkpoint_path": "Set backbone.weights.",
    "cache_dir": "Set the environment variable HF_HUB_CACHE.",
    "scriptable": "Networks are traced as they are.",
    "exportable": "Networks are traced as they are.",
    "no_jit": "Networks are traced as they are.",
    "device": "Pass --device.",
    "dtype": "Set train.precision.",
    "model_cfg": "Name the model in backbone.name.",
    "feature_cfg": "The whole network is used; a task's head chooses what it reads.",
    "kwargs_filter": "Leave it out.",
}
"""Arguments that `backbone.args` must not hold, and what to do instead."""


def create_backbone(config: BackboneConfig, *, in_chans: int, seed: int = 0) -> nn.Module:
    """Create the plain timm model, with the weights that the configuration names.

    Inside `torch.device("meta")` the weights are only looked at (see `check_weights`).

    Raises:
        BackboneError: timm does not know the name, refuses an argument, or weights do not fit.
    """
    for name, advice in INSTEAD.items():
        if name in config.args:
            raise BackboneError(
                f"`backbone.args` must not hold {name}, got {config.args[name]!r}. {advice}"
            )
    if config.args.get("global_pool", "avg") in ("", None):
        raise BackboneError(
            "`backbone.args.global_pool` must give a vector an image, got "
            f"{config.args['global_pool']!r}. Leave it out, or name a way to pool."
        )
    source = find_source(config)
    plain = source.config
    if not timm.is_model(plain.name):
        raise BackboneError(
            f"`backbone.name` must be a timm model, got '{plain.name}'."
            f"{nearest(plain.name, timm.list_models())}"
        )
    arguments = {"in_chans": in_chans, "num_classes": plain.features, **plain.args}
    try:
        with seeded(seed, "backbone"):
            if not source.has_weights:
                model: nn.Module = timm.create_model(plain.name, **arguments)
                return model
            classifier = _classifier(plain.name, arguments)
            with loading(functools.partial(load_weights, source, classifier)) as is_loaded:
                model = timm.create_model(plain.name, pretrained=True, **arguments)
    except ReconSearchError:
        raise
    except Exception as error:  # timm raises whatever its models stumble over
        raise BackboneError(
            f"timm must be able to create {plain.name} with {arguments}, got "
            f"{in_one_line(error)}. Check `backbone.args`."
        ) from None
    if not is_loaded():
        raise BackboneError(
            f"{plain.name} must take weights as timm's other models do, it asks for none. "
            "Leave backbone.weights and backbone.pretrained out."
        )
    return model


def check_weights(config: BackboneConfig, in_chans: int = 3) -> nn.Module:
    """Look whether a backbone's weights are there and fit, without loading or downloading them.

    Returns:
        The backbone on the meta device.

    Raises:
        BackboneError: they do not, or the backbone cannot be made.
    """
    with torch.device("meta"):
        return create_backbone(config, in_chans=in_chans)


def feature_width(backbone: nn.Module, config: BackboneConfig, shape: Sequence[int]) -> int:
    """Return d of the features (B, d) that a backbone gives, by a forward pass without values.

    timm's `num_features` is another number where a model has layers behind its pooling.

    Args:
        backbone: which `config` made, on any device; left untouched.
        config: of the backbone.
        shape: of one image, (C, H, W); or (C,): of the size that the backbone is configured for.

    Raises:
        BackboneError: the backbone does not take such images, or gives no vector an image.
    """
    size = tuple(shape[1:]) or image_size(backbone, config)
    stand_ins = {name: on_meta(tensor) for name, tensor in named_tensors(backbone).items()}
    stand_in = with_tensors(backbone, stand_ins)
    outputs = []
    try:
        for training in (False, True):
            with torch.no_grad(), torch.device("meta"):
                outputs.append(stand_in.train(training)(torch.empty(2, shape[0], *size)))
    except Exception as error:  # whatever a model stumbles over
        raise BackboneError(
            f"{config.name} must take images of shape {(shape[0], *size)}, got "
            f"{in_one_line(error)}. Set backbone.args.img_size where it has one, data.image_size "
            "or, of composed data, data.canvas."
        ) from None
    for output in outputs:
        if not isinstance(output, Tensor) or output.ndim != 2:
            what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise BackboneError(
                f"{config.name} must give a vector (B, d) an image, gives {what} with "
                f"{config.args}. Drop from backbone.args what changes its output, such as "
                "global_pool."
            )
    return int(outputs[0].shape[1])


def image_size(backbone: nn.Module, config: BackboneConfig) -> tuple[int, ...]:
    """Height and width that a backbone is configured for."""
    size = config.args.get("img_size")
    if size is None:
        return tuple(example_input(backbone).shape[2:])
    return (size, size) if isinstance(size, int) else tuple(size)


def _classifier(name: str, arguments: Mapping[str, Any]) -> frozenset[str]:
    """Names of the tensors that a model has for the sake of its classes alone."""
    with torch.device("meta"):
        with_classes, without = (
            timm.create_model(name, **{**arguments, "num_classes": n}).state_dict() for n in (2, 0)
        )
    return frozenset(with_classes) - frozenset(without)


@contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Seed torch for a purpose inside the block, and put the global state back after it."""
    with forked():
        torch.manual_seed(int(artefact.digest([seed, purpose])[:12], 16))
        yield
