"""Compare several searches: make the sections of the page of `stepfront compare`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from stepfront.dashboards.claim import flops_saved, flops_saved_by_widths
from stepfront.dashboards.differing_settings import differing_settings, shown_value
from stepfront.dashboards.figures import (
    attainment_data,
    attainment_figure,
    comparison_figure,
    hypervolume_shares,
    plans_data,
    plans_figure,
    relative_data,
)
from stepfront.dashboards.figures.comparison import run_path, search_names
from stepfront.dashboards.formatting import MISSING, decimal, percent, plural, significant
from stepfront.dashboards.html.page import Section, embedded, html_table, paragraph
from stepfront.errors import InputError
from stepfront.tables.search_tables import SearchTables, fid_name, read_tables

MUST_AGREE = {"dataset": "data sets", "fingerprint": "data", "features": "features", "images": "numbers of images"}
"""Facts that must agree where FIDs are compared, each with the words for it."""

MUST_NOT_DIFFER = {"features_digest": "features"}
"""Facts that must agree where they are known; searches of older versions lack them."""

STEPPED = "Lower left is better. Each line shows the best FID that its search found at or below the cost."


def comparison_sections(searches: Sequence[SearchTables]) -> list[Section]:
    """Return the sections of the page.  Searches without a front are listed, but not drawn."""
    drawn = [tables for tables in searches if len(tables.front)]
    attained = _attainment(drawn) if len(drawn) > 1 and not unlike(drawn) else ""
    return [
        Section("searches", "The searches", _warning(searches) + _table(searches)),
        Section("settings", "Settings that differ", _settings(searches)),
        Section("fronts", "The fronts", _fronts(drawn)),
        Section("relative", "Relative to full width", _relative(drawn)),
        Section("attainment", "Attainment", attained),
        Section("plans", "Width per step", _plans(drawn)),
    ]


def parents_section(tables: SearchTables) -> str:
    """Say what a search took from those it started from, and draw its front beside theirs.

    One whose tables are missing is not drawn.
    """
    parents = []
    for path in tables.facts.get("parent_searches") or []:
        try:
            parents.append(read_tables(Path(str(path))))
        except InputError:
            continue
    searches = [tables, *(parent for parent in parents if len(parent.front))]
    worth = _worth_of_earlier(tables)
    if len(searches) < 2 or tables.front.empty:
        return worth
    drawn = _relative(searches) if unlike(searches) else ""
    return worth + _warning(searches) + (drawn or _fronts(searches))


def _worth_of_earlier(tables: SearchTables) -> str:
    """Say how many plans came from earlier fronts, with a table of the weight of each earlier model."""
    earlier = tables.facts.get("earlier") or []
    if not earlier:
        return ""
    taken = int(tables.trials["origin"].astype(str).str.startswith("front:").sum())
    note = paragraph(
        "Plans of these searches are mapped to this search's widths and steps, and teach the model of FID as far as "
        f"their ranks hold here. {taken} of this search's {plural(len(tables.trials), 'trial')} came from "
        "their fronts. A weight is an earlier search's share in the model after so many trials."
    )
    after = max((one["after"] for one in earlier), key=len)
    columns = ("search", ">trials", ">used", *(f">after {count}" for count in after))
    rows = [
        (
            one["name"],
            str(one["trials"]),
            "its front alone" if one.get("lacking") else str(one["usable"]),
            *([decimal(weight, 2) for weight in one["weight"]] or [MISSING] * len(after)),
        )
        for one in earlier
    ]
    return note + html_table(columns, rows)


def unlike(searches: Sequence[SearchTables]) -> str:
    """Return in what the searches differ, so that their FIDs can't be compared; "" where they can.

    FIDs compare only where images, features and number of samples are the same.
    """
    words = [word for key, word in MUST_AGREE.items() if len({_fact(t, key) for t in searches}) > 1]
    known = {key: {t.facts[key] for t in searches if key in t.facts} for key in MUST_NOT_DIFFER}
    words += [word for key, word in MUST_NOT_DIFFER.items() if len(known[key]) > 1]
    return ", ".join(dict.fromkeys(words))


def _fact(tables: SearchTables, key: str) -> str:
    return str(tables.facts.get(key))


def comparable_groups(searches: Sequence[SearchTables]) -> list[list[SearchTables]]:
    """Return the searches in groups whose FIDs can be compared with each other, in the order given."""
    groups: list[list[SearchTables]] = []
    for tables in searches:
        alike = next((group for group in groups if not unlike([*group, tables])), None)
        if alike is None:
            groups.append([tables])
        else:
            alike.append(tables)
    return groups


def _warning(searches: Sequence[SearchTables]) -> str:
    differing = unlike(searches)
    text = f"These FIDs can't be compared across searches: they differ in {differing}."
    return f"<p><strong>{escape(text)}</strong></p>" if differing else ""


def _table(searches: Sequence[SearchTables]) -> str:
    columns = ("search", "directory", "data set", "sampler", "features", ">images", ">trials", ">points")
    drawn = [tables for tables in searches if len(tables.front)]
    alike = len(drawn) > 1 and not unlike(searches)
    volumes = iter(hypervolume_shares([tables.front for tables in drawn]) if alike else [])
    rows = [
        (
            name,
            run_path(tables),
            tables.facts.get("dataset", MISSING),
            f"{tables.facts.get('steps', '')} {tables.facts.get('solver', '')}".strip() or MISSING,
            *(tables.facts.get(key, MISSING) for key in ("features", "images")),
            f"{len(tables.trials):,}",
            len(tables.front),
            decimal(tables.front.fid.min()),
            significant(tables.front.gflops.min()),
            percent(flops_saved(tables.savings)),
            percent(flops_saved_by_widths(tables.savings)),
            *([percent(next(volumes), 1) if len(tables.front) else MISSING] if alike else []),
        )
        for name, tables in zip(search_names(searches), searches, strict=True)
    ]
    last = (">best FID", ">least GFLOPs", ">saved", ">by widths", *([">hypervolume"] if alike else []))
    note = "Saved: share of the FLOPs of full width at all steps, where a claim of equal quality holds on both judges. "
    note += "By widths: share of the FLOPs of the cheapest full-width sampler of equal quality."
    note += " Hypervolume: share of what all fronts dominate together." if alike else ""
    return html_table((*columns, *last), rows) + paragraph(note)


def _fronts(searches: Sequence[SearchTables]) -> str:
    """Draw the fronts; those whose FIDs can't be compared each on axes of their own."""
    named = dict(zip(map(id, searches), search_names(searches), strict=True))
    groups = comparable_groups(searches)
    figures = []
    for place, group in enumerate(groups):
        fronts = {named[id(tables)]: tables.front for tables in group}
        name = "fronts" if len(groups) == 1 else f"fronts-{place}"
        caption = STEPPED if len(groups) == 1 else f"{', '.join(fronts)}. {STEPPED}"
        figures.append(embedded(name, comparison_figure(fronts, fid_name=fid_name(group)), caption))
    note = paragraph("FIDs that can't be compared are drawn on axes of their own.") if len(groups) > 1 else ""
    return note + "".join(figures)


def _settings(searches: Sequence[SearchTables]) -> str:
    differing = differing_settings(searches)
    if not differing:
        return paragraph("All settings of these searches are equal.") if len(searches) > 1 else ""
    rows = [(key, *(shown_value(value) for value in values)) for key, values in differing.items()]
    return html_table(("setting", *search_names(searches)), rows)


def _relative(searches: Sequence[SearchTables]) -> str:
    """Draw the fronts relative to full width; not where features differ, whose FIDs have no common scale even so."""
    if len({_fact(tables, "features") for tables in searches}) > 1:
        return ""
    fronts = relative_data(searches)
    if len(fronts) < 2 or len({tables.full for tables in searches}) == 1:
        return ""  # in units of one and the same full width, the figure would be the one above
    caption = "Each front in units of its own search's full width, which is the point (1, 1): ratios, not FIDs."
    return embedded("relative", comparison_figure(fronts, relative=True, fid_name=fid_name(searches)), caption)


def _attainment(searches: Sequence[SearchTables]) -> str:
    data = attainment_data([tables.front for tables in searches])
    caption = (
        "The FID that one, half or all of the searches reach at each cost. The closer the lines, the less luck matters."
    )
    return embedded("attainment", attainment_figure(data, len(searches), fid_name(searches)), caption)


def _plans(searches: Sequence[SearchTables]) -> str:
    parts = []
    for place, (name, tables) in enumerate(zip(search_names(searches), searches, strict=True)):
        data = plans_data(tables)
        if data.widths.size:
            caption = f"Plans of {name}, the cheapest at the bottom."
            body = embedded(f"plans-{place}", plans_figure(data), caption)
            parts.append(f"<div><h3>{escape(name)}</h3>{body}</div>")
    return f'<div class="beside">{"".join(parts)}</div>' if parts else ""
