"""README and docs: snippets run, commands exist, links lead somewhere, lines fit."""

import ast
import doctest
import re
import shlex
from pathlib import Path

import pytest
import typer

from milepost import ContentlessPayloads, Engine, Footprint
from milepost.cli.program import app
from milepost.embedded import embedded_folder

REPOSITORY = Path(__file__).parents[1]
README = REPOSITORY / "README.md"
PAGES = [README, *sorted((REPOSITORY / "docs").glob("*.md"))]
COMMANDS = typer.main.get_command(app).commands
MOST_COLUMNS = 110


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), flags=re.M | re.S)


def console_lines(page: Path) -> list[str]:
    """Return what is typed after a ``$``, continued lines joined."""
    text = "\n".join(blocks(page, "console")).replace("\\\n", " ")
    return [line[2:] for line in text.splitlines() if line.startswith("$ ")]


def prose(page: Path) -> list[str]:
    """Return the lines that are neither in a fence nor in a table, whose rows cannot be broken."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    return [line for line in text.splitlines() if not line.startswith("|")]


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets_are_python(page):
    for snippet in blocks(page, "python"):
        is_session = snippet.startswith(">>> ")
        ast.parse(doctest.script_from_examples(snippet) if is_session else snippet)


def test_each_example_is_drawn_into_its_page():
    """A formatter once made an expression of the marks, and the page showed that instead of the files."""
    page = (REPOSITORY / "docs" / "examples.md").read_text()
    drawn = re.findall(r'^```\{\.python\}\n--8<-- "(.*)"\n```$', page, flags=re.M)
    assert page.count("```") == 2 * len(drawn)
    examples = (REPOSITORY / "examples").glob("*.py")
    assert sorted(drawn) == sorted(f"examples/{each.name}" for each in examples)


def test_the_session_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    session, _ = blocks(README, "python")
    (tmp_path / "contract.txt").write_text("The parties agree on what follows. " * 40)
    monkeypatch.chdir(tmp_path)
    opened = Engine.open
    monkeypatch.setattr(Engine, "open", lambda model, **options: opened(embedded_folder(), **options))
    scope: dict = {}
    exec(session.replace("max_new_tokens=64", "max_new_tokens=2"), scope)
    assert scope["second"].report.reused > 0
    assert re.search(r"[\d,]+ of [\d,]+ prompt tokens reused", capsys.readouterr().out)


def test_the_library_snippet_of_the_readme_runs():
    _, library = blocks(README, "python")
    footprint = Footprint(checkpoint_bytes=77_900_000, kv_bytes_per_token=24_576)
    scope = {"tokens": range(1_000), "source": ContentlessPayloads(footprint, segment_tokens=256)}
    exec(library, scope)
    assert scope["placement"].positions
    assert scope["report"].checkpoints_stored == len(scope["placement"].positions)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page):
    for line in console_lines(page):
        words = shlex.split(line, comments=True)
        if words[0] == "make":
            targets = {word for word in words[1:] if "=" not in word}
            known = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.M)
            assert targets <= set(known), line
        if words[0].endswith("milepost"):
            options = {option for each in COMMANDS[words[1]].params for option in each.opts}
            assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_benchmarks_that_are_named_exist(page):
    for module in re.findall(r"python -m (benchmarks\.[\w.]+)", page.read_text()):
        path = REPOSITORY.joinpath(*module.split("."))
        assert path.is_dir() or path.with_suffix(".py").is_file(), module
    single = re.findall(r"python -m benchmarks (\w+)", page.read_text())
    usage = (REPOSITORY / "benchmarks" / "__main__.py").read_text()
    assert all(f'"{name}": ' in usage for name in single), single


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    named = re.findall(r"`((?:tests|tests_vllm|findings|examples|benchmarks)/[\w/.-]+)`", page.read_text())
    assert [name for name in named if not (REPOSITORY / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_fit(page):
    assert [line for line in prose(page) if len(line) > MOST_COLUMNS] == []
