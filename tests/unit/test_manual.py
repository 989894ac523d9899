"""The manual pages say what the programs do: options, defaults, statuses, examples."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import click
import pytest

import byteback
from byteback.cli import _boundary
from byteback.cli import receive as receive_cli
from byteback.errors import EXIT_STATUSES
from byteback.server.store.settings import ServerSettings

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = CHECKOUT / "man"
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
PROGRAMS: dict[str, str] = PROJECT["scripts"]
SECTIONS = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "FILES"]
SECTIONS += ["EXAMPLES", "SEE ALSO"]
# Every program can be called wrongly or have a bug, whatever its help lists.
ALWAYS_POSSIBLE = {2, 70}

each_program = pytest.mark.parametrize("program", sorted(PROGRAMS))
each_page = pytest.mark.parametrize(
    "page", sorted(PAGES.iterdir()), ids=lambda page: page.name
)


class CapturedError(Exception):
    """Carries the command of a program that makes it only when it is asked for."""


def command_of(program: str, monkeypatch: pytest.MonkeyPatch) -> click.Command:
    module = importlib.import_module(PROGRAMS[program].partition(":")[0])
    if hasattr(module, "command"):
        found = module.command
        assert isinstance(found, click.Command)
        return found

    def capture(command: click.Command) -> None:
        raise CapturedError(command)

    monkeypatch.setattr(_boundary, "run", capture)
    with pytest.raises(CapturedError) as caught:
        receive_cli._help()
    found = caught.value.args[0]
    assert isinstance(found, click.Command)
    return found


def parameters_of(command: click.Command) -> list[click.Parameter]:
    """Its own, and those of its subcommands; one that several have counts once."""
    found = list(command.params)
    for subcommand in getattr(command, "commands", {}).values():
        names = {parameter.name for parameter in found}
        found += [one for one in subcommand.params if one.name not in names]
    return found


def parse(command: click.Command, name: str, arguments: list[str]) -> None:
    """Parse a command line, a subcommand's too; raises click.UsageError."""
    context = command.make_context(name, list(arguments))
    if isinstance(command, click.Group):
        word, subcommand, rest = command.resolve_command(context, arguments)
        assert word is not None
        assert subcommand is not None
        subcommand.make_context(word, rest, parent=context)


def page_of(program: str) -> str:
    return (PAGES / f"{program}.1").read_text()


def plain(text: str) -> str:
    """Text without roff's escapes and font requests."""
    text = re.sub(r"\\f(\[.*?\]|.)", "", text)
    text = re.sub(r"\\[ &|^]", "", text).replace("\\-", "-").replace("\\(bu", "")
    text = text.replace("\\(aq", "'").replace("\\e", "\\")
    return "\n".join(_without_request(line) for line in text.splitlines())


def _without_request(line: str) -> str:
    match = re.match(r"\.(B|I|BI|BR|IB|IR|RB|RI|SH|SS)\s+(.*)", line)
    if match is None:
        return line
    words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', match[2])]
    return ("" if len(match[1]) == 2 else " ").join(words)


def sections_of(text: str) -> dict[str, str]:
    parts = re.split(r"^\.SH (.*)$", text, flags=re.MULTILINE)
    names = [name.strip('"') for name in parts[1::2]]
    return dict(zip(names, parts[2::2], strict=True))


def tagged(section: str) -> dict[str, str]:
    """The tagged paragraphs of a section: each tag, and the text below it."""
    found = {}
    for part in re.split(r"^\.TP.*\n", section, flags=re.MULTILINE)[1:]:
        tag, _, text = part.partition("\n")
        found[plain(tag)] = plain(text)
    return found


def options_of(program: str) -> dict[str, str]:
    """Every option that a page documents, with the text that describes it."""
    found = {}
    for tag, text in tagged(sections_of(page_of(program))["OPTIONS"]).items():
        for word in re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", tag):
            assert word not in found, f"{word} is described twice"
            found[word] = text
    return found


@each_program
def test_page_has_every_section_in_order(program: str) -> None:
    names = list(sections_of(page_of(program)))
    assert [name for name in names if name in SECTIONS] == SECTIONS


@each_page
def test_head_names_the_page_and_the_version(page: Path) -> None:
    name, number = page.stem, page.suffix[1:]
    head = page.read_text().splitlines()[0]
    assert re.fullmatch(
        rf"\.TH {re.escape(name.upper())} {number} \d{{4}}-\d\d-\d\d "
        rf'"byteback {re.escape(byteback.__version__)}" "byteback"',
        head,
    )
    described = plain(sections_of(page.read_text())["NAME"]).strip()
    assert described.startswith(f"{name} - ")


@each_program
def test_synopsis_begins_with_the_program(program: str) -> None:
    synopsis = plain(sections_of(page_of(program))["SYNOPSIS"]).strip()
    assert synopsis.split()[0] == program


@each_program
def test_options_are_the_programs_own(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = command_of(program, monkeypatch)
    real = {"-h", "--help"}
    for parameter in parameters_of(command):
        if isinstance(parameter, click.Option):
            real |= {*parameter.opts, *parameter.secondary_opts}
    assert set(options_of(program)) == real


@each_program
def test_defaults_are_the_programs_own(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = options_of(program)
    for parameter in parameters_of(command_of(program, monkeypatch)):
        if not isinstance(parameter, click.Option) or parameter.is_flag:
            continue
        shown = re.search(r"\[default: ([^\]]*)\]", parameter.help or "")
        given = parameter.to_info_dict()["default"]  # None, however click notes that
        default = shown[1].split()[-1] if shown else given
        if default in (None, (), ""):
            continue
        text = described[parameter.opts[-1]]
        assert "efault" in text, f"{parameter.opts[-1]} has the default {default}"
        assert str(default) in text


@each_program
def test_exit_statuses_are_the_programs_own(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    epilog = command_of(program, monkeypatch).epilog or ""
    real = {int(number) for number in re.findall(r"^ +(\d+) ", epilog, re.MULTILINE)}
    tags = tagged(sections_of(page_of(program))["EXIT STATUS"])
    documented = {int(tag) for tag in tags if tag.isdigit()}
    assert real <= documented
    assert documented - real <= ALWAYS_POSSIBLE
    assert documented <= set(EXIT_STATUSES)


def test_overview_has_the_table_of_exit_statuses() -> None:
    sections = sections_of((PAGES / "byteback.7").read_text())
    table = {
        int(tag): text.strip()
        for tag, text in tagged(sections["EXIT STATUS"]).items()
        if tag.isdigit()
    }
    assert table == EXIT_STATUSES


def test_overview_has_every_key_of_the_servers_settings() -> None:
    sections = sections_of((PAGES / "byteback.7").read_text())
    described = tagged(sections["CONFIGURATION OF THE SERVER"])
    for name in ServerSettings._fields:
        default = getattr(ServerSettings(), name)
        shown = f"{default:g}" if isinstance(default, float) else str(default)
        if isinstance(default, bool):
            shown = shown.lower()  # as TOML has it
        ends = " ".join(described.pop(name).split("\n\n")[0].split())
        assert f"Default: {shown}" in ends
    assert not described


@each_program
def test_examples_are_command_lines_that_parse(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    for line in example_lines(page_of(program)):
        words = shlex.split(line)
        names = [word for word in words if word in PROGRAMS]
        if not names or "ssh" in words:
            continue
        name = names[0]
        arguments = words[words.index(name) + 1 :]
        command = command_of(name, monkeypatch)
        if not {"--help", "--version"} & set(arguments):
            parse(command, name, arguments)
        seen.add(name)
    # sshd alone runs it: its example is of a request.
    assert program in seen or program == "byteback-receive"


def example_lines(text: str) -> list[str]:
    """The commands of a page's examples, prompts and what follows a pipe cut off."""
    blocks = re.findall(
        r"^\.(?:nf|EX)\n(.*?)^\.(?:fi|EE)",
        sections_of(text)["EXAMPLES"],
        re.MULTILINE | re.DOTALL,
    )
    joined = plain("".join(blocks)).replace("\\\n", " ")
    lines = [re.sub(r"^[#$] ", "", line) for line in joined.splitlines()]
    commands = [re.split(r" [|<>]", line)[0] for line in lines]
    return [line for line in commands if re.search(r"(^|\s)byteback-[a-z]", line)]


def test_every_other_page_is_there() -> None:
    known = {f"{program}.1" for program in PROGRAMS} | {"byteback.7"}
    assert {page.name for page in PAGES.iterdir()} == known


@each_page
def test_page_passes_mandocs_lint(page: Path) -> None:
    mandoc = shutil.which("mandoc")
    if mandoc is None:
        pytest.skip("mandoc is not installed")
    done = subprocess.run(
        [mandoc, "-T", "lint", "-W", "warning", page],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stdout
    assert done.returncode == 0


@each_page
def test_pages_refer_to_pages_that_exist(page: Path) -> None:
    text = plain(sections_of(page.read_text())["SEE ALSO"])
    for name, number in re.findall(r"(byteback[\w-]*) ?\((\d)\)", text):
        assert (PAGES / f"{name}.{number}").exists()
