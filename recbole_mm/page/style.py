"""The look of a page, and the few lines that sort its tables."""

STYLE = """
:root { --ink: #1d2733; --soft: #5d6b7a; --line: #dfe5ec; --paper: #fff; --wash: #f5f7fa;
  --accent: #1f6feb; --good: #1a7f4b; --bad: #b3261e; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--wash); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1400px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 19px; margin: 0 0 6px; }
.sub, .note, summary { color: var(--soft); }
.note { margin: 0 0 12px; max-width: 90ch; font-size: 14px; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
  padding: 18px 20px; margin: 18px 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 14px;
  margin: 18px 0; }
.card { background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 16px; }
.card b { display: block; font-size: 22px; line-height: 1.25; overflow-wrap: anywhere; }
.card span { color: var(--soft); font-size: 13px; }
.mark { background: #fff4e5; border: 1px solid #f3cf9b; border-radius: 8px; padding: 8px 12px;
  margin: 10px 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13.5px; min-width: 50%;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding: 8px 0 4px; }
th, td { padding: 5px 9px; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
thead th { cursor: pointer; color: var(--soft); font-weight: 600; user-select: none;
  background: var(--paper); }
thead th:hover { color: var(--accent); }
thead th[aria-sort=ascending]::after { content: " \\2191"; }
thead th[aria-sort=descending]::after { content: " \\2193"; }
th:first-child, td.text, td.word { text-align: left; }
td.text { white-space: normal; max-width: 60ch; overflow-wrap: anywhere; }
tbody th { font-weight: 600; }
tbody tr:hover { background: var(--wash); }
td { background: rgba(31, 111, 235, calc(var(--heat, 0) * .28)); }
.best { font-weight: 700; }
.above { color: var(--good); }
.below { color: var(--bad); }
svg { max-width: 100%; height: auto; display: block; }
.charts { display: flex; flex-wrap: wrap; gap: 18px; align-items: flex-start; }
figure { margin: 0; max-width: 980px; }
.charts figure { flex: 1 1 460px; min-width: 0; }
figcaption { color: var(--soft); font-size: 13px; }
pre { background: var(--wash); border: 1px solid var(--line); border-radius: 8px; padding: 12px;
  overflow-x: auto; font-size: 13px; }
details { margin-top: 10px; }
summary { cursor: pointer; }
footer { color: var(--soft); font-size: 13px; margin-top: 24px; }
@media print { body { background: #fff; } section, .card { break-inside: avoid; } }
"""

# A cell is sorted by its data-value, else as text; empty cells stay at the end.
SCRIPT = """
for (const head of document.querySelectorAll("thead th")) head.addEventListener("click", () => {
  const table = head.closest("table"), place = head.cellIndex;
  const up = head.getAttribute("aria-sort") === "descending";
  for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = row => {
    const cell = row.cells[place], given = cell.dataset.value;
    return given === undefined ? cell.textContent : parseFloat(given);
  };
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => {
    const x = value(a), y = value(b);
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
    const order = typeof x === "number" && typeof y === "number"
      ? x - y : String(x).localeCompare(String(y), "en", {numeric: true});
    return up ? order : -order;
  });
  table.tBodies[0].append(...rows);
});
"""
