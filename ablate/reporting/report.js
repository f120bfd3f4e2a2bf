"use strict";
const page = JSON.parse(document.getElementById("data").textContent);
const touch = matchMedia("(pointer: coarse)").matches;
const AXIS = { automargin: true, gridcolor: "#e6e8eb", zeroline: false, zerolinecolor: "#888", linecolor: "#888", showline: true, ticks: "outside", ticklen: 4 };
const LOOK = {
  font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: "#1d1d1f" },
  margin: { l: 8, r: 14, t: 8, b: 8 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
  legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", traceorder: "normal" }, hoverlabel: { align: "left", bgcolor: "#fff", bordercolor: "#888", font: { color: "#1d1d1f" } },
  dragmode: touch ? false : "zoom", // a finger scrolls the page
};

function element(tag, look = "", text = "", ...inside) {
  const made = document.createElement(tag);
  made.className = look;
  made.textContent = text;
  made.append(...inside);
  return made;
}

for (const [id, figure] of Object.entries(page.figures)) {
  const layout = { ...LOOK, ...figure.layout, legend: { ...LOOK.legend, ...figure.layout.legend } };
  for (const axis of ["xaxis", "yaxis"]) layout[axis] = { ...AXIS, ...figure.layout[axis] };
  Plotly.newPlot(id, figure.data, layout, { responsive: true, displayModeBar: false });
}

/* A trial's layer groups as a coloured table: a row a block, a column a part of it; a group without a dot has its row alone. */
function precisionMap(trial) {
  const cells = page.groups.map((group, i) => [group, page.kinds[trial.layers[i]]]);
  const split = (group) => (group.includes(".") ? [group.slice(0, group.lastIndexOf(".")), group.slice(group.lastIndexOf(".") + 1)] : [group, ""]);
  const parts = [...new Set(page.groups.map((group) => split(group)[1]))].filter(Boolean);
  const rows = new Map();
  for (const [group, kind] of cells) {
    const [block, part] = split(group);
    const cell = element("td", kind.weights, kind.weights + (kind.activation_bits ? " " + kind.activation_bits : ""));
    cell.title = [group + ": " + kind.weights, kind.activation_bits ? kind.activation_bits + "-bit activations" : "", kind.more].filter(Boolean).join(", ");
    if (!rows.has(block)) rows.set(block, new Map());
    rows.get(block).set(part, cell);
  }
  const table = element("table", "map");
  if (parts.length) table.append(element("tr", "", "", element("th"), ...parts.map((part) => element("th", "", part))));
  for (const [block, found] of rows) {
    const row = element("tr", "", "", element("th", "", block));
    if (found.has("")) found.get("").colSpan = Math.max(1, parts.length);
    row.append(...(found.has("") ? [found.get("")] : parts.map((part) => found.get(part) ?? element("td"))));
    table.append(row);
  }
  return table;
}

function pin(index) {
  const trial = page.trials[index], panel = document.getElementById("pinned"), plot = document.getElementById("front-0");
  const list = element("dl");
  page.columns.forEach((name, i) => list.append(element("dt", "", name), element("dd", "", trial.numbers[i])));
  const numbers = element("div", "", "", list);
  for (const verb of trial.kept ? ["rerun", "export"] : ["rerun"])
    numbers.append(element("pre", "", `ablate ${verb} ${page.run} --trial ${trial.id}` + (verb === "export" ? ` --to ${trial.id}` : "")));
  const map = page.groups.length ? precisionMap(trial) : element("p", "", "No trial of this run has a quantized layer.");
  const head = element("div", "wide", "", element("h3", "", `Trial ${trial.id}: ${trial.words}`));
  panel.replaceChildren(head, numbers, element("div", "", "", map, element("p", "state", page.groups.length ? "Weights of each layer group, and bits of its activations." : "")));
  panel.hidden = false;
  const trace = plot.data.find((trace) => trace.customdata?.includes(index)), at = trace.customdata.indexOf(index);
  Plotly.restyle(plot, { x: [[trace.x[at]]], y: [[trace.y[at]]] }, [plot.data.length - 1]);
}

if (page.trials.length) {
  document.getElementById("front-0").on("plotly_click", (event) => {
    if (event.points[0].customdata !== undefined) pin(event.points[0].customdata);
  });
  for (const button of document.querySelectorAll("button[data-trial]")) button.addEventListener("click", () => pin(Number(button.dataset.trial)));
  pin(page.first);
}

/* Paper is narrower than most windows: 180 mm. */
const plots = [...document.querySelectorAll(".js-plotly-plot")];
addEventListener("beforeprint", () => plots.forEach((plot) => Plotly.relayout(plot, { width: plot.closest(".wide") ? 660 : 320, autosize: false })));
addEventListener("afterprint", () => plots.forEach((plot) => Plotly.relayout(plot, { width: null, autosize: true })));
