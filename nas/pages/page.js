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
const COLUMNS = [
  { field: "index", title: "child", show: String, ascending: true },
  { field: "reward", title: "reward", show: (x) => x.toFixed(4) },
  { field: "accuracy", title: "accuracy", show: (x) => (100 * x).toFixed(2) + "%" },
  { field: "num_macs", title: "multiply-adds", show: compact.format, ascending: true },
  { field: "num_params", title: "parameters", show: compact.format, ascending: true },
  // The title of what else than multiply-adds is weighed comes with the data.
  { field: "objective", title: "objective", show: (x) => x.toPrecision(4) },
  { field: "loss", title: "last loss", show: (x) => x.toFixed(3), ascending: true },
  { field: "seconds", title: "seconds", show: (x) => x.toFixed(1), ascending: true },
];

const shown = new Map(); // what a section shows, as JSON
let version = "";
let networks = null;
let picked = null; // the index of a child
let order = { field: "reward", sign: -1 };
let numRows = FIRST_ROWS;

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
    COLUMNS.find(({ field }) => field === "objective").title = networks.objective;
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
    element("p", COLUMNS.slice(1, 6).filter(({ field }) => child[field] !== null)
      .map(({ field, title, show }) => `${title} ${show(child[field])}`).join(", ")),
    stages,
    button("Download its JSON", () => download(child)),
  );
  by("picked").hidden = false;
  for (const row of by("children").querySelectorAll("tbody tr")) {
    row.classList.toggle("picked", row.dataset.index === String(index));
  }
}

function showChildren() {
  const columns = COLUMNS.filter(({ field }) =>
    networks.children.some((child) => child[field] !== null));
  const head = element("tr");
  for (const { field, title, ascending } of columns) {
    const cell = element("th");
    if (field === order.field) {
      cell.setAttribute("aria-sort", order.sign > 0 ? "ascending" : "descending");
    }
    cell.append(button(title, () => {
      const first = ascending ? 1 : -1;
      order = { field, sign: field === order.field ? -order.sign : first };
      showChildren();
    }));
    head.append(cell);
  }
  head.append(element("th", "architecture"));
  const value = (child) => child[order.field] ?? -Infinity;
  const sorted = networks.children.toSorted((a, b) =>
    order.sign * (value(a) - value(b)) || a.index - b.index);
  const body = element("tbody");
  body.append(...sorted.slice(0, numRows).map((child) => row(child, columns)));
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

function row(child, columns) {
  const made = element("tr", undefined, { "data-index": child.index });
  for (const { field, show } of columns) {
    made.append(element("td", child[field] === null ? "" : show(child[field])));
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
  const text = JSON.stringify(
    { version: 1, architecture, found: { ...found, ...networks.found } }, null, 2);
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
