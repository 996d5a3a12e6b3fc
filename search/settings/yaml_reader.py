"""Read YAML as people mean it: what YAML 1.1 reads as something else is refused, with key and line.

YAML 1.1 reads `0200` as 128, `10:00` as 600 and `2026-01-01` as a date, and of a key that stands twice it keeps the
last.  None of these is ever meant in a settings file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NoReturn

import yaml

from stepfront.errors import InputError, first_line
from stepfront.tables.schema import SETTINGS_FILE

MOST_VALUES = 10_000
"""Values of a settings file, each alias counted as often as it is used: a small file must not become a large one."""

LARGEST = 2**63 - 1
"""No table and no generator of random numbers takes a larger whole number."""

_ENCODINGS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe\x00\x00": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_TAG = "tag:yaml.org,2002:"
_SCALARS = {_TAG + kind for kind in ("str", "int", "float", "bool", "null", "value")}
_GROUPS = {_TAG + kind for kind in ("map", "seq")}
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")


class _Loader(yaml.SafeLoader):
    """Safe YAML loader that reads 1e-3 as a number; YAML 1.1 reads it as a word."""


class _Dumper(yaml.SafeDumper):
    """Safe YAML dumper that puts texts in quotes which the loader would read otherwise, such as '1e5' and '089'."""


_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
_Loader.add_implicit_resolver(_TAG + "float", _EXPONENT, list("-+0123456789"))
_Dumper.add_implicit_resolver(_TAG + "float", _EXPONENT, list("-+0123456789"))
_Dumper.add_implicit_resolver(_TAG + "int", re.compile(_LEADING_ZERO.pattern + "$"), list("-+0"))


def yaml_of(content: Any) -> str:
    """Return plain values as the text of a settings file, which reads as the same values again."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def decode(content: bytes) -> str:
    """Return the text of a file: UTF-8, or what its byte-order mark says.

    Raises UnicodeDecodeError for anything else.
    """
    encoding = next((name for mark, name in _ENCODINGS.items() if content.startswith(mark)), "utf-8")
    return content.decode(encoding)


def read_yaml_file(path: Path) -> Any:
    """Return the content of a settings file.

    Raises InputError with one line when the file is missing, is not YAML, or says something other than it seems to.
    """
    try:
        text = decode(path.read_bytes())
    except FileNotFoundError:
        known = ", ".join(str(p) for p in sorted(path.parent.glob("*.yaml"))[:8]) if path.parent.is_dir() else ""
        there = (
            f"give one of those there: {known}"
            if known
            else "give a YAML file, such as configs/digits.yaml, or write one: stepfront init FILE"
        )
        raise InputError(f"no settings file {path}; {there}") from None
    except IsADirectoryError:
        raise InputError(_instead_of(path)) from None
    except OSError as error:
        raise InputError(f"{path} can't be read: {error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    try:
        return read_yaml(text, str(path))
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {_told(error)}") from None


def _instead_of(folder: Path) -> str:
    """Return what is to be given instead of a folder."""
    kind = folder.absolute().name
    searches, supernets = ((folder / name, *([folder] if kind == name else [])) for name in ("search", "supernet"))
    if any((search / SETTINGS_FILE).is_file() for search in searches):
        return (
            f"{folder} is a run, not a settings file; continue it with `stepfront resume {folder}`, or give a settings "
            "file such as configs/digits.yaml"
        )
    for supernet in supernets:
        if (supernet / SETTINGS_FILE).is_file():
            return f"{folder} holds a supernet and is not a settings file; give its own: {supernet / SETTINGS_FILE}"
    return f"{folder} is a directory, not a settings file; give one such as configs/digits.yaml"


def read_yaml(text: str, source: str = "", keys: tuple[str, ...] = ()) -> Any:
    """Return the content of a YAML text, which stands at `keys`: null, numbers, texts, booleans, lists and groups.

    Raises yaml.YAMLError when the text is not YAML, and InputError, which names `source`, key and line, where YAML
    would read something other than it seems to say.
    """
    where = f"{source}: " if source else ""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _Check(source).walk(node, keys)
        return loader.construct_document(node)
    except RecursionError:
        raise InputError(f"{where}the values are nested too deeply for settings") from None
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where}{first_line(error)}") from None
    finally:
        loader.dispose()


def _told(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        parts = [part for part in (error.problem, error.context) if part]
        return f"line {error.problem_mark.line + 1}: {', '.join(parts)}"
    return " ".join(str(error).split())


class _Check:
    """Refuse what would be read as something other than it seems to say, in all nodes of a document."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._seen = 0
        self._above: list[yaml.Node] = []

    def walk(self, node: yaml.Node, keys: tuple[str, ...]) -> None:
        """Check a node at the key `keys` and all below it."""
        self._seen += 1
        if self._seen > MOST_VALUES:
            self._refuse(node, keys, f"there are more than {MOST_VALUES:,} values, which no settings have")
        if any(node is one for one in self._above):
            self._refuse(node, keys, "the anchor contains itself; write the value out instead of an alias")
        if isinstance(node, yaml.ScalarNode):
            self._scalar(node, keys)
            return
        if node.tag not in _GROUPS:
            self._refuse(node, keys, f"the tag {node.tag} is not possible; omit it")
        self._above.append(node)
        if isinstance(node, yaml.MappingNode):
            self._mapping(node, keys)
        else:
            for one in node.value:
                self.walk(one, keys)
        self._above.pop()

    def _mapping(self, node: yaml.MappingNode, keys: tuple[str, ...]) -> None:
        lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._refuse(key, keys, "a list or a group can't be a key; keys are texts")
            name = key.value
            if key.tag == _TAG + "merge":  # `<<: *base`, whose keys the others may override
                self.walk(value, keys)
                continue
            if key.tag not in {_TAG + "str", _TAG + "value"}:
                kind = key.tag.removeprefix(_TAG)
                self._refuse(key, keys, f"the key {name} is read as {kind}, not as text; put it in quotes")
            if name in lines:
                why = f"this key stands twice, first in line {lines[name]}; keep one of them"
                self._refuse(key, (*keys, name), why)
            lines[name] = key.start_mark.line + 1
            self.walk(value, (*keys, name))

    def _scalar(self, node: yaml.ScalarNode, keys: tuple[str, ...]) -> None:
        why = _misread(node)
        if why is None and node.tag not in _SCALARS:
            why = f"the tag {node.tag} is not possible; omit it"
        if why is not None:
            self._refuse(node, keys, why)

    def _refuse(self, node: yaml.Node, keys: tuple[str, ...], why: str) -> NoReturn:
        at = f"{self._source}, line {node.start_mark.line + 1}" if self._source else ""
        raise InputError(": ".join(part for part in (at, ".".join(keys), why) if part))


def _misread(node: yaml.ScalarNode) -> str | None:
    """Return why a value is not what it seems to be, and what to write; None for most values."""
    text, kind = node.value, node.tag.removeprefix(_TAG)
    if kind == "timestamp":
        return f"{text} is a date in YAML, and no setting is a date; put it in quotes if it is a text"
    if node.style is None and _LEADING_ZERO.fullmatch(text):  # 08 and 09 would be texts, 07 and 010 octal numbers
        digits = text.replace("_", "").lstrip("+-0") or "0"
        return f"{text} has a leading zero, which is octal in YAML; write {digits}, or put it in quotes if it is a text"
    if kind in {"int", "float"} and ":" in text:
        return f"{text} is a number to the base 60 in YAML; write one number, or put it in quotes if it is a text"
    if kind == "int" and (len(text) > 100 or abs(int(text.replace("_", ""), 0)) > LARGEST):
        shown = text if len(text) <= 40 else f"{text[:20]}... ({len(text)} characters)"
        return f"{shown} is too large; the largest whole number possible is {LARGEST}"
    return None
