"use strict";

/* What a cell is sorted by: the number that it begins with, else its text; a cell without a value comes last. */
function sortKey(cell) {
  const text = cell.textContent.trim().replace(/\u00a0/g, " ");
  const number = text.replace(/\u2212/g, "-").match(/^[+-]?(\d[\d,]*\.?\d*|\.\d+)(e[+-]?\d+)?/i);
  return { number: number ? parseFloat(number[0].replace(/,/g, "")) : NaN, text: text, empty: text === "" || text === "\u2013" };
}

function compareKeys(a, b) {
  if (!isNaN(a.number) && !isNaN(b.number)) return a.number - b.number;
  return a.text.localeCompare(b.text, undefined, { numeric: true });
}

function sortBy(table, column, falling) {
  const rows = Array.from(table.tBodies[0].rows).map((row) => ({ row: row, key: sortKey(row.cells[column]) }));
  rows.sort((a, b) => a.key.empty - b.key.empty || (falling ? -1 : 1) * compareKeys(a.key, b.key));
  rows.forEach((one) => table.tBodies[0].append(one.row));
  Array.from(table.tHead.rows[0].cells).forEach((cell, i) => {
    if (i === column) cell.setAttribute("aria-sort", falling ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  });
}

document.querySelectorAll("table").forEach((table) => {
  if (table.tBodies[0].rows.length < 2) return;
  Array.from(table.tHead.rows[0].cells).forEach((cell, column) => {
    const button = document.createElement("button");
    button.append(...cell.childNodes);
    button.title = "sort";
    button.addEventListener("click", () => sortBy(table, column, cell.getAttribute("aria-sort") !== "descending"));
    cell.append(button);
  });
});

/* Sliders over all pictures of their section: how much of each is covered by its overlay, and how densely. */
document.querySelectorAll(".controls").forEach((controls) => {
  controls.hidden = false;
  controls.querySelectorAll("input").forEach((input) => {
    const set = () => controls.parentElement.style.setProperty("--" + input.name, input.value + "%");
    input.addEventListener("input", set);
    set();
  });
});

addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => (one.open = true)));
