"""Count what a reader finds, takes and leaves out, and keep what it guessed.

Each reader fills the one report of its reading.  `doctor` and `train` print it, and the supernet's card keeps it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Self

MOST_LINES = 9
_MOST_NAMED = 6


def shown(name: object) -> str:
    """Return a file's name for a message: one line, also where it is not UTF-8 or holds control characters."""
    text = str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


@dataclass
class ReadingReport:
    """What one reading found.  `found` counts the `unit`s (files, rows, ...) at `data.path`, `taken` the images."""

    unit: str = "files"
    found: int = 0
    taken: int = 0
    left_out: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Number and first name, by reason."""
    splits: dict[str, dict[str, int]] = field(default_factory=dict)
    """Numbers by what they are for (train, held_out, unused) and by the name that said so."""
    changed: dict[str, int] = field(default_factory=dict)
    """Number of images by what was done to their pixels."""
    notes: list[str] = field(default_factory=list)
    """What was guessed, and what to know: a sentence each."""
    class_names: tuple[str, ...] = ()
    """Names of the classes 0, 1, ...; empty without labels."""
    class_counts: tuple[int, ...] = ()
    classes_settled: bool = False
    """Whether the reader has mapped its labels already, to those of `class_names`."""
    drawn: str = ""
    """The sentence that says how many images were drawn at random to be held out; also among the notes."""
    deepest: int = -1
    """Largest value among images of 16 bits; -1 without such images."""

    def leave_out(self, reason: str, name: object = "", count: int = 1) -> None:
        """Count what is not read, with its reason and its name."""
        before, first = self.left_out.get(reason, (0, shown(name)))
        self.left_out[reason] = (before + count, first)

    def change(self, what: str, count: int = 1) -> None:
        """Count an image whose pixels were changed."""
        self.changed[what] = self.changed.get(what, 0) + count

    def note(self, sentence: str) -> None:
        """Keep a sentence, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def use(self, role: str, name: str, count: int = 1) -> None:
        """Count what is for `role` because of a name."""
        names = self.splits.setdefault(role, {})
        names[shown(name)] = names.get(shown(name), 0) + count

    def take(self, train: int, held_out: int, class_counts: tuple[int, ...]) -> None:
        """Keep the final numbers of images, and those of each class in training."""
        self.taken, self.class_counts = train + held_out, class_counts
        self.found = max(self.found, self.taken)

    @property
    def headline(self) -> str:
        """What was read from what, and what was left out, in one line."""
        classes = f" of {len(self.class_names)} class{'es' * (len(self.class_names) != 1)}" if self.class_names else ""
        line = f"read {self.taken:,} images{classes} from {self.found:,} {self.unit}"
        return f"{line}; left out: {self.left_out_line}" if self.left_out else line

    @property
    def left_out_line(self) -> str:
        """How many are left out, by reason; the first of the least expected reasons has a name."""
        reasons = sorted(self.left_out.items(), key=lambda item: (-item[1][0], item[0]))
        parts = []
        for reason, (count, first) in reasons[: _MOST_NAMED + 2]:
            named = first and first not in reason and not reason.startswith((".", "Thumbs", "desktop", "__MACOSX"))
            parts.append(f"{count:,} {reason}" + (f": first {first}" if named else ""))
        if more := reasons[_MOST_NAMED + 2 :]:
            parts.append(f"{sum(count for _, (count, _) in more):,} for {len(more)} other reasons")
        return f"{sum(count for count, _ in self.left_out.values()):,} ({', '.join(parts)})"

    def lines(self) -> list[str]:
        """Return the complete report, in at most nine lines."""
        lines = [self.headline]
        if self.splits:
            lines.append(
                "splits: " + "; ".join(_role(role, self.splits[role]) for role in _ROLES if role in self.splits)
            )
        if self.class_names:
            lines.append(f"classes: {self._classes()}")
        if self.changed:
            lines.append("pixels: " + ", ".join(f"{count:,} {what}" for what, count in self.changed.items()))
        room = MOST_LINES - len(lines)
        shown_notes = self.notes if len(self.notes) <= room else self.notes[: room - 1]
        lines += shown_notes
        if len(shown_notes) < len(self.notes):
            lines.append("; ".join(self.notes[len(shown_notes) :]))
        return lines

    @property
    def guesses(self) -> list[str]:
        """The lines beside the headline that a user should see before training: nothing where all is plain."""
        return [line for line in self.lines()[1:] if not line.startswith("classes: ") and line != self.drawn]

    def _classes(self) -> str:
        counts = self.class_counts or (0,) * len(self.class_names)
        pairs = list(zip(self.class_names, counts, strict=False))
        head = pairs if len(pairs) <= _MOST_NAMED * 2 else pairs[:_MOST_NAMED]
        text = ", ".join(f"{shown(name)} {count:,}" for name, count in head)
        if len(head) == len(pairs):
            return text
        fewest = min(pairs, key=lambda pair: pair[1])
        return f"{text}, ... ({len(pairs)} classes; fewest images: {shown(fewest[0])} {fewest[1]:,})"

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Return the report of `to_json`'s values."""
        names, counts = tuple(content.get("class_names", ())), tuple(content.get("class_counts", ()))
        left_out = {reason: (int(count), str(first)) for reason, (count, first) in content.get("left_out", {}).items()}
        return cls(**content | {"class_names": names, "class_counts": counts, "left_out": left_out})


_ROLES = {"train": "trains", "held_out": "is held out", "unused": "is not used"}


def _role(role: str, names: dict[str, int]) -> str:
    most = Counter(names).most_common(_MOST_NAMED)
    more = f" and {len(names) - len(most)} more" if len(names) > len(most) else ""
    return ", ".join(f"{name} ({count:,})" for name, count in most) + f"{more} {_ROLES[role]}"
