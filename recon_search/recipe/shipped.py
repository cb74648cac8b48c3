"""The recipes that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "recipes"
"""A link to the repository's own `recipes`, of which a wheel holds copies."""


def shipped_recipes() -> dict[str, Path]:
    """Return every recipe's file by its name, in order."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def find_recipe(path: str | Path) -> Path:
    """Return the file of a recipe; a bare name that is no file may be a shipped recipe's."""
    path = Path(path)
    if path.exists() or len(path.parts) != 1:
        return path
    return shipped_recipes().get(path.name, path)


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
    return " ".join(words).partition(". ")[0].rstrip(".") + "."
