"""Decide by names what trains and what is held out: one rule for folders, files and arrays.

The words may stand in any case, as a name or as a part of one: `Training`, `seg_test`, `mnist-valid-00000`, `val2017`.
Held out is what is called validation, or else what is called test; a test set beside a validation set is not used.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

from stepfront.errors import InputError
from stepfront.trainers.config import DataSettings
from stepfront.trainers.data.reading_report import shown

Kind: TypeAlias = Literal["train", "val", "test", "other"]
"""What a name says; `other` is said by `data.splits` or by standing beside a split."""

Folders: TypeAlias = tuple[str, ...]

_WORDS: dict[str, Kind] = {
    **dict.fromkeys(("train", "training", "trainset", "trainingset", "traindata", "trainval", "trn"), "train"),
    **dict.fromkeys(("imagestr", "labelstr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "valset", "validationset", "dev", "devset"), "val"),
    **dict.fromkeys(("devel", "development", "heldout", "holdout"), "val"),
    **dict.fromkeys(("test", "tests", "testing", "testset", "testdata", "tst", "eval", "evaluation", "t10k"), "test"),
    **dict.fromkeys(("imagests", "labelsts"), "test"),
}
_FILLERS = {
    *("image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "data", "dataset", "set", "folder"),
    *("split", "splits", "the", "of", "files", "batch", "png", "jpg", "jpeg", "x", "part", "shard"),
}
_TOKEN = re.compile(r"t10k|[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_MOST_STRAY = 0.2

FEWEST_HELD_OUT = 32
"""Pictures that the examination of features needs; a smaller validation split is joined by the test split."""


def tokens(name: str) -> list[str]:
    """Return the words of a name in lower case: `TrainImages_2017` gives train, images."""
    return [word.lower() for word in _TOKEN.findall(name)]


def kind_of(name: str) -> Kind | None:
    """Return what a name says, as a whole or by one of its words; None where it says nothing, or two things."""
    whole = re.sub(r"[^a-z]", "", name.lower())
    if whole in _WORDS:
        return _WORDS[whole]
    found = {_WORDS[word] for word in tokens(name) if word in _WORDS}
    return found.pop() if len(found) == 1 else None


def names_a_split(name: str) -> bool:
    """Return whether a name is that of a split and of nothing else: `Test_Images` is, `seg_test` is not."""
    return kind_of(name) is not None and not residue(name)


def residue(name: str) -> str:
    """Return the words of a name that are not about splits: `train_cats_01` gives cats."""
    if re.sub(r"[^a-z]", "", name.lower()) in _WORDS:
        return ""
    return " ".join(word for word in tokens(name) if word not in _WORDS and word not in _FILLERS)


def split_files(names: Sequence[str], settings: DataSettings) -> list[Kind]:
    """Return for each file or array what it is for; a name's own word goes before those of its folders.

    Without a word, a file trains; beside files that are called train it is not used.  The caller passes the result to
    `choose_held_out`.
    """
    if settings.splits is not None:
        stems = [name.rpartition("/")[2] for name in names]
        folders = [tuple(name.split("/")[:-1]) for name in names]
        return _split_by_settings(folders, stems, settings.splits)[0]
    found: list[Kind | None] = []
    for name in names:
        said = [kind_of(part) for part in reversed(name.split("/"))]
        found.append(next((kind for kind in said if kind is not None), None))
    beside: Kind = "other" if "train" in found else "train"
    return [kind or beside for kind in found]


def choose_held_out(kinds: Iterable[Kind], fewest: int = 1) -> dict[Kind, str]:
    """Return what each kind is for: `train`, `held_out` or `unused`.

    A validation split of less than `fewest` pictures is joined by the test split.
    """
    roles: dict[Kind, str] = {"train": "train", "val": "held_out", "test": "held_out", "other": "unused"}
    return roles | {"test": "unused"} if list(kinds).count("val") >= fewest else roles


def split_folders(
    folders: Sequence[Folders], stems: Sequence[str], settings: DataSettings, place: str
) -> tuple[list[Kind], list[Folders], list[str]]:
    """Return for pictures in `folders` what each is for, its remaining folders, and the name that said so.

    Folders are looked at level by level from the outermost on, then the files' own names (`stems`).  Raises InputError
    where a name may be a split or a class.
    """
    if settings.splits is not None:
        return _split_by_settings(folders, stems, settings.splits)
    level = _level(folders, place)
    if level is not None:
        return _split_at(folders, level)
    said = [kind_of(stem) for stem in stems]
    covered = sum(kind is not None for kind in said)
    if "train" in said and {"val", "test"} & set(said) and covered >= (1 - _MOST_STRAY) * len(stems):
        kinds: list[Kind] = [kind or "other" for kind in said]
        return kinds, list(folders), [f"*{kind}*" for kind in kinds]
    held = [
        kind if kind in ("val", "test") and names_a_split(stem) else None
        for kind, stem in zip(said, stems, strict=True)
    ]
    if any(held) and not all(held):
        kinds = [kind or "train" for kind in held]
        return kinds, list(folders), [f"{kind}*" if kind else "the others" for kind in held]
    return ["train"] * len(folders), list(folders), [""] * len(folders)


def _level(folders: Sequence[Folders], place: str) -> int | None:
    """Return the level of folders that are splits; None where there is none."""
    depth = max(map(len, folders), default=0)
    for level in range(depth):
        names = Counter(path[level] for path in folders if len(path) > level)
        plain = {kind_of(name) for name in names if names_a_split(name)}
        if "train" in plain and plain & {"val", "test"}:
            _refuse_a_class_called_train(folders, level, names, place)
            return level
        if _parts_of_names(names):
            return level
    for level in range(depth):
        names = Counter(path[level] for path in folders if len(path) > level)
        if any(_held_alone(name, names) for name in names):
            return level
        if any(kind_of(name) == "train" and names_a_split(name) for name in names):
            return _level_of_train_alone(folders, level, names, place)
    return None


def _parts_of_names(names: Counter[str]) -> bool:
    """Return whether folders such as seg_train and seg_test are splits: nearly all are, or they differ in it alone."""
    trains = {residue(name) for name in names if kind_of(name) == "train"}
    held = {residue(name) for name in names if kind_of(name) in ("val", "test")}
    unknown = sum(count for name, count in names.items() if kind_of(name) is None)
    return bool(trains and held and (trains & held or unknown <= _MOST_STRAY * names.total()))


def _held_alone(name: str, siblings: Iterable[str]) -> bool:
    """Return whether a folder without a sibling called train is a held-out split: `test`, or `cats_test` by `cats`."""
    if kind_of(name) not in ("val", "test"):
        return False
    rest = residue(name)
    return not rest or any(" ".join(tokens(other)) == rest for other in siblings)


def _level_of_train_alone(folders: Sequence[Folders], level: int, names: Counter[str], place: str) -> int | None:
    inner = any(len(path) > level + 1 and kind_of(path[level]) == "train" for path in folders)
    if len(names) == 1:
        return level
    if not inner:
        return None  # one class of several
    others = ", ".join(shown(name) for name in sorted(names))
    raise InputError(
        f"{place}: a folder called train beside others ({others[:200]}) may be the split or a class; set data.splits, "
        "such as {train: train}, or {} where all of them are classes"
    )


def _refuse_a_class_called_train(folders: Sequence[Folders], level: int, names: Counter[str], place: str) -> None:
    """Raise InputError where folders called train and test stand among many more pictures in other folders."""
    inner = any(len(path) > level + 1 and names_a_split(path[level]) for path in folders)
    others = [name for name in names if kind_of(name) is None]
    if not inner and len(others) > 1 and sum(names[name] for name in others) > names.total() / 2:
        raise InputError(
            f"{place}: folders called train and test stand beside {len(others)} others ({shown(others[0])}, ...); set "
            "data.splits, such as {train: train, test: held_out}, or {} where all of them are classes"
        )


def _split_at(folders: Sequence[Folders], level: int) -> tuple[list[Kind], list[Folders], list[str]]:
    names = {path[level] for path in folders if len(path) > level}
    has_train = any(kind_of(name) == "train" for name in names)
    kinds: list[Kind] = []
    for path in folders:
        name = path[level] if len(path) > level else ""
        kind = kind_of(name) if has_train or _held_alone(name, names) else None
        kinds.append(kind or ("other" if has_train else "train"))
    said = [path[level] + "/" if len(path) > level else "beside the splits" for path in folders]
    rest = _classes_in_names(folders, level, kinds)
    return kinds, rest, said


def _classes_in_names(folders: Sequence[Folders], level: int, kinds: Sequence[Kind]) -> list[Folders]:
    """Remove the level of the splits; what a name says beyond its split (trainA, trainB) stays where classes differ."""
    named: dict[Kind, list[Folders]] = {}
    for path, kind in zip(folders, kinds, strict=True):
        if len(path) > level and kind_of(path[level]) == kind:
            named.setdefault(kind, []).append(path)
    residues = {kind: {residue(path[level]) for path in paths} for kind, paths in named.items()}
    around = [{path[:level] for path in paths} for paths in named.values()]
    train = residues.get("train", set())
    in_names = len(train) > 1 and all(found <= train for found in residues.values())
    apart = len(around) > 1 and not set.intersection(*around)  # a1/train/, a2/test/
    doubled = {kind: _doubled(paths, level) for kind, paths in named.items()}
    result = []
    for path, kind in zip(folders, kinds, strict=True):
        if len(path) <= level or kind_of(path[level]) != kind:
            result.append(path)
            continue
        name = (residue(path[level]),) if in_names else ()
        result.append((*(() if apart else path[:level]), *name, *path[level + 1 + doubled[kind] :]))
    return result


def _doubled(paths: Sequence[Folders], level: int) -> int:
    """Return how many folders inside a split repeat its name, as seg_train/seg_train/ does."""
    count = 0
    while all(path[level + count + 1 : level + count + 2] == path[level : level + 1] for path in paths):
        count += 1
    return count


_MEANT: dict[str, Kind] = {"train": "train", "held_out": "val", "unused": "other"}


def _named_in(parts: Sequence[str], splits: Mapping[str, str]) -> tuple[int, str] | None:
    """Return the position of the outermost part that `data.splits` names, and its key there."""
    for position, part in enumerate(parts):
        for pattern in splits:
            if fnmatchcase(part.lower(), pattern.strip("/").lower()):
                return position, pattern
    return None


def _default(splits: Mapping[str, str]) -> Kind:
    return "other" if "train" in splits.values() else "train"


def _split_by_settings(
    folders: Sequence[Folders], stems: Sequence[str], splits: Mapping[str, str]
) -> tuple[list[Kind], list[Folders], list[str]]:
    kinds: list[Kind] = []
    rests, said = [], []
    for path, stem in zip(folders, stems, strict=True):
        named = _named_in((*path, stem), splits)
        position, pattern = named or (len(path), "")
        kinds.append(_MEANT[splits[pattern]] if named else _default(splits))
        rests.append((*path[:position], *path[position + 1 :]))
        said.append(pattern if named else "the others" if splits else "")
    return kinds, rests, said
