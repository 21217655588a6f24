"""Each command that the documentation or a help text shows is one that the program takes as it stands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mlflow_pytorch_estimator.cli import main
from mlflow_pytorch_estimator.config import read_config
from mlflow_pytorch_estimator.project import read_project, settings

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(autouse=True)
def _files_of_others_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: self.coerce_path_result(value))


def parsed(words: list[str]) -> list[str]:
    """Go down the commands as click does, check all options and arguments; the names on the way."""
    command: click.Command = main
    context = click.Context(command, info_name="gpu-cluster")
    names: list[str] = []
    while isinstance(command, click.Group):
        assert words, f"no command after gpu-cluster {' '.join(names)}"
        found = command.get_command(context, words[0])
        assert found is not None, f"there is no command {words[0]!r}"
        command, context = found, click.Context(found, context, info_name=words[0])
        names.append(words[0])
        words = words[1:]
        if words in (["--help"], ["-h"]):
            return names
    command.make_context(names[-1], list(words), parent=context.parent)
    return names


def of_program(program: str, line: str) -> Iterator[list[str]]:
    """The words after the name of a program, for each of its commands in a line of shell."""
    words = shlex.split(line, comments=True)
    while program in words:
        words = words[words.index(program) + 1 :]
        ends = [index for index, word in enumerate(words) if word in {"&&", "||", "|", ";"}]
        yield words[: ends[0]] if ends else words


def shown(page: Path, program: str) -> list[str]:
    return [line[2:] for line in page.read_text().splitlines() if line.startswith(f"$ {program} ")]


def helps(command: click.Command = main, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each command's path and help text."""
    said = CliRunner().invoke(main, [*path, "--help"])
    assert said.exit_code == 0
    yield path, said.output
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from helps(below, (*path, name))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_are_taken(page: Path) -> None:
    for line in shown(page, "gpu-cluster"):
        for words in of_program("gpu-cluster", line):
            assert parsed(words), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_in_the_text_of_a_page_are_there(page: Path) -> None:
    for text in re.findall(r"`(gpu-cluster [^`\n]*)`", page.read_text()):
        words = text.split()[1:]
        if words[0].startswith("-") or words[0] == "COMMAND":
            continue
        command: click.Command | None = main.get_command(click.Context(main), words[0])
        assert command is not None, text
        if isinstance(command, click.Group) and len(words) > 1:
            command = command.get_command(click.Context(command), words[1])
            assert command is not None, text
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options, text


def test_the_examples_of_all_help_texts_are_taken() -> None:
    without = []
    for path, text in helps():
        lines = [line.strip() for line in text.splitlines() if line.strip().startswith(("gpu-cluster ", "eval "))]
        examples = [re.split(r"\s{2,}", line)[0] for line in lines if "COMMAND" not in line and "`" not in line]
        for line in examples:
            for words in of_program("gpu-cluster", line):
                assert parsed(words), line
        if path and not examples and not isinstance(command_of(path), click.Group):
            without.append(" ".join(path))
    assert without == []


def command_of(path: tuple[str, ...]) -> click.Command:
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    return command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_backend_configs_and_parameters_of_mlflow_run_are_legal(page: Path) -> None:
    project = read_project(ROOT)
    for line in shown(page, "mlflow"):
        words = next(of_program("mlflow", line))
        if words[:2] != ["run", "."]:
            continue
        options = dict(zip(words[2::2], words[3::2], strict=True))
        assert options["-b"] == "gpu-cluster", line
        entry = project.definition.get_entry_point(options.get("-e", "main"))
        read_config(options.get("-c", "{}"), whole=False)
        settings(project, entry.name)
        given = [words[index + 1].partition("=")[0] for index, word in enumerate(words) if word == "-P"]
        assert set(given) <= set(entry.parameters), line
