"use strict";
/* Sorting, filtering and copying. Without it the report has the same content. */

const numberIn = text => {
  const found = text.trim().replace("\u2212", "-").match(/^[<+]?(-?[\d.,]*\d(?:e[-+]?\d+)?)/i);
  return found ? Number(found[1].replaceAll(",", "")) : NaN;
};
const keyOf = cell => cell.dataset.key ?? cell.textContent;

function compare(a, b) {
  const [first, second] = [numberIn(a), numberIn(b)];
  if (!isNaN(first) && !isNaN(second)) return first - second;
  if (isNaN(first) !== isNaN(second)) return isNaN(first) ? 1 : -1;
  return a.localeCompare(b);
}

function sortBy(heading) {
  const body = heading.closest("table").tBodies[0];
  const falling = heading.ariaSort === "ascending";
  for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
  heading.ariaSort = falling ? "descending" : "ascending";
  const key = row => keyOf(row.cells[heading.cellIndex]);
  const rows = [...body.rows].sort((a, b) => compare(key(a), key(b)) * (falling ? -1 : 1));
  body.append(...rows);
}

for (const heading of document.querySelectorAll("table.sortable thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.title = "Sort";
  button.append(...heading.childNodes);
  button.addEventListener("click", () => sortBy(heading));
  heading.append(button);
}

function filterVerdicts(bar) {
  const terms = bar.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean);
  const verdict = bar.querySelector("select").value;
  let levels = 0;
  for (const part of document.querySelectorAll("details[data-label]")) {
    const named = terms.every(term => part.dataset.label.toLowerCase().includes(term));
    let shown = 0;
    for (const row of part.querySelectorAll("tr[data-verdict]")) {
      row.hidden = !named || (verdict !== "" && row.dataset.verdict !== verdict);
      shown += !row.hidden;
    }
    part.hidden = !named || (verdict !== "" && shown === 0);
    levels += shown;
    const line = document.querySelector(`tr[data-part="${part.id}"]`);
    if (line) line.hidden = part.hidden;
  }
  bar.querySelector("output").textContent = `${levels} level${levels === 1 ? "" : "s"}`;
}

for (const bar of document.querySelectorAll(".filter")) {
  bar.hidden = false;
  bar.addEventListener("input", () => filterVerdicts(bar));
}

async function copy(button) {
  const code = button.parentNode.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {  // a frame without the permission, as MLflow's
    getSelection().selectAllChildren(code);
    if (!document.execCommand("copy")) return;
    getSelection().removeAllRanges();
  }
  button.textContent = "Copied";
}

for (const button of document.querySelectorAll(".command button")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
}

if (self !== top) {  // a frame, as MLflow's, opens no files: the files are artifacts with these names
  for (const link of document.querySelectorAll('a[href^="figures/"]')) {
    const name = document.createElement("code");
    name.append(link.getAttribute("href"));
    link.replaceWith(name);
  }
}

addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});
