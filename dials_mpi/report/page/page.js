"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SVG = "http://www.w3.org/2000/svg";

  const number = (value, digits = 4) =>
    Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(digits)));

  // Values under the pointer ------------------------------------------------------------------------------

  // The points of all lines, with those at one place of the x axis together.
  function columns(chart) {
    const found = new Map();
    for (const series of chart.series) {
      series.px.forEach((place, k) => {
        if (place === null || series.py[k] === null) return;
        const key = place.toFixed(1);
        if (!found.has(key)) found.set(key, { place, x: series.x[k], points: [] });
        found.get(key).points.push({ series, k });
      });
    }
    return [...found.values()].sort((a, b) => a.place - b.place);
  }

  function line(series, k) {
    const entry = document.createElement("span");
    const dot = document.createElement("i");
    dot.style.background = series.colour;
    const error = series.error && series.error[k] !== null ? ` ± ${number(series.error[k], 2)}` : "";
    entry.append(dot, `${series.label}: ${number(series.y[k])}${error}`);
    return entry;
  }

  function mark(group, column, chart) {
    const cross = document.createElementNS(SVG, "line");
    const ends = { x1: column.place, x2: column.place, y1: chart.top, y2: chart.bottom };
    for (const [name, value] of Object.entries(ends)) cross.setAttribute(name, value);
    cross.setAttribute("class", "cross");
    const dots = column.points.map(({ series, k }) => {
      const dot = document.createElementNS(SVG, "circle");
      dot.setAttribute("cx", series.px[k]);
      dot.setAttribute("cy", series.py[k]);
      dot.setAttribute("r", 3.4);
      dot.style.fill = series.colour;
      return dot;
    });
    group.replaceChildren(cross, ...dots);
  }

  function follow(figure, chart) {
    const svg = figure.querySelector("svg");
    const all = columns(chart);
    if (!all.length) return;
    const { width } = svg.viewBox.baseVal;
    const group = svg.appendChild(document.createElementNS(SVG, "g"));
    const tip = figure.appendChild(document.createElement("div"));
    tip.className = "tip";
    tip.hidden = true;
    tip.setAttribute("aria-live", "polite");
    svg.setAttribute("tabindex", "0");
    let current = -1;

    function show(k) {
      current = Math.max(0, Math.min(all.length - 1, k));
      const column = all[current];
      mark(group, column, chart);
      const head = document.createElement("b");
      head.textContent = `${chart.x}: ${number(column.x)}`;
      tip.replaceChildren(head, ...column.points.map(({ series, k }) => line(series, k)));
      tip.hidden = false;
      const at = (column.place / width) * svg.clientWidth;
      const left = at + 14 + tip.offsetWidth > figure.clientWidth ? at - 14 - tip.offsetWidth : at + 14;
      tip.style.left = `${Math.max(0, Math.min(left, figure.clientWidth - tip.offsetWidth))}px`;
      tip.style.top = `${svg.getBoundingClientRect().top - figure.getBoundingClientRect().top}px`;
    }

    function hide() {
      tip.hidden = true;
      group.replaceChildren();
    }

    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const place = ((event.clientX - box.left) / box.width) * width;
      const distances = all.map((column) => Math.abs(column.place - place));
      show(distances.indexOf(Math.min(...distances)));
    });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      show(current + step);
    });
  }

  // The charts of the data are in the order of the page.
  document.querySelectorAll("figure.lines").forEach((figure, k) => follow(figure, data.charts[k]));

  // Sorted tables -----------------------------------------------------------------------------------------

  const key = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent;

  function compare(one, other) {
    if (one === "" || other === "") return (one === "") - (other === "");
    const [a, b] = [Number(one), Number(other)];
    if (!Number.isNaN(a) && !Number.isNaN(b)) return a - b;
    return one.localeCompare(other, "en", { numeric: true });
  }

  function sort(table, heading, column) {
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].sort((a, b) => compare(key(a, column), key(b, column)));
    table.tBodies[0].append(...(down ? rows.reverse() : rows));
  }

  for (const table of document.querySelectorAll("table")) {
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => sort(table, heading, column));
    });
  }
})();
