"""Hold the style sheet of the pages."""

STYLE = r"""
:root { color-scheme: light dark; --page: #ffffff; --ink: #1c2126; --quiet: #5c6670; --line: #d9dee3; --tile: #f4f6f8;
  --accent: #a94a00; }
@media (prefers-color-scheme: dark) { :root { --page: #14181c; --ink: #e4e8ec; --quiet: #9aa5b0; --line: #333b43;
  --tile: #1d2328; --accent: #ff9a52; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1520px; margin: 0 auto; padding: 28px 24px 64px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 1.3rem; margin: 52px 0 8px; padding-top: 14px; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 26px 0 6px; }
p { max-width: 76ch; margin: 8px 0; }
.quiet, figcaption { color: var(--quiet); font-size: 0.92rem; }
.summary { font-size: 1.08rem; padding-left: 1.1em; max-width: 80ch; }
.summary li { margin: 7px 0; }
.summary li:first-child { font-weight: 600; }
nav { margin: 20px 0 0; font-size: 0.92rem; line-height: 1.9; }
nav a { color: var(--accent); margin-right: 16px; white-space: nowrap; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 12px; margin: 14px 0; }
.tile { background: var(--tile); border-radius: 8px; padding: 12px 14px; }
.tile b { display: block; font-size: 1.35rem; line-height: 1.3; white-space: nowrap; }
.tile span { color: var(--quiet); font-size: 0.88rem; }
.figure { width: 100%; }
.scroll { width: fit-content; max-width: 100%; overflow: auto; max-height: 620px; margin: 12px 0; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th { position: sticky; top: 0; background: var(--page); text-align: left; color: var(--quiet); font-weight: 600; }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); vertical-align: baseline; }
th.number, td.number { text-align: right; white-space: nowrap; }
td.plan, pre { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 0.82rem; }
#table-points { font-size: 0.82rem; }
#table-points th, #table-points td { padding-right: 10px; }
td.plan { min-width: 160px; max-width: 420px; overflow-wrap: anywhere; }
@media (max-width: 1420px) { #table-points { font-size: 0.76rem; } #table-points td.plan { min-width: 115px;
  font-size: 0.74rem; } #table-points th, #table-points td { padding-right: 7px; } }
th button { all: unset; cursor: pointer; font: inherit; }
th button:focus-visible { outline: 2px solid var(--accent); }
th[aria-sort="ascending"] button::after { content: " \25b2"; }
th[aria-sort="descending"] button::after { content: " \25bc"; }
#table-points tbody tr { cursor: pointer; }
tr.chosen td { background: var(--tile); }
.tools { margin: 12px 0 0; display: flex; gap: 8px; }
.tools input { flex: 0 1 280px; min-width: 0; }
.tools input, .tools button, button.png, button.select, .clicked button, .brush-note button { font: inherit;
  font-size: 0.85rem; padding: 2px 8px; color: inherit; background: var(--tile); border: 1px solid var(--line);
  border-radius: 5px; }
button.png, button.select { font-size: 0.75rem; padding: 0 6px; cursor: pointer; }
button.select[aria-pressed="true"] { color: var(--page); background: var(--accent); border-color: var(--accent); }
tr.faded td { opacity: 0.3; }
.brush-note { position: fixed; right: 18px; bottom: 18px; padding: 8px 14px; border-radius: 8px; font-size: 0.9rem;
  background: var(--tile); border: 1px solid var(--accent); z-index: 10; }
.brush-note button { cursor: pointer; }
.clicked { position: relative; background: var(--tile); border-radius: 8px; padding: 8px 16px 14px; margin: 14px 0; }
.clicked h3 { margin-top: 4px; }
.clicked pre { padding: 0; white-space: pre-wrap; }
.clicked > button { position: absolute; top: 10px; right: 12px; cursor: pointer; }
.clicked img { max-width: min(100%, 480px); image-rendering: pixelated; }
pre { background: var(--tile); border-radius: 8px; padding: 12px 14px; overflow-x: auto; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 0 24px; }
.beside > div { min-width: 0; }
.images { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 18px; }
.images figure { margin: 0; }
.images img { width: 100%; image-rendering: pixelated; border-radius: 4px; }
@media print {
  :root { --page: #ffffff; --ink: #000000; --quiet: #444444; --line: #bbbbbb; --tile: #f2f2f2; }
  main { padding: 0; max-width: none; }
  nav, .tools, button.png, button.select, .brush-note, .clicked { display: none; }
  body { font-size: 11pt; }
  table, #table-points { font-size: 8pt; }
  th, td { padding: 3px 8px 3px 0; }
  td.plan { min-width: 130px; font-size: 7.5pt; }
  .scroll { overflow: visible; max-height: none; }
  .beside { grid-template-columns: 1fr 1fr; }
  .figure, .tile, .images figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  pre { white-space: pre-wrap; }
}
"""
