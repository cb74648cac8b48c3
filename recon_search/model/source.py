"""Where a backbone and its weights come from: timm's registry, a file, a folder, a hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import _hub
from torch import Tensor, nn

from recon_search.errors import BackboneError, ReconSearchError, in_one_line
from recon_search.model import hub
from recon_search.model.plain import find_fault, short
from recon_search.model.weights import PICKLED, fit, read_weights
from recon_search.recipe import BackboneConfig

Load = Callable[..., None]
"""timm's `load_pretrained`, or what stands for it."""


@dataclass(frozen=True)
class Source:
    """Where a backbone comes from.

    Attributes:
        config: of the same architecture under a name of timm's registry, without weights.
        file: the local file of its weights; None where there is none.
        online: what tells weights of a hub from those that timm has for the name, {} if nothing
            does; None where no such weights are wanted.
    """

    config: BackboneConfig
    file: Path | None = None
    online: Mapping[str, Any] | None = None

    @property
    def has_weights(self) -> bool:
        """Whether weights are to be loaded."""
        return self.file is not None or self.online is not None


def find_source(config: BackboneConfig) -> Source:
    """Resolve names that begin with `local-dir:` or `hf-hub:`, which bring their weights along.

    Of a hub, `config.json` is fetched if its cache has none.

    Raises:
        BackboneError: two sources of weights are named, or a folder or a hub lacks what is needed.
    """
    if config.weights is not None and config.pretrained:
        raise BackboneError(
            "`backbone.weights` and `backbone.pretrained` exclude each other, got "
            f"{config.weights} and true. Leave one out."
        )
    kind, place = _place(config.name)
    if not kind:
        plain = config.model_copy(update={"weights": None, "pretrained": False})
        if config.weights is not None:
            return Source(plain, file=Path(config.weights))
        return Source(plain, online={} if config.pretrained else None)
    try:
        if kind == "local-dir":
            pretrained_cfg, name, args = _hub.load_model_config_from_path(place)
        else:
            with hub.answering_quickly():
                pretrained_cfg, name, args = _hub.load_model_config_from_hf(place)
        saved = _saved_arguments(name, pretrained_cfg, args)
        if (fault := find_fault(saved)) is not None:
            raise ValueError(f"`model_{fault.place}` {fault.reason}, got {short(fault.value)}")
        plain = config.model_copy(
            update={
                "name": name,
                "args": {**saved, **config.args},
                "weights": None,
                "pretrained": False,
            }
        )
    except Exception as error:  # of JSON that says something else, of paths, of the hub
        what = "a folder with" if kind == "local-dir" else "a cached or reachable repository with"
        raise BackboneError(
            f"`backbone.name` {kind}: needs {what} timm's config.json, got {place}: "
            f"{in_one_line(error)}. Check it, or set backbone.name to a timm model and "
            "backbone.weights to a local .safetensors file."
        ) from None
    if config.weights is not None:
        return Source(plain, file=Path(config.weights))
    if kind == "local-dir":
        return Source(plain, file=_file_in(Path(place)))
    return Source(plain, online=pretrained_cfg)


def untrained(config: BackboneConfig) -> BackboneConfig:
    """Return the same architecture under its name in timm's registry, without weights.

    Raises:
        BackboneError: a folder or a hub that the name points to lacks what is needed.
    """
    return find_source(config).config


def weight_files(config: BackboneConfig) -> list[Path]:
    """Return the local files that decide what a backbone starts from; none for timm's own weights.

    Raises:
        BackboneError: a folder lacks its files.
    """
    source = find_source(config)
    kind, place = _place(config.name)
    described = [Path(place) / "config.json"] if kind == "local-dir" else []
    return [*described, *([source.file] if source.file is not None else [])]


def load_weights(
    source: Source,
    classifier: frozenset[str],
    by_timm: Load,
    model: nn.Module,
    *,
    pretrained_cfg: Mapping[str, Any],
    in_chans: int = 3,
    filter_fn: Callable[..., Any] | None = None,
    strict: bool = True,
    **options: Any,
) -> None:
    """Load a source's weights whole, or only look whether they fit a model on the meta device.

    Args:
        source: which weights.
        classifier: names of the tensors that make the classifier.
        by_timm: timm's own `load_pretrained`, for what is not in a local file.
        model: takes the weights.
        pretrained_cfg: what timm knows of the model's weights.
        in_chans: channels of the images.
        filter_fn: timm's conversion of foreign checkpoints.
        strict: whether timm knows no checkpoints with more tensors than the model has.
        options: others of `load_pretrained`.

    Raises:
        BackboneError: the weights are damaged, do not fit or cannot be had.
    """
    known = {**pretrained_cfg, **(source.online or {})}
    first_conv = getattr(model, "_traits", {}).get("first_conv", known.get("first_conv")) or ()

    def fitted(state: Mapping[str, Tensor], named: str) -> dict[str, Tensor]:
        return fit(
            model,
            state,
            named,
            convert=filter_fn,
            classifier=classifier,
            first_conv=(first_conv,) if isinstance(first_conv, str) else tuple(first_conv),
            in_chans=in_chans,
            lenient=not strict,
        )

    is_looked_at = any(parameter.is_meta for parameter in model.parameters())
    with torch.device("cpu"):
        if source.file is not None:
            state = fitted(read_weights(source.file), f"`backbone.weights` {source.file}")
            if not is_looked_at:
                model.load_state_dict(state)
            return
        named = f"`backbone.pretrained` {' or '.join(hub.places(known))}"
        if is_looked_at:
            hub.check_available(known)
            copy = hub.cached(known)
            if copy is not None and copy.suffix == ".safetensors":
                fitted(read_weights(copy), named)
            return
        hub.check_named(known)
        adapted = {
            "classifier": None,
            "first_conv": None,
            "input_size": (in_chans, *known.get("input_size", (3, 224, 224))[1:]),
        }
        try:
            with hub.answering_quickly():
                by_timm(
                    model,
                    pretrained_cfg={**known, **adapted},
                    in_chans=in_chans,
                    filter_fn=lambda state, _: fitted(state, named),
                    strict=True,
                    **options,
                )
        except ReconSearchError:
            raise
        except Exception as error:  # of the network, the hub, and of files it left in the cache
            raise hub.unavailable(known, in_one_line(error)) from None


def _place(name: str) -> tuple[str, str]:
    """Split `local-dir:PATH` and `hf-hub:REPOSITORY`; ("", name) for other names."""
    kind, _, place = name.partition(":")
    kind = kind.lower().replace("_", "-")
    return (kind, place) if kind in ("local-dir", "hf-hub") else ("", name)


def _saved_arguments(
    name: str, pretrained_cfg: Mapping[str, Any], args: Mapping[str, Any]
) -> dict[str, Any]:
    """What the model of a folder or hub was made with, as far as a recipe does not say it anew."""
    saved = {key: args[key] for key in args if key not in ("num_classes", "in_chans")}
    size = tuple(pretrained_cfg.get("input_size", ()))[1:]
    usual = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if pretrained_cfg.get("fixed_input_size") and usual and size != usual.input_size[1:]:
        saved.setdefault("img_size", list(size))
    return saved


def _file_in(folder: Path) -> Path:
    """The weights of a folder as timm looks for them, but for pickled ones."""
    usual = [folder / "model.safetensors", folder / "open_clip_model.safetensors"]
    for file in (*usual, *sorted(folder.glob("*.safetensors"))):
        if file.is_file():
            return file
    for file in sorted(folder.iterdir()):
        if file.suffix in PICKLED:
            raise BackboneError(
                f"`backbone.name` local-dir: needs a folder with model.safetensors, found {file}. "
                f"Convert it: recon-search convert {file} {folder / 'model.safetensors'}"
            )
    raise BackboneError(
        f"`backbone.name` local-dir: needs a folder with model.safetensors, {folder} has no "
        "weights. Set backbone.name to the timm model that its config.json names to train anew."
    )
