"""Say in the report which table is missing, where its section would be."""

from __future__ import annotations

from html import escape

from stepfront.tables.schema import TABLES
from stepfront.tables.search_tables import SearchTables


def missing_note(tables: SearchTables, *files: str) -> str:
    """Return a note for the tables among `files` that the search once had and that are missing; "" where none is."""
    gone = [name for name in files if name in tables.missing]
    if not gone:
        return ""
    verbs = dict.fromkeys(_remedy(TABLES[name].made_by, tables) for name in gone)
    are = "is" if len(gone) == 1 else "are"
    it = "it" if len(gone) == 1 else "them"
    return (
        f"<p><strong>{escape(', '.join(gone))} {are} missing</strong>, so nothing can be shown here. "
        f"To make {it} again: <code>{escape('; '.join(verbs))}</code></p>"
    )


def _remedy(made_by: str, tables: SearchTables) -> str:
    run = tables.directory.resolve().parent
    return f"stepfront doctor {run} --repair" if made_by == "search" else f"stepfront {made_by} {run}"
