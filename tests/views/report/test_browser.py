"""The page in a real browser: no fault, no request, a slider that moves the map, contrast."""

import pytest

from recon_search.stages.report import write_report
from tests.browser import find_browser, look
from tests.views.report.fakes import fake_run, fake_search

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_browser() is None, reason="needs Chromium, found none"),
]

CONTRAST = """
const channel = (value) => value <= 10.31475 ? value / 255 / 12.92
  : Math.pow((value / 255 + 0.055) / 1.055, 2.4);
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const numbers = (text) => text.match(/[0-9.]+/g).map(Number);
const below = (element) => {
  for (let each = element; each; each = each.parentElement) {
    const colour = numbers(getComputedStyle(each).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour;
  }
  return [255, 255, 255];
};
const behind = (text) => {  // in a drawing: the last box under the middle of a text, or the page
  const own = text.getBoundingClientRect(), drawing = text.closest("svg");
  const [x, y] = [(own.left + own.right) / 2, (own.top + own.bottom) / 2];
  const boxes = [...drawing.querySelectorAll("rect")].filter((box) => {
    const edge = box.getBoundingClientRect();
    return edge.left <= x && x <= edge.right && edge.top <= y && y <= edge.bottom &&
      getComputedStyle(box).fill !== "none" &&
      box.compareDocumentPosition(text) & Node.DOCUMENT_POSITION_FOLLOWING;
  });
  return boxes.length ? numbers(getComputedStyle(boxes.at(-1)).fill) : below(drawing);
};
const low = new Set();
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const element = walk.currentNode.parentElement;
  if (!walk.currentNode.textContent.trim()) continue;
  if (element.closest("script, style, title, .unseen")) continue;
  const own = getComputedStyle(element);
  const colour = numbers(element.closest("svg") ? own.fill : own.color);
  const pair = [colour, element.closest("svg") ? behind(element) : below(element)].map(light);
  const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  const name = element.tagName + "." + element.getAttribute("class");
  if (ratio < 4.5) low.add(name + " " + ratio.toFixed(2));
}
const contrast = [...low];
"""

SLIDE = """
const maps = document.querySelector("[data-heat]");
const slider = maps.querySelector("input"), select = maps.querySelector("select");
const classes = (name) => [...maps.querySelectorAll(`[data-map=${name}] .cells > *`)]
  .map((cell) => cell.getAttribute("class")).join(" ");
const words = () => [...maps.querySelectorAll(".words > *")].map((each) => each.textContent);
const state = () => [classes("layers"), classes("tasks"), classes("pairs"), words(),
  maps.querySelector(".frame").getAttribute("x"), maps.querySelector("output").textContent];
const before = state();
slider.dispatchEvent(new Event("input"));
const same = state();
slider.value = 10;
slider.dispatchEvent(new Event("input"));
const slid = state();
select.value = "2";
select.dispatchEvent(new Event("change"));
const chosen = state();
const table = [...document.querySelectorAll("[data-long]")].find((e) => e.closest("#ranking"));
const visible = () => [...table.querySelectorAll("tbody tr")].filter((e) => e.offsetHeight).length;
const rows = [visible()];
const [search, all] = table.querySelectorAll("input");
all.click();
rows.push(visible());
search.value = "LAYER1.0";
search.dispatchEvent(new Event("input"));
rows.push(visible());
"""

WIDE = """
const wide = [...document.querySelectorAll("body *")]
  .filter((e) => !e.closest(".scroll > *, pre > *, svg *, .unseen"))
  .filter((e) => e.getBoundingClientRect().right > window.innerWidth + 1)
  .map((e) => e.tagName + "." + e.className);
"""

STACKED = """
const stacks = [...document.querySelectorAll(".stacked .scroll")];
const stacked = [Math.max(...stacks.map((each) => each.scrollWidth - each.clientWidth)),
  [...stacks[0].querySelectorAll("td")].filter((each) => each.offsetHeight)
    .map((each) => getComputedStyle(each, "::before").content.replaceAll('"', ""))];
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    out = tmp_path_factory.mktemp("six")
    fake_run(out, 6)
    fake_search(out)
    return write_report(out).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def seen(page, tmp_path_factory):
    script = f"{CONTRAST}{SLIDE}{WIDE}return {{contrast, before, same, slid, chosen, rows, wide}};"
    return look(page, script, tmp_path_factory.mktemp("browser"))


def test_there_is_no_fault_and_no_request(seen):
    assert seen["faults"] == []
    assert seen["requests"] == []


def test_the_slider_and_the_choice_move_the_maps(seen):
    before, same, slid, chosen = (
        seen["found"][name] for name in ("before", "same", "slid", "chosen")
    )
    assert same == before  # what the script draws is what stands there without it
    assert all(a != b for a, b in zip(before[1:], slid[1:], strict=True))
    assert slid[0] == before[0]
    assert slid[5] == "-0.3"
    assert chosen[0] != slid[0]
    assert chosen[3] != slid[3]
    assert chosen[1:3] == slid[1:3]


def test_long_tables_show_what_is_asked_for(seen):
    first, every, found = seen["found"]["rows"]
    assert (first, every) == (12, 43)
    assert found == 6


def test_text_has_contrast_in_the_light(seen):
    assert seen["found"]["contrast"] == []


def test_low_contrast_and_requests_are_found(tmp_path):
    """The checks above can fail."""
    page = "<html><head></head><body><p style='color:#999'>x</p><img src='https://no.org/x.png'></body></html>"
    found = look(page, f"{CONTRAST}return contrast;", tmp_path)
    assert found["found"] == ["P.null 2.85"]
    assert found["requests"] == ["https://no.org/x.png"]


def test_text_has_contrast_in_the_dark_and_fits_a_telephone(page, tmp_path):
    found = look(
        page,
        f"{CONTRAST}{WIDE}{STACKED}return [contrast, wide, innerWidth, stacked];",
        tmp_path,
        width=380,
        dark=True,
    )
    assert found["faults"] == []
    assert found["found"][:3] == [[], [], 380]
    wider, labels = found["found"][3]
    assert wider == 0, "the comparison is read without scrolling sideways"
    assert "parameters" in labels


def test_text_on_a_box_is_measured_against_the_box(tmp_path):
    """The check above can fail there too."""
    svg = "<svg><rect width='90' height='30' fill='#444'/><text x='9' y='20'>xyz</text></svg>"
    found = look(
        f"<html><head></head><body>{svg}</body></html>", f"{CONTRAST}return contrast;", tmp_path
    )
    assert found["found"] == ["text.null 2.16"]
