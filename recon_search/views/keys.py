"""Every key of a recipe, read off its schema: type, default and a sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from rich.table import Table

from recon_search.errors import RecipeError, nearest
from recon_search.recipe import Recipe
from recon_search.views.markup import escape

NAME = "NAME"
"""Stands for a name of the user's, as of a task."""

BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
MISTAKE = 10_000
"""Upper bounds from here on keep mistakes out, and nobody need know them."""

WORDS = {"integer": "integer", "number": "float", "string": "string", "boolean": "boolean"}
"""TOML's words for those of JSON."""

HEADER = """# Keys of a recipe

Written by `recon-search ls keys --markdown > recipes/KEYS.md`. `NAME` is a name of yours; where no
default is given, the key is not set. `--set PATH=VALUE` sets any of them on the command line. What
kinds of tasks take beside these keys: [data](data.md).
"""

Row = dict[str, Any]
Schema = Mapping[str, Any]


def key_rows(section: str | None = None) -> list[Row]:
    """Return keys in the recipe's order: `key`, `type`, `default`, `is_required`, `what`.

    Args:
        section: those of this section, such as "split" or "data.augment", or one key; None: all.

    Raises:
        RecipeError: there is no such section; names near ones.
    """
    rows = list(_rows())
    if section is None:
        return rows
    wanted = section.strip("[]")
    found = [row for row in rows if f"{row['key']}.".startswith(f"{wanted}.")]
    if not found:
        keys = [row["key"] for row in rows]
        sections = [key for key in keys if "." not in key]
        near = nearest(wanted, keys if "." in wanted else sections) or nearest(wanted, keys)
        raise RecipeError(
            f"SECTION must be one of {', '.join(sections)}, or a key below one, got '{section}'."
            f"{near}"
        )
    return found


def key_table(rows: list[Row]) -> Table:
    """Keys as a table for a console."""
    table = Table(title="Keys of a recipe", title_justify="left")
    table.add_column("key", no_wrap=True)
    table.add_column("type", ratio=2, overflow="fold")
    table.add_column("default", ratio=1, overflow="fold")
    table.add_column("what it says", ratio=4)
    for row in rows:
        cells = (row["key"], row["type"], _default(row), row["what"])
        table.add_row(*map(escape, cells))
    return table


def key_document() -> str:
    """All keys as Markdown, a table for each section."""
    lines = [HEADER]
    for section, rows in groupby(key_rows(), key=lambda row: row["key"].rpartition(".")[0]):
        title = f"`[{section}]`" if section else "Sections"
        lines += [f"## {title}\n", "| key | type | default | what it says |", "|---|---|---|---|"]
        for row in rows:
            own = row["key"].rpartition(".")[2]
            cells = (f"`{own}`", _code(row["type"]), _code(_default(row)), row["what"])
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _rows() -> Iterator[Row]:
    schema = Recipe.model_json_schema()
    fields = schema["properties"]
    homes = {each["$ref"]: name for name, each in fields.items() if "$ref" in each}
    yield from (_row(schema, name, name) for name in fields)
    for name, each in fields.items():
        if _section(each):
            yield from _below(name, each, schema["$defs"], homes)


def _below(
    path: str, field: Schema, definitions: Schema, homes: Mapping[str, str]
) -> Iterator[Row]:
    """The keys of a section, then those of the sections in it that have no home elsewhere."""
    found = _section(field)
    assert found is not None
    reference, is_named = found
    inside = f"{path}.{NAME}" if is_named else path
    schema = definitions[reference.rpartition("/")[2]]
    deeper = []
    for name, each in schema["properties"].items():
        row = _row(schema, name, f"{inside}.{name}")
        if deep := _section(each):
            if deep[0] in homes:
                row["type"] = f"table, as [{homes[deep[0]]}]"
            else:
                deeper.append((name, each))
        yield row
    for name, each in deeper:
        yield from _below(f"{inside}.{name}", each, definitions, homes)


def _row(schema: Schema, name: str, path: str) -> Row:
    field = schema["properties"][name]
    return {
        "key": path,
        "type": _type(field),
        "default": None if _section(field) else field.get("default"),
        "is_required": name in schema.get("required", ()),
        "what": " ".join(field.get("description", "").split()),
    }


def _section(field: Schema) -> tuple[str, bool] | None:
    """The section that a key holds and whether one stands under each name, or nothing."""
    if "$ref" in field:
        return field["$ref"], False
    inside = field.get("additionalProperties")
    for each in (field, inside) if isinstance(inside, dict) else (field,):
        for choice in (each, *each.get("anyOf", ())):
            if "$ref" in choice:
                return choice["$ref"], each is inside
    return None


def _type(field: Schema) -> str:
    """A type and its bounds, in words."""
    if "$ref" in field:
        return "table"
    if "anyOf" in field:
        return " or ".join(_type(each) for each in field["anyOf"] if each.get("type") != "null")
    if "const" in field:
        return json.dumps(field["const"])
    if "enum" in field:
        return ", ".join(map(json.dumps, field["enum"]))
    kind = field.get("type")
    if kind == "array":
        items = field.get("prefixItems")
        if items:
            return f"[{', '.join(_type(each) for each in items)}]"
        return f"list of {_type(field.get('items', {}))}"
    if kind == "object":
        inside = field.get("additionalProperties")
        return f"table of {_type(inside)}" if isinstance(inside, dict) and inside else "table"
    known = {sign: field[bound] for bound, sign in BOUNDS.items() if bound in field}
    bounds = [f"{sign} {number:g}" for sign, number in known.items() if number < MISTAKE]
    word = WORDS.get(str(kind), "any value")
    if "pattern" in field:
        bounds.append('as "1.2x"')
    return f"{word} {', '.join(bounds)}".strip()


def _default(row: Row) -> str:
    if row["is_required"]:
        return "needed"
    return "" if row["default"] is None else json.dumps(row["default"])


def _code(text: str) -> str:
    return f"`{text}`" if text and text != "needed" else text
