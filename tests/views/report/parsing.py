"""Pages read with the standard library: elements in order, and what is wrong with them."""

import itertools
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {
    "meta",
    "wbr",
    "path",
    "input",
    "img",
    "br",
    "link",
    "line",
    "rect",
    "circle",
    "polyline",
    "polygon",
}


@dataclass
class Element:
    name: str
    attributes: dict
    children: list = field(default_factory=list)

    @property
    def text(self):
        return "".join(c if isinstance(c, str) else c.text for c in self.children)

    def all(self, name):
        for child in self.children:
            if not isinstance(child, str):
                if child.name == name:
                    yield child
                yield from child.all(name)


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]
        self.faults = []

    def handle_starttag(self, tag, attrs):
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.open[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag):
        if self.open[-1].name != tag:
            self.faults.append(f"</{tag}> ends <{self.open[-1].name}>")
        else:
            self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(data)


def parse(text):
    """Return the root of a page, of which every element is closed."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    faults = reader.faults + [f"<{each.name}> is open" for each in reader.open[1:]]
    assert not faults, faults
    return reader.root


def faults_of(root):
    """Say what a reader of screens, or one without a network, would miss."""
    found = []
    levels = [int(e.name[1]) for e in _elements(root) if re.fullmatch("h[1-6]", e.name)]
    if levels[:1] != [1] or levels.count(1) != 1:
        found.append(f"headings begin {levels[:3]}")
    found += [f"h{a} is followed by h{b}" for a, b in itertools.pairwise(levels) if b > a + 1]
    names = [e.attributes["id"] for e in _elements(root) if "id" in e.attributes]
    found += [f"id {name} is there twice" for name in set(names) if names.count(name) > 1]
    regions = [e.attributes.get("aria-label") for e in _elements(root) if "role" in e.attributes]
    found += [f"{name} is there twice" for name in set(regions) if name and regions.count(name) > 1]
    for element in _elements(root):
        own = element.attributes
        if element.name == "img" and not own.get("alt"):
            found.append("an img without alt")
        if element.name == "svg" and own.get("aria-hidden") != "true" and not own.get("aria-label"):
            found.append("an svg without a label")
        if element.name == "table" and not any(element.all("caption")):
            found.append("a table without a caption")
        if element.name == "th" and own.get("scope") not in ("col", "row"):
            found.append(f"th {element.text} without scope")
        if element.name == "th" and not element.text.strip():
            found.append("an empty th")
        for name in ("src", "href", "action", "data"):
            value = own.get(name)
            if value is not None and not value.startswith(("#", "data:")):
                found.append(f"{name} leads to {value[:60]}")
        if own.get("href", "").startswith("#") and own["href"][1:] not in names:
            found.append(f"{own['href']} leads nowhere")
    labelled = {id(e) for label in root.all("label") for e in _elements(label)}
    for element in _elements(root):
        if element.name in ("input", "select") and id(element) not in labelled:
            found.append(f"an {element.name} without a label")
    return found


def _elements(root):
    for child in root.children:
        if not isinstance(child, str):
            yield child
            yield from _elements(child)
