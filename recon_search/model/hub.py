"""timm's own weights, on a hub or behind a URL: whether they are here or can be had."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import huggingface_hub
import torch
from huggingface_hub import constants

from recon_search.errors import BackboneError, in_one_line

FILES = ("model.safetensors", "pytorch_model.bin")
"""What timm looks for in a repository that names no file."""

PATIENCE = 5
"""Seconds after which a host does not answer."""


def cached(config: Mapping[str, Any]) -> Path | None:
    """Return the cached file of the weights that a timm `pretrained_cfg` names, if there is one."""
    if repository := config.get("hf_hub_id"):
        repository, _, revision = repository.partition("@")
        chosen = config.get("hf_hub_filename")
        for name in (chosen,) if chosen else FILES:
            found = huggingface_hub.try_to_load_from_cache(
                repository, name, cache_dir=constants.HF_HUB_CACHE, revision=revision or None
            )
            if isinstance(found, str):
                return Path(found)
    if url := config.get("url"):
        name = url[1] if isinstance(url, tuple | list) else Path(urlparse(url).path).name
        file = Path(torch.hub.get_dir()) / "checkpoints" / name
        if file.is_file():
            return file
    return None


def check_available(config: Mapping[str, Any]) -> None:
    """Make sure that weights are cached, or that their host answers; nothing is downloaded.

    Raises:
        BackboneError: there are none, or they are neither here nor within reach.
    """
    check_named(config)
    if cached(config) is None and (trouble := _unreachable(_host(config))):
        raise unavailable(config, trouble)


def check_named(config: Mapping[str, Any]) -> None:
    """Make sure that timm knows weights.

    Raises:
        BackboneError: it knows none for this model.
    """
    if not places(config):
        raise BackboneError(
            f"`backbone.pretrained` needs weights of timm's, it has none for "
            f"{config.get('architecture')}. `timm.list_pretrained()` names those that have some; "
            "leave it out, or set backbone.weights to a local .safetensors file."
        )


def unavailable(config: Mapping[str, Any], trouble: str) -> BackboneError:
    """The error of weights that cannot be had."""
    if copy := cached(config):
        return BackboneError(
            f"`backbone.pretrained` needs whole weights, could not load {copy}: {trouble}. Remove "
            "it from the cache, or set backbone.weights to a local .safetensors file."
        )
    return BackboneError(
        f"`backbone.pretrained` needs {' or '.join(places(config))}, found neither a copy in "
        f"{constants.HF_HUB_CACHE} nor a way to {_host(config)}: {trouble}. Set backbone.weights "
        "to a local .safetensors file, fill the cache where there is network, or begin without: "
        "--set backbone.pretrained=false"
    )


def places(config: Mapping[str, Any]) -> list[str]:
    """Where timm would look for the weights."""
    url = config.get("url")
    url = url[0] if isinstance(url, tuple | list) else url
    return [place for place in (config.get("hf_hub_id"), url) if place]


@contextmanager
def answering_quickly() -> Iterator[None]:
    """Let the hub answer from its cache where its host is out of reach, not after many retries."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or bool(_unreachable(constants.ENDPOINT))
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _host(config: Mapping[str, Any]) -> str:
    return constants.ENDPOINT if config.get("hf_hub_id") else places(config)[0]


def _unreachable(url: str) -> str:
    """Why a host does not answer; "" where it does, whatever it says."""
    if constants.HF_HUB_OFFLINE and url == constants.ENDPOINT:
        return "HF_HUB_OFFLINE is set"
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE).close()
    except urllib.error.HTTPError:
        return ""
    except urllib.error.URLError as error:  # other clients may know other certificates
        return "" if isinstance(error.reason, ssl.SSLError) else in_one_line(error)
    except (OSError, ValueError) as error:
        return in_one_line(error)
    return ""
