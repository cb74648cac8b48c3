"""The recipes that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

from recon_search.errors import ArtefactError, nearest

FOLDER = Path(__file__).parents[1] / "recipes"
"""A link to the repository's own `recipes`, of which a wheel holds copies."""

PUBLISHED = "published:"
"""What the name of an order of layers begins with that others have published."""


def shipped_recipes() -> dict[str, Path]:
    """Return every recipe's file by its name, in order."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def find_recipe(path: str | Path) -> Path:
    """Return the file of a recipe; a bare name that is no file may be a shipped recipe's."""
    path = Path(path)
    if path.exists() or len(path.parts) != 1:
        return path
    return shipped_recipes().get(path.name, path)


def published_orders() -> dict[str, Path]:
    """Return the file of every published order of layers by its name, in order."""
    return {path.stem: path for path in sorted((FOLDER / "published").glob("*.json"))}


def find_ranking(source: str | Path, *, first: str = "split.json") -> Path:
    """Return the file with layers in order, or split, that `source` stands for.

    Args:
        source: the file itself, `published:NAME`, or a run's folder with a split or scores.
        first: what is taken of a folder that holds both, `split.json` or `scores.safetensors`.

    Raises:
        ArtefactError: no order of that name is published here, or the folder holds neither.
    """
    text, path = str(source), Path(source)
    if text.startswith(PUBLISHED):
        name, known = text.removeprefix(PUBLISHED), published_orders()
        if name not in known:
            raise ArtefactError(
                f"A published order must be one of {', '.join(known)}, got '{name}'."
                f"{nearest(name, known)}"
            )
        return known[name]
    if not path.is_dir():
        return path
    names = sorted(("split.json", "scores.safetensors"), key=lambda name: name != first)
    for name in names:
        if (path / name).is_file():
            return path / name
    raise ArtefactError(
        f"A folder with a split must hold {' or '.join(names)}, found neither in {path}. Check "
        "the path, or probe there first."
    )


def files_of(path: Path) -> list[Path]:
    """Return a recipe's file, and the module of the same name that it imports, if it has one."""
    module = path.with_name(path.stem.replace("-", "_") + ".py")
    return [path, module] if module.is_file() else [path]


def describe(path: Path) -> str:
    """Return the first sentence of a recipe, which its head comment begins with."""
    words: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") or not line.strip("# "):
            break
        words += line.lstrip("#").split()
        if words[-1].endswith("."):
            break
    text = " ".join(words).partition(". ")[0].rstrip(".")
    return text if text.endswith("?") else f"{text}."
