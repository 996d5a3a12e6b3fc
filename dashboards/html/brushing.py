"""Hold the script that carries a selection from one figure or table of a page to all others."""

from __future__ import annotations

BRUSHING = """
let brushed = null;  // the selected trials as texts; null where nothing is selected
const trialsOf = box => (box.layout.meta || {}).trials;  // of a heat map: the trial of each row
const pointTraces = box => box.data.map((trace, index) => index).filter(index => box.data[index].customdata);
const brushable = box => trialsOf(box) || pointTraces(box).length;
const pointRows = () => Array.from(document.querySelectorAll('#table-points tr[data-trial]'));
function veils(trials) {
  if (!brushed) return [];
  const colour = getComputedStyle(document.body).backgroundColor, found = [];
  trials.forEach((trial, row) => {
    if (brushed.has(String(trial))) return;
    const last = found[found.length - 1];
    if (last && last.y1 === row - 0.5) { last.y1 = row + 0.5; return; }
    found.push({ type: 'rect', xref: 'paper', x0: 0, x1: 1, yref: 'y', y0: row - 0.5, y1: row + 0.5,
      fillcolor: colour, opacity: 0.75, line: { width: 0 } });
  });
  return found;
}
async function paintBrush(box, source) {
  const indices = pointTraces(box);
  // Without its rectangle, plotly would forget what is selected: so the rectangle goes first.
  if (box !== source && (box.layout.selections || []).length) await Plotly.relayout(box, { selections: [] });
  if (trialsOf(box)) await Plotly.relayout(box, { shapes: veils(trialsOf(box)) });
  const selected = index => brushed && box.data[index].customdata.map((trial, place) => [String(trial), place])
    .filter(([trial]) => brushed.has(trial)).map(([, place]) => place);
  if (indices.length) await Plotly.restyle(box, { selectedpoints: indices.map(selected) }, indices);
}
const brushNote = document.createElement('div');
function brush(trials, source) {
  brushed = trials && trials.size ? trials : null;
  boxes.filter(brushable).forEach(box => paintBrush(box, source));
  pointRows().forEach(row => row.classList.toggle('faded', Boolean(brushed) && !brushed.has(row.dataset.trial)));
  brushNote.hidden = !brushed;
  if (brushed) brushNote.firstChild.textContent = brushed.size + (brushed.size === 1 ? ' trial is' : ' trials are') +
    ' selected, on the whole page. ';
}
function selectedTrials(box, event) {
  const trials = trialsOf(box);
  if (trials && event.range) {
    const [low, high] = event.range.y.slice().sort((a, b) => a - b);
    return new Set(trials.filter((trial, row) => row + 0.5 > low && row - 0.5 < high).map(String));
  }
  return new Set(event.points.map(point => point.customdata).filter(trial => trial !== undefined).map(String));
}
function addSelectButton(box) {
  const button = document.createElement('button');
  button.className = 'select';
  button.textContent = 'Select';
  button.title = 'drag over the figure to select trials on the whole page';
  button.setAttribute('aria-pressed', 'false');
  button.addEventListener('click', () => {
    const on = box.layout.dragmode !== 'select';
    Plotly.relayout(box, { dragmode: on ? 'select' : 'zoom' });
    button.setAttribute('aria-pressed', String(on));
  });
  box.closest('figure').querySelector('figcaption').append(' ', button);
  box.on('plotly_selected', event => { if (event) brush(selectedTrials(box, event), box); });
}
function watchBrush() {
  if (!clicked) return;
  boxes.filter(brushable).forEach(addSelectButton);
  brushNote.className = 'brush-note';
  brushNote.hidden = true;
  brushNote.append('', document.createElement('button'));
  brushNote.lastChild.textContent = 'Show all';
  brushNote.lastChild.addEventListener('click', () => brush(null));
  document.body.append(brushNote);
  addEventListener('keydown', event => { if (event.key === 'Escape') brush(null); });
  const filter = document.querySelector('.tools[data-table="table-points"] input');
  if (filter) filter.addEventListener('input', () => brush(filter.value.trim() ?
    new Set(pointRows().filter(row => !row.hidden).map(row => row.dataset.trial)) : null));
  pointRows().forEach(row => row.addEventListener('click', event => {
    if (!event.ctrlKey && !event.metaKey && !event.shiftKey) return;
    const chosen = new Set(brushed || []);
    if (!chosen.delete(row.dataset.trial)) chosen.add(row.dataset.trial);
    brush(chosen);
  }));
}
"""
