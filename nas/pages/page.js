// Draws a page of `nas.page` from its data, and once more whenever these change.
// What comes from a run becomes text here, never markup; `html` is escaped by Python.
"use strict";

const FIRST_ROWS = 25;
const SECONDS_BETWEEN_LOOKS = 2;
// A large run takes a while to read: looking takes at most this share of the time.
const SHARE_SPENT_LOOKING = 0.1;

const by = (id) => document.getElementById(id);
const compact = new Intl.NumberFormat("en", {
  notation: "compact", maximumSignificantDigits: 3,
});
const FIRST_COLUMNS = [
  { title: "child", value: (child) => child.index, show: String, ascending: true },
  { title: "reward", value: (child) => child.reward, show: (x) => x.toFixed(4) },
];
const LAST_COLUMNS = [
  { title: "last loss", value: (child) => child.loss, show: (x) => x.toFixed(3),
    ascending: true },
  { title: "seconds", value: (child) => child.seconds, show: (x) => x.toFixed(1),
    ascending: true },
];
const SHOW_UNIT = {
  share: (x) => (100 * x).toFixed(2) + "%",
  "multiply-adds": compact.format,
  parameters: compact.format,
};

const shown = new Map(); // what a section shows, as JSON
let version = "";
let networks = null;
let picked = null; // the index of a child
let order = { title: "reward", sign: -1 };
let numRows = FIRST_ROWS;

function columns() {
  const measured = networks.metrics.map(({ name, unit, goal }) => ({
    title: unit in SHOW_UNIT && unit !== "share" ? unit : name,
    value: (child) => child.metrics[name] ?? null,
    show: SHOW_UNIT[unit] ?? ((x) => `${Number(x.toPrecision(4))} ${unit}`.trim()),
    ascending: goal === "min",
  }));
  return [...FIRST_COLUMNS, ...measured, ...LAST_COLUMNS].filter(({ value }) =>
    networks.children.some((child) => value(child) !== null));
}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function button(text, act) {
  const made = element("button", text, { type: "button" });
  made.addEventListener("click", (event) => { event.stopPropagation(); act(); });
  return made;
}

function show(data) {
  version = data.version;
  for (const section of data.sections) {
    const text = JSON.stringify(section);
    if (shown.get(section.id) === text) continue;
    shown.set(section.id, text);
    const place = by(section.id);
    place.hidden = !section.html && !section.figure;
    place.querySelector(".text").innerHTML = section.html;
    if (section.figure) draw(place.querySelector(".figure"), section.figure);
  }
  if (data.networks) {
    networks = data.networks;
    networks.byIndex = new Map(networks.children.map((child) => [child.index, child]));
    if (networks.children.length > 0) {
      showChildren();
      pick(networks.byIndex.has(picked) ? picked : networks.best);
    }
  }
}

function draw(place, figure) {
  // A finger scrolls; it does not zoom.
  if (matchMedia("(pointer: coarse)").matches) figure.layout.dragmode = false;
  figure.layout.uirevision = "keep what the reader has zoomed to";
  Plotly.react(place, figure.data, figure.layout, {
    displaylogo: false, responsive: true, displayModeBar: false,
  });
  if (place.dataset.watched) return;
  place.dataset.watched = "yes";
  for (const event of ["plotly_hover", "plotly_click"]) {
    place.on(event, ({ points }) => pick([points[0].customdata].flat()[0]));
  }
}

function pick(index) {
  const child = networks?.byIndex.get(index);
  if (!child) return;
  picked = index;
  const best = index === networks.best ? ", the best" : "";
  const stages = element("ol", undefined, { start: 0 });
  for (const stage of child.stages) {
    stages.append(element("li", networks.stages[stage].text));
  }
  by("picked").replaceChildren(
    element("h2", `Child ${index}${best}`),
    element("p", columns().slice(1).filter(({ value }) => value(child) !== null).map(
      ({ title, value, show }) => `${title} ${show(value(child))}`).join(", ")),
    stages,
    button("Download its JSON", () => download(child)),
  );
  by("picked").hidden = false;
  for (const row of by("children").querySelectorAll("tbody tr")) {
    row.classList.toggle("picked", row.dataset.index === String(index));
  }
}

function showChildren() {
  const shownColumns = columns();
  const head = element("tr");
  for (const { title, ascending } of shownColumns) {
    const cell = element("th");
    if (title === order.title) {
      cell.setAttribute("aria-sort", order.sign > 0 ? "ascending" : "descending");
    }
    cell.append(button(title, () => {
      const first = ascending ? 1 : -1;
      order = { title, sign: title === order.title ? -order.sign : first };
      showChildren();
    }));
    head.append(cell);
  }
  head.append(element("th", "architecture"));
  const chosen = shownColumns.find(({ title }) => title === order.title);
  const value = (child) => chosen?.value(child) ?? -Infinity;
  const sorted = networks.children.toSorted((a, b) =>
    order.sign * (value(a) - value(b)) || a.index - b.index);
  const body = element("tbody");
  body.append(...sorted.slice(0, numRows).map((child) => row(child, shownColumns)));
  const top = element("thead");
  top.append(head);
  const table = element("table");
  table.append(top, body);
  const left = sorted.length - numRows;
  const parts = [table];
  if (left > 0) {
    parts.push(button(`Show more: ${left} are left`, () => {
      numRows *= 4;
      showChildren();
    }));
  }
  by("children").querySelector(".wide").replaceChildren(...parts);
}

function row(child, shownColumns) {
  const made = element("tr", undefined, { "data-index": child.index });
  for (const { value, show } of shownColumns) {
    made.append(element("td", value(child) === null ? "" : show(value(child))));
  }
  const cell = element("td");
  cell.append(button("JSON", () => download(child)));
  made.append(cell);
  made.classList.toggle("picked", child.index === picked);
  made.addEventListener("click", () => pick(child.index));
  return made;
}

// A file that every command takes for an architecture, as best.json is.
function download({ name, stages, ...found }) {
  const architecture = {
    ...networks.base, name, stages: stages.map((stage) => networks.stages[stage].spec),
  };
  const version = Math.max(...stages.map((stage) => networks.stages[stage].version));
  const text = JSON.stringify(
    { version, architecture, found: { ...found, ...networks.found } }, null, 2);
  const address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  const link = element("a", "", { href: address, download: `${name}.json` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

async function follow() {
  const start = performance.now();
  try {
    const answer = await fetch(`view.json?seen=${version}`, { cache: "no-store" });
    if (answer.status === 200) show(await answer.json());
    by("notice").textContent = answer.ok ? "" : await answer.text();
  } catch {
    by("notice").textContent =
      "nas.report no longer answers; this is what it showed last.";
  }
  const took = performance.now() - start;
  const pause = Math.max(1000 * SECONDS_BETWEEN_LOOKS, took / SHARE_SPENT_LOOKING);
  setTimeout(follow, pause);
}

show(JSON.parse(by("data").textContent));
if (document.body.dataset.live) follow();
