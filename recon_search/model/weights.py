"""Weights for a backbone: files read without unpickling, fitted whole or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
from timm.models import _builder, adapt_input_conv
from torch import Tensor, nn

from recon_search import seals
from recon_search.errors import ArtefactError, BackboneError

PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.", "net.", "network.")
"""What wrappers put before names: DataParallel, torch.compile, larger networks."""

PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl", ".pickle")
"""Suffixes of files that are read by unpickling, if at all."""

Convert = Callable[..., Mapping[str, Tensor]]


@contextmanager
def loading(load: Callable[..., None]) -> Iterator[Callable[[], bool]]:
    """Let `load` stand for timm's `load_pretrained` inside the block.

    A timm model names the function that converts foreign checkpoints only in that call, and what
    timm loads it does not compare with the model where the number of classes differs.

    Args:
        load: takes timm's own `load_pretrained`, then that function's arguments.

    Yields:
        whether it was called yet.
    """
    original = _builder.load_pretrained
    calls = []

    def stand_in(model: nn.Module, **arguments: Any) -> None:
        calls.append(model)
        load(original, model, **arguments)

    _builder.load_pretrained = stand_in
    try:
        yield lambda: bool(calls)
    finally:
        _builder.load_pretrained = original


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, values only once they are looked at.

    Raises:
        BackboneError: there is no such file, or it is damaged, empty, of another format, or holds
            numbers that are none.
    """
    rule = "`backbone.weights` must be a local .safetensors file"
    begin = b""
    if path.is_file():
        try:
            with path.open("rb") as stream:
                begin = stream.read(9)
        except OSError as error:
            raise BackboneError(f"{rule}, could not read {path}: {error}.") from None
    is_pickled = path.suffix.lower() in PICKLED or begin[:2] in (b"PK", b"\x80\x02")
    if is_pickled and begin[8:] != b"{":
        raise BackboneError(
            f"{rule}, got the pickled {path}. Convert it first: recon-search convert {path} "
            f"{path.with_suffix('.safetensors')}"
        )
    if not path.is_file():
        raise BackboneError(f"{rule}, found no file at {path}. Check the path.")
    try:
        with path.open("rb") as raw:
            seals.check_tensors(raw, path.stat().st_size, path)  # of a file that this tool wrote
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except ArtefactError as error:
        raise BackboneError(str(error)) from None
    except Exception as error:  # SafetensorError, and what a malformed header makes of it
        reason = " ".join(str(error).split())
        raise BackboneError(
            f"{rule}, {path} ({path.stat().st_size} bytes) is damaged or of another format: "
            f"{reason[:200]}. Download or write it again."
        ) from None
    if not state:
        raise BackboneError(f"{rule}, {path} holds no tensors. Download or write it again.")
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise BackboneError(
                f"{rule} of finite numbers, '{name}' in {path} has others. Download or write it "
                "again."
            )
    return state


def unwrapped(state: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield `state` as it is, then what stands below each of `PREFIXES` and chains of them.

    What stands elsewhere belongs to other parts of a larger network and is left out.
    """
    yield dict(state)
    for prefix in PREFIXES:
        below = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
        if below:
            yield from unwrapped(below)


def fit(
    model: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    *,
    convert: Convert | None = None,
    classifier: frozenset[str] = frozenset(),
    first_conv: Sequence[str] = (),
    in_chans: int = 3,
    lenient: bool = False,
) -> dict[str, Tensor]:
    """Make of a checkpoint a state dict that `model` loads strictly.

    It must hold every tensor of the model in its shape and nothing else, but for: prefixes of
    wrappers; what timm's own conversion renames, resamples or drops; the input channels of the
    first convolutions; the classifier, which is taken if all of it fits and otherwise stays as the
    model drew it; `num_batches_tracked`; further names of a tied tensor.

    Args:
        model: which names and shapes are needed; may be on the meta device. Left untouched.
        state: the checkpoint.
        source: names it in the error.
        convert: timm's filter of foreign checkpoints.
        classifier: names of the tensors that make the classifier.
        first_conv: names of the convolutions that read images.
        in_chans: channels of the images.
        lenient: whether unknown tensors are dropped, as timm does for some of its own checkpoints.

    Raises:
        BackboneError: naming the first missing and unknown tensors and other shapes.
    """
    own = model.state_dict(keep_vars=True)
    best: tuple[int, str] | None = None
    for candidate in unwrapped(state):
        try:
            found = _converted(candidate, model, convert)
        except Exception as error:  # of timm's conversion: it knows only what belongs to the model
            found, failed = candidate, f" timm cannot convert it ({type(error).__name__}: {error})."
        else:
            failed = ""
        for name in first_conv:
            _adapt(found, f"{name}.weight", model, in_chans)
        missing, unknown, reshaped = _compare(own, found, classifier)
        if lenient:
            unknown = []
        if not (missing or unknown or reshaped or failed):
            return _completed(own, found, classifier)
        n_fitting = sum(n in found and found[n].shape == own[n].shape for n in own)
        if best is None or n_fitting > best[0]:
            trouble = [
                _listed("missing", missing, len(own)),
                _listed("unknown", unknown, len(found)),
                _listed("of another shape", [_shapes(n, found, own) for n in reshaped], len(own)),
            ]
            best = n_fitting, ", ".join(filter(None, trouble)) + "." + failed + _hint(own, found)
    assert best is not None
    raise BackboneError(
        f"{source} must fit {_title(model)} but for its classifier; of its tensors "
        f"{' '.join(best[1].split())} Set backbone.name and backbone.args to the model that wrote "
        "the file, or choose another file."
    )


def _converted(
    candidate: dict[str, Tensor], model: nn.Module, convert: Convert | None
) -> dict[str, Tensor]:
    if convert is None:
        return candidate
    try:
        found = convert(dict(candidate), model)
    except TypeError:  # the older filters take no model
        found = convert(dict(candidate))
    return {name: tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}


def _compare(
    own: Mapping[str, Tensor], found: Mapping[str, Tensor], classifier: frozenset[str]
) -> tuple[list[str], list[str], list[str]]:
    """Names that are missing, unknown, and of another shape, the tolerated ones left out."""
    tied = {id(tensor) for name, tensor in own.items() if name in found}
    missing = [
        name
        for name, tensor in own.items()
        if name not in found
        and name not in classifier
        and not name.endswith("num_batches_tracked")
        and id(tensor) not in tied
    ]
    unknown = [name for name in found if name not in own and name not in classifier]
    reshaped = [
        name
        for name, tensor in own.items()
        if name in found and name not in classifier and found[name].shape != tensor.shape
    ]
    return missing, unknown, reshaped


def _completed(
    own: Mapping[str, Tensor], found: Mapping[str, Tensor], classifier: frozenset[str]
) -> dict[str, Tensor]:
    """All tensors of the model: the checkpoint's, and its own where the checkpoint has none."""
    heads = [name for name in own if name in classifier]
    whole = all(name in found and found[name].shape == own[name].shape for name in heads)
    dropped = frozenset() if whole else classifier
    by_identity = {id(own[name]): found[name] for name in own if name in found}
    return {
        name: tensor.detach() if name in dropped else by_identity.get(id(tensor), tensor.detach())
        for name, tensor in own.items()
    }


def _adapt(found: dict[str, Tensor], name: str, model: nn.Module, in_chans: int) -> None:
    """Adapt the weight of a first convolution to the images' channels where timm can."""
    conv = model.get_submodule(name.removesuffix(".weight"))
    if not isinstance(conv, nn.Conv2d) or name not in found:
        return
    weight = found[name]
    if weight.ndim != 4 or weight.shape == conv.weight.shape:
        return
    base = weight.shape[1] * conv.groups * in_chans // conv.in_channels  # channels it was made for
    known = {} if base == 3 else {"base_chans": base}  # which older releases of timm do not take
    try:
        found[name] = adapt_input_conv(in_chans, weight, **known)
    except (NotImplementedError, TypeError, ValueError, AssertionError, RuntimeError):
        return  # the shapes differ then, and the error will say so


def _listed(kind: str, names: Sequence[str], n_tensors: int) -> str:
    if not names:
        return ""
    more = ", ..." if len(names) > 3 else ""
    return f"{len(names)} of {n_tensors} are {kind} ({', '.join(names[:3])}{more})"


def _shapes(name: str, found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    return f"{name} {tuple(found[name].shape)} for {tuple(own[name].shape)}"


def _hint(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Name the unknown prefix below which the model's names stand, if there is one."""
    first = next(iter(own), "")
    for name in found:
        if name.endswith(f".{first}"):
            return f" Its names begin with '{name.removesuffix(first)}': drop that."
    return ""


def _title(model: nn.Module) -> str:
    config = getattr(model, "pretrained_cfg", None) or {}
    return str(config.get("architecture", type(model).__name__))
