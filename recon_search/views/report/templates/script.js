"use strict";
// Long tables: a search box, and all rows or the first ones.
for (const long of document.querySelectorAll("[data-long]")) {
  const [search, all] = long.querySelectorAll("input");
  const said = long.querySelector("[role=status]");
  const rows = [...long.querySelectorAll("tbody tr")];
  const show = () => {
    const words = search.value.trim().toLowerCase();
    long.classList.toggle("brief", !words && !all.checked);
    let shown = 0;
    for (const row of rows) {
      row.hidden = words !== "" && !row.textContent.toLowerCase().includes(words);
      shown += !row.hidden && (words !== "" || all.checked || !row.classList.contains("extra"));
    }
    said.textContent = shown + " of " + rows.length + " rows";
  };
  search.addEventListener("input", show);
  all.addEventListener("change", show);
  long.querySelector(".controls").hidden = false;
  show();
}
// On paper all is unfolded.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const each of folded) each.open = true;
});
addEventListener("afterprint", () => folded.forEach((each) => { each.open = false; }));
// Heat maps: a slider for S and a choice of tasks.
for (const maps of document.querySelectorAll("[data-heat]")) {
  const data = JSON.parse(maps.querySelector("script").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const choices = data.maps.map(bytes), pairs = bytes(data.pairs);
  const slider = maps.querySelector("input"), select = maps.querySelector("select");
  const n = data.thresholds.length;
  const find = (name, what) => [...maps.querySelectorAll(`[data-map=${name}] ${what}`)];
  const cells = find("layers", ".cells > *"), bars = find("layers", ".bars > *");
  const words = find("layers", ".words > *"), frame = find("layers", ".frame")[0];
  const step = Number(find("layers", ".words")[0].dataset.step);
  const ofTasks = find("tasks", ".cells > *"), ofPairs = find("pairs", ".cells > *");
  const left = frame.x.baseVal.value - slider.value * frame.width.baseVal.value;
  const top = 100 * data.top;
  const level = (value) => value === 255 ? "hx" : "h" + Math.min(10, Math.ceil(10 * value / top - 1e-9));
  const show = () => {
    const at = Number(slider.value), s = String(data.thresholds[at]);
    const shown = choices[select ? Number(select.value) : 0];
    cells.forEach((cell, place) => cell.setAttribute("class", level(shown[place])));
    const own = (row) => shown[row * n + at];
    bars.forEach((bar, row) => bar.setAttribute("width", own(row) === 255 ? 0 : 48 * own(row) / top));
    words.forEach((word, row) => {
      const value = own(row * step);
      word.textContent = value === 255 ? "none" : value + " %";
    });
    frame.setAttribute("x", left + at * frame.width.baseVal.value);
    ofTasks.forEach((cell, place) => {
      const row = Math.floor(place / data.tasks), task = place % data.tasks;
      cell.setAttribute("class", level(choices[1 + task][row * n + at]));
    });
    ofPairs.forEach((cell, place) => {
      const [a, b] = [Math.floor(place / data.tasks), place % data.tasks].sort((x, y) => x - y);
      const pair = a * data.tasks - a * (a + 1) / 2 + b - a - 1;
      if (a !== b) cell.setAttribute("class", level(pairs[pair * n + at]));
    });
    maps.querySelector("output").textContent = s;
    slider.setAttribute("aria-valuetext", s);
    for (const text of maps.querySelectorAll("[data-threshold]")) text.textContent = s;
  };
  slider.addEventListener("input", show);
  if (select) select.addEventListener("change", show);
  maps.querySelector(".controls").hidden = false;
}
