"""Embed the search's images in the page, halved until they fit."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path
from typing import Any

from stepfront.dashboards.formatting import decimal, short_plan, significant
from stepfront.tables.search_tables import SearchTables, number

SMALLEST_SIDE = 64  # pixels; below, nothing can be seen on a grid of images
PLAN_LENGTH = 120


def images_body(tables: SearchTables, room: int) -> str:
    """Return the pictures of images/index.json as HTML of at most `room` bytes.

    A file that is missing, is not an image or does not fit at 64 pixels is left out.
    """
    folder = tables.directory / "images"
    # Only names inside the folder: an index is data, and must not reach for other files.
    present = [entry for entry in tables.images if (folder / Path(str(entry.get("file"))).name).is_file()]
    figures = []
    for entry in present:
        caption = _caption(entry)
        # Base64 makes four characters of three bytes.
        most = 3 * (room // len(present) - len(caption) - 200) // 4
        content = fitting_png(folder / Path(str(entry["file"])).name, most)
        if content is not None:
            source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
            title = escape(str(entry.get("title") or ""))
            image = f'<img alt="{title}" src="{source}" data-file="{escape(str(entry["file"]))}">'
            figures.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    return f'<div class="images">{"".join(figures)}</div>' if figures else ""


def fitting_png(path: Path, most_bytes: int) -> bytes | None:
    """Return the file when it is small enough, else its image halved as often as needed; None when that fails."""
    from PIL import Image, UnidentifiedImageError

    content = path.read_bytes()
    try:
        image: Image.Image = Image.open(io.BytesIO(content), formats=["PNG"])
        image.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return None
    while len(content) > most_bytes:
        if min(image.size) < 2 * SMALLEST_SIDE:
            return None
        # Each two by two pixels become their mean.
        image = (image.convert("RGB") if image.mode == "P" else image).reduce(2)
        target = io.BytesIO()
        image.save(target, format="PNG")
        content = target.getvalue()
    return content


def _caption(entry: dict[str, Any]) -> str:
    facts = []
    if (gflops := number(entry.get("gflops"))) is not None:
        facts.append(f"{significant(gflops)} GFLOPs")
    if (fid := number(entry.get("fid"))) is not None:
        facts.append(f"FID {decimal(fid)}")
    title, plan = str(entry.get("title") or ""), short_plan(str(entry.get("plan") or ""), PLAN_LENGTH)
    return f"<b>{escape(title)}</b> {', '.join(facts)}<br>{escape(plan)}"
