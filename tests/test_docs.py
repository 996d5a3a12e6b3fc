"""The README and docs/: what they name exists, and the commands in them parse."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from stepfront.plugins import FAMILIES, FEATURES, FORMATS, OBSERVERS, PROXIES, SCORES, SOLVERS
from stepfront.search.cli.main import app
from stepfront.search.config import RunSettings
from stepfront.search.settings_reference import groups, keys
from stepfront.tables.__main__ import markdown as tables_page
from tests.test_structure import MAY_IMPORT

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
CURRENT = [name for name in NAMES if name != "CHANGELOG.md"]  # the changelog also names what is gone

CODE_SPAN = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def code_lines(text: str) -> Iterator[str]:
    """Yield the lines of indented and fenced code, with continued lines joined."""
    joined = text.replace("\\\n", " ")
    for block in FENCED.findall(joined):
        yield from block.splitlines()
    yield from re.findall(r"^    .*", FENCED.sub("", joined), re.MULTILINE)


def spans(text: str) -> Iterator[str]:
    """Yield the code spans within sentences."""
    prose = re.sub(r"^    .*$", "", FENCED.sub("", text), flags=re.MULTILINE)
    yield from (" ".join(span.split()) for span in CODE_SPAN.findall(prose))


def commands(text: str, program: str) -> Iterator[list[str]]:
    """Yield the arguments of each call of a program."""
    for line in [*code_lines(text), *spans(text)]:
        for part in re.split(r"&&|;|\|(?= )", re.sub(r"\s#.*", "", line)):
            words = part.strip().removeprefix(".venv/bin/")
            if words.startswith(program + " "):
                yield shlex.split(words.removeprefix(program + " "))


def check_call(arguments: list[str]) -> None:
    """Raise click's UsageError, or fail, unless the command line knows the verb, its options and its arguments."""
    command = typer.main.get_command(app)
    names = ["stepfront"]
    while hasattr(command, "commands"):
        if arguments[0].startswith("-"):
            break
        assert arguments[0] in command.commands, f"{' '.join(names)} has no verb {arguments[0]!r}"
        command, names, arguments = command.commands[arguments[0]], [*names, arguments[0]], arguments[1:]
        if not arguments:
            break
    if not arguments:  # a mention of the verb alone
        return
    context = command.context_class(command, info_name=names[-1])
    values, rest, _ = command.make_parser(context).parse_args(list(arguments))
    assert not rest or hasattr(command, "commands"), f"{' '.join(names)} takes no argument {rest}"
    if "--help" in arguments:
        return
    for parameter in command.params:
        if parameter.param_type_name == "argument" and parameter.required and not rest:
            assert values.get(parameter.name), f"{' '.join(names)} needs {parameter.name}"


@pytest.mark.parametrize("name", CURRENT)
def test_every_call_of_stepfront_parses(name: str) -> None:
    for arguments in commands(text_of(name), "stepfront"):
        check_call(arguments)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("conjure configs/digits.yaml", "no verb 'conjure'"),
        ("search configs/digits.yaml --sset x=1", "--sset"),
        ("front runs/a runs/b", "takes no argument"),
        ("sample --point knee", "needs"),
    ],
)
def test_a_wrong_call_is_found(call: str, words: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - click's own, or an assertion
        check_call(call.split())
    assert words in str(caught.value) + str(getattr(caught.value, "message", ""))


ENTRY_POINTS = {registry.group for registry in (FAMILIES, FEATURES, FORMATS, OBSERVERS, PROXIES, SCORES, SOLVERS)}
SETTINGS = {key.key for key in keys(RunSettings)}
SETTINGS |= {key.key for name, group in groups(RunSettings) for key in keys(group, f"{name}.")}
GROUPS = {name for name, _ in groups(RunSettings)}


@pytest.mark.parametrize("name", CURRENT)
def test_every_setting_exists(name: str) -> None:
    text = text_of(name)
    named = set(re.findall(r"--set '?([a-z_.]+)=", text))
    for span in spans(text):
        if (match := re.match(r"([a-z_]+)\.([a-z_]+)(?![\w.])", span)) and match[1] in GROUPS:
            named.add(match[0])
    assert {
        key
        for key in named
        if key not in {*SETTINGS, *GROUPS} and not key.endswith((".py", ".md", ".yaml", ".parquet"))
    } == set()


@pytest.mark.parametrize("name", NAMES)
def test_every_program_and_make_target_exists(name: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    for words in commands(text_of(name), "make"):
        assert set(words) <= targets, words
    for module in re.findall(r"python -m ((?:benchmarks|stepfront)[\w.]*)", text_of(name)):
        assert importlib.util.find_spec(module) is not None, module


@pytest.mark.parametrize("name", NAMES)
def test_every_relative_link_resolves(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(name)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings of a page, as they are made by GitHub."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", CURRENT)
def test_every_file_and_module_exists(name: str) -> None:
    text = text_of(name)
    for dotted in set(re.findall(r"(?<![/\w])stepfront(?:\.[a-z_]\w*)+", text)) - ENTRY_POINTS:
        module, rest = dotted, []
        while importlib.util.find_spec(module) is None:
            module, _, last = module.rpartition(".")
            rest.append(last)
        found = importlib.import_module(module)
        assert len(rest) <= 1, dotted
        assert all(hasattr(found, attribute) for attribute in rest), dotted
    for span in spans(text):
        if re.fullmatch(
            r"(?:search|trainers|dashboards|tests|benchmarks|src|configs|deploy|docs|examples)/[\w./-]*", span
        ):
            assert (ROOT / span).exists(), span


def test_the_index_names_every_page_of_docs() -> None:
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", text_of("docs/index.md")))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"} == linked


def test_the_tables_of_rooms_name_the_rooms_that_exist_from_top_to_bottom() -> None:
    named = re.findall(r"^\| `((?:search|trainers|dashboards)/\w+)` \|", text_of("docs/architecture.md"), re.MULTILINE)
    folders = [folder for top in ("search", "trainers", "dashboards") for folder in (ROOT / top).iterdir()]
    rooms = {str(folder.relative_to(ROOT)) for folder in folders if (folder / "__init__.py").exists()}
    assert len(named) == len(set(named))
    assert set(named) == rooms
    for place, room in enumerate(named):
        above = [other for other in named[:place] if other.split("/")[0] == room.split("/")[0]]
        assert set(above).isdisjoint(MAY_IMPORT[room].split()), f"{room} stands below a room that it imports"


def test_the_page_of_tables_is_the_generated_one() -> None:
    assert text_of("docs/tables.md") == tables_page(), "docs/tables.md is stale; run: make docs"
