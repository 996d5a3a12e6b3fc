"""What is selected in one figure or table is selected on the whole page: in Chromium, where it is installed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.screenshots import Browser, find_browser
from stepfront.dashboards.report import write_report
from stepfront.tables.search_tables import read_tables

DRAWN = "Boolean(document.querySelector('.brush-note') && boxes.every(box => box.querySelector('.main-svg')))"

STATE = """JSON.stringify({
  front: document.getElementById('figure-front').data.filter(t => t.name === 'front' && t.visible !== false)
    .map(t => t.selectedpoints && t.selectedpoints.map(i => t.customdata[i]))[0] || null,
  veiled: (document.getElementById('figure-plans').layout.shapes || [])
    .reduce((rows, shape) => rows + shape.y1 - shape.y0, 0),
  faded: document.querySelectorAll('#table-points tr.faded').length,
  bars: document.getElementById('figure-timeline').data.flatMap(t => t.selectedpoints || []).length,
  note: document.querySelector('.brush-note').hidden ? '' : document.querySelector('.brush-note').textContent,
  clicked: document.getElementById('clicked').hidden ? '' : document.querySelector('#clicked h3').textContent })"""

FILTER = """const box = document.querySelector('.tools[data-table="table-points"] input'); box.value = '{}';
  box.dispatchEvent(new Event('input'))"""


async def states(page: Path, actions: list[str]) -> list[dict[str, Any]]:
    """Return what is selected on the page after each action."""
    found = []
    async with Browser.open(str(find_browser())) as browser:
        await browser._do("Page.navigate", url=page.resolve().as_uri())

        async def value(expression: str) -> Any:
            answer = await browser._do("Runtime.evaluate", expression=expression, awaitPromise=True)
            assert "exceptionDetails" not in answer, answer
            return answer["result"].get("value")

        for _ in range(240):
            if await value(DRAWN):
                break
            await asyncio.sleep(0.25)
        for action in actions:
            await value("{" + action + "}")
            await asyncio.sleep(0.3)  # figures are drawn again one after the other
            found.append(json.loads(await value(STATE)))
    return found


@pytest.mark.skipif(find_browser() is None, reason="needs Chromium (Debian's package chromium)")
def test_a_selection_is_carried_to_every_figure_and_table(search: Path) -> None:
    front = read_tables(search).front
    trials, count = front["trial"].tolist(), len(front)
    first = trials[0]
    plans = "document.getElementById('figure-plans')"
    actions = [
        f"{plans}.emit('plotly_selected', {{ range: {{ x: [0, 5], y: [1.4, 0.2] }}, points: [] }})",
        "document.querySelector('.brush-note button').click()",
        f"document.getElementById('figure-front').emit('plotly_selected', {{ points: [{{ customdata: {first} }}] }})",
        FILTER.format("knee"),
        FILTER.format(""),
        f"{plans}.emit('plotly_click', {{ points: [{{ y: 2 }}] }})",
    ]
    rows, cleared, one, filtered, unfiltered, clicked = asyncio.run(states(write_report(search), actions))
    assert rows["front"] == trials[:2]  # the two rows that the rectangle touches
    assert (rows["veiled"], rows["faded"], rows["bars"]) == (count - 2, count - 2, 2)
    assert rows["note"].startswith("2 trials are selected")
    assert cleared == unfiltered == {"front": None, "veiled": 0, "faded": 0, "bars": 0, "note": "", "clicked": ""}
    assert one["front"] == [first]
    assert one["note"].startswith("1 trial is selected")
    knee = front[front["label"].str.contains("knee")]["trial"].tolist()
    assert (filtered["front"], filtered["veiled"]) == (knee, count - 1)
    assert clicked["clicked"].startswith(f"Trial {trials[2]}")
