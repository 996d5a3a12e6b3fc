"""Hold the script of the pages: figures and their colours, printing, tables, the clicked point, the selection."""

from __future__ import annotations

from stepfront.dashboards.html.brushing import BRUSHING

FIGURES = """
const palettes = { light: { ink: '#2b3238', grid: '#e1e5e9' }, dark: { ink: '#d3d9df', grid: '#343c44' } };
const dark = matchMedia('(prefers-color-scheme: dark)');
const boxes = Array.from(document.querySelectorAll('.figure'));
const heights = new Map(boxes.map(box => [box, parseFloat(box.style.height)]));
function colours(layout, palette) {
  const changes = { 'font.color': palette.ink };
  for (const key of Object.keys(layout).filter(key => /^[xy]axis[0-9]*$/.test(key))) {
    Object.assign(changes, { [key + '.gridcolor']: palette.grid, [key + '.linecolor']: palette.grid });
  }
  (layout.annotations || []).forEach((_, index) => { changes['annotations[' + index + '].font.color'] = palette.ink; });
  return changes;
}
function repaint(palette, sizeOf) {
  boxes.forEach(box => {
    const size = sizeOf(box);
    if (size.height) box.style.height = size.height + 'px';
    Plotly.relayout(box, Object.assign(colours(box.layout, palette), size));
  });
}
const chosen = () => palettes[dark.matches ? 'dark' : 'light'];
// A figure that is taller than a printed page would be torn apart.
const printed = box => ({ width: box.closest('.beside') ? 335 : 690, height: Math.min(heights.get(box), 860) });
const onScreen = box => ({ width: null, height: heights.get(box), autosize: true });
Promise.all(boxes.map(box => {
  const figure = JSON.parse(document.getElementById(box.id + '-data').textContent);
  return Plotly.newPlot(box, figure.data, figure.layout, { displayModeBar: false, responsive: true });
})).then(() => { repaint(chosen(), () => ({})); watchClicks(); watchBrush(); });
dark.addEventListener('change', () => repaint(chosen(), () => ({})));
addEventListener('beforeprint', () => repaint(palettes.light, printed));
addEventListener('afterprint', () => repaint(chosen(), onScreen));
document.querySelectorAll('button.png').forEach(button => button.addEventListener('click', () => {
  const box = document.getElementById(button.dataset.figure);
  Plotly.downloadImage(box, { format: 'png', scale: 2, width: box.clientWidth, height: box.clientHeight,
    filename: box.id });
}));
"""

TABLES = """
function valueOf(cell) {
  const text = cell.textContent.trim();
  const number = parseFloat(text.replace(/,/g, ''));
  return cell.classList.contains('number') && !isNaN(number) ? number : text.toLowerCase();
}
function compare(a, b) {
  if (typeof a !== typeof b) return typeof a === 'number' ? -1 : 1;  // what has no number stands last
  return a < b ? -1 : a > b ? 1 : 0;
}
document.querySelectorAll('table').forEach(table => {
  const heads = Array.from(table.tHead.rows[0].cells), body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector('button').addEventListener('click', () => {
    const down = head.getAttribute('aria-sort') === 'ascending';
    heads.forEach(other => other.removeAttribute('aria-sort'));
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const sorted = Array.from(body.rows).sort((a, b) =>
      (down ? -1 : 1) * compare(valueOf(a.cells[column]), valueOf(b.cells[column])));
    body.append(...sorted);
  }));
});
function matches(row, heads, word) {
  const bound = /^(.+?)(<=|>=|<|>)([-+.0-9e]+)$/.exec(word);
  const column = bound ? heads.findIndex(head => head.textContent.trim().toLowerCase() === bound[1].toLowerCase()) : -1;
  if (column < 0) return row.textContent.toLowerCase().includes(word.toLowerCase());
  const value = valueOf(row.cells[column]), limit = parseFloat(bound[3]);
  if (typeof value !== 'number') return false;
  return { '<': value < limit, '>': value > limit, '<=': value <= limit, '>=': value >= limit }[bound[2]];
}
document.querySelectorAll('.tools').forEach(tools => {
  const table = document.getElementById(tools.dataset.table), heads = Array.from(table.tHead.rows[0].cells);
  tools.querySelector('input').addEventListener('input', event => {
    const words = event.target.value.trim().split(/\\s+/).filter(word => word);
    Array.from(table.tBodies[0].rows).forEach(row => { row.hidden = !words.every(word => matches(row, heads, word)); });
  });
  tools.querySelector('button.csv').addEventListener('click', () => {
    const quoted = cell => '"' + cell.textContent.trim().replace(/"/g, '""') + '"';
    const lines = Array.from(table.rows).filter(row => !row.hidden).map(row => Array.from(row.cells, quoted).join(','));
    const link = document.createElement('a');
    const place = URL.createObjectURL(new Blob([lines.join('\\r\\n') + '\\r\\n'], { type: 'text/csv' }));
    link.setAttribute('href', place);
    link.download = table.id + '.csv';
    link.click();
    setTimeout(() => URL.revokeObjectURL(place), 1000);
  });
});
"""

CLICKS = """
const clicked = document.getElementById('clicked');
const points = clicked ? JSON.parse(document.getElementById('clicked-data').textContent) : {};
function element(name, text, parent) {
  const made = document.createElement(name);
  made.textContent = text;
  parent.append(made);
  return made;
}
function show(trial) {
  const point = points[trial];
  if (!point) return;
  clicked.replaceChildren();
  const close = element('button', 'close', clicked);
  close.addEventListener('click', () => { clicked.hidden = true; });
  element('h3', 'Trial ' + trial + (point.label ? ' (' + point.label.replace(/,/g, ', ') + ')' : ''), clicked);
  element('p', Object.entries(point.facts).map(([name, value]) => name + ' ' + value).join(', '), clicked);
  element('pre', point.plan, clicked);
  if (point.times.length) element('p', 'Times: ' + point.times.join(', '), clicked).className = 'quiet';
  const drawn = document.querySelector('.images img[data-file="trial-' + trial + '.png"]');
  if (drawn) {
    const image = element('img', '', clicked);
    image.setAttribute('src', drawn.getAttribute('src'));
    image.alt = drawn.alt;
  } else {
    element('p', 'No images of this point are in the report; `stepfront sample SEARCH --point ' + trial +
      '` draws some.', clicked).className = 'quiet';
  }
  clicked.hidden = false;
  document.querySelectorAll('tr[data-trial]').forEach(row =>
    row.classList.toggle('chosen', row.dataset.trial === String(trial)));
}
function watchClicks() {
  if (!clicked) return;
  boxes.forEach(box => box.on('plotly_click', event => {
    const point = event.points[0], trials = trialsOf(box);
    show(trials ? trials[point.y] : point.customdata);
  }));
  document.querySelectorAll('#table-points tr[data-trial]').forEach(row =>
    row.addEventListener('click', () => show(row.dataset.trial)));
}
"""

SCRIPT = FIGURES + TABLES + CLICKS + BRUSHING
