"""One gradient method: what it needs, its options, its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from recon_search.errors import RecipeError, nearest

Needs = Literal["nothing", "losses", "Gramian", "gradients", "features"]
"""What a method looks at: the losses' values, the tasks' inner products, their full gradients, or
the gradients of the features each head reads."""


Others = Literal["mean", "nothing"]
"""What stands for the gradients of tasks that were not drawn for a step (see `Sampling`)."""


@dataclass(frozen=True)
class Method:
    """One gradient method.

    Attributes:
        name: as recipes name it.
        needs: what it looks at.
        title: of the paper.
        source: arXiv id, or where else the paper is.
        options: names and defaults.
        factory: makes its working part from the tasks it combines (for `features`: from the model
            and the combiner of the shared parameters) and every option by keyword.
        install: what pip must install beside recon-search; None for nothing.
        others: where the method's paper samples tasks, as `tasks_per_step` of its options asks for,
            what stands for the gradients of the others; None where it does not.
    """

    name: str
    needs: Needs
    title: str
    source: str
    factory: Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    install: str | None = None
    others: Others | None = None

    def create(self, *subject: Any, options: Mapping[str, Any], where: str = "options") -> Any:
        """Make the working part.

        Args:
            subject: what the factory takes.
            options: of the method.
            where: what messages call the options: a recipe has them in a section.

        Raises:
            RecipeError: an option is unknown or out of range, or an optional package is missing.
        """
        try:
            return self.factory(*subject, **self.complete(options, where))
        except ImportError as error:
            raise RecipeError(
                f"Method '{self.name}' needs packages that are not installed ({error.msg}). "
                f"Run: pip install '{self.install}'"
            ) from None
        except ValueError as error:
            raise RecipeError(
                f"`{where}` must fit method '{self.name}' and its tasks, got "
                f"{dict(options)}: {error} Change the options or the method."
            ) from None

    def complete(self, options: Mapping[str, Any], where: str = "options") -> dict[str, Any]:
        """Fill in defaults.

        Raises:
            RecipeError: lists every unknown option with near names, and every wrong type.
        """
        problems = []
        for name, value in options.items():
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                problems.append(
                    f"`{where}.{name}` is no option of '{self.name}' (it has: {known})."
                    f"{nearest(name, self.options)}"
                )
            elif not _is_like(value, self.options[name]):
                problems.append(
                    f"`{where}.{name}` must be a {type(self.options[name]).__name__}, "
                    f"got {value!r}."
                )
        if problems:
            raise RecipeError(" ".join(problems))
        return {**self.options, **options}


def _is_like(value: Any, default: Any) -> bool:
    """Whether a recipe's value has its default's type; whole numbers pass for floats.

    Numbers are as large as float32 takes.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and not abs(value) < 1e30:
        return False
    if isinstance(default, float) and not isinstance(value, bool):
        return isinstance(value, int | float)
    return type(value) is type(default)
