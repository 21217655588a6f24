"""Read pip's requirements format into plain lines, so that a mistake shows before any run exists."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from mlflow_pytorch_estimator.environments.description.localpath import LocalRequirement, anchor, local_part
from mlflow_pytorch_estimator.environments.redaction import refuse_secret
from mlflow_pytorch_estimator.errors import EnvironmentSpecError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SHORT = {
    "-r": "--requirement",
    "-c": "--constraint",
    "-e": "--editable",
    "-i": "--index-url",
    "-f": "--find-links",
}
_FLAGS = ("--pre", "--no-index")
_KEPT = ("--index-url", "--extra-index-url", "--find-links", "--no-binary", "--only-binary")
_KNOWN = ("-r", "-c", "-e", *_KEPT, *_FLAGS, "--hash (after a requirement)")
_DIRECT = re.compile(r"(git|hg|svn|bzr)\+\S+|https?://\S+")


class RequirementReader:
    """Collects requirement lines; files named by ``-r`` and ``-c`` are read in place."""

    def __init__(self, root: Path) -> None:
        self.requirements: list[str] = []
        self.constraints: list[str] = []
        self._root = root
        self._open: list[Path] = []

    def add_file(self, path: Path, *, constraint: bool = False) -> None:
        """Add the lines of a requirements (or constraints) file."""
        path = path.resolve()
        name = self._name(path)
        if path in self._open:
            raise EnvironmentSpecError(f"{name}: the file includes itself")
        self._open.append(path)
        for number, line in logical_lines(read_text(path, name)):
            self.add_line(line, path.parent, f"{name}:{number}", constraint=constraint)
        self._open.pop()

    def add_line(self, line: str, folder: Path, where: str, *, constraint: bool = False) -> None:
        """Add one line, whose relative paths start at ``folder`` or at the project's root."""
        refuse_secret(line, where)
        if line.startswith("-"):
            for option, value in _options(line, where):
                self._add_option(option, value, folder, where, constraint=constraint)
            return
        target = self.constraints if constraint else self.requirements
        target.append(self._requirement(line, folder, where))

    def _add_option(self, option: str, value: str, folder: Path, where: str, *, constraint: bool) -> None:
        if option in ("--requirement", "--constraint"):
            if "://" in value:
                raise EnvironmentSpecError(
                    f"{where}: {option} of a URL is not supported; copy the file into the project"
                )
            file = self._root / anchor(value, (folder, self._root), self._root, where)
            self.add_file(file, constraint=constraint or option == "--constraint")
        elif option == "--editable":
            # The environment is shared and outlives the project folder: installed as a copy.
            self.add_line(value, folder, where, constraint=constraint)
        elif option == "--find-links" and ("://" not in value or value.startswith("file:")):
            self.requirements.append(f"{option} {anchor(value, (folder, self._root), self._root, where)}")
        else:
            self.requirements.append(f"{option} {value}".strip())

    def _requirement(self, line: str, folder: Path, where: str) -> str:
        from packaging.requirements import InvalidRequirement, Requirement

        local = LocalRequirement.parse(line)
        if local:
            return local.line(anchor(local.path, (folder, self._root), self._root, where))
        if _DIRECT.match(line):
            return line
        body, hashes = _split_hashes(line, where)
        try:
            parsed = Requirement(body)
        except InvalidRequirement as error:
            reason = str(error).splitlines()[0]
            raise EnvironmentSpecError(f"{where}: {body!r} is not a requirement: {reason}") from None
        return (body if parsed.url else str(parsed)) + hashes

    def _name(self, path: Path) -> str:
        root = self._root.resolve()
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def read_text(path: Path, name: str) -> str:
    """Return the text of a UTF-8 file, with or without a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise EnvironmentSpecError(f"{name}: not UTF-8 text") from None
    except OSError as error:
        raise EnvironmentSpecError(f"{name}: cannot be read: {error.strerror}") from None


def standalone_lines(path: Path) -> tuple[str, ...]:
    """Return the requirements of a file as lines that mean the same anywhere: files read in, local paths absolute."""
    reader = RequirementReader(path.parent)
    reader.add_file(path)
    if reader.constraints:
        raise EnvironmentSpecError(
            f"{path}: constraints (-c) cannot be kept in a list: write {reader.constraints[0]} as a requirement, "
            "or name the file where it is used"
        )
    return tuple(_absolute(line, path.parent) for line in reader.requirements)


def _absolute(line: str, folder: Path) -> str:
    local = local_part(line)
    return local.line(str((folder / local.path).resolve())) if local else line


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield (number of the first line, line): continuations joined, comments and blank lines gone."""
    pending, start = "", 0
    for number, raw in enumerate([*text.splitlines(), ""], 1):
        start = start if pending else number
        # As in pip, a comment line ends a continuation even when it ends with a backslash.
        if raw.endswith("\\") and not raw.lstrip().startswith("#"):
            pending += raw[:-1] + " "
            continue
        line = re.sub(r"(^|\s+)#.*$", "", pending + raw).strip()
        pending = ""
        if line:
            yield start, line


def _options(line: str, where: str) -> Iterator[tuple[str, str]]:
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise EnvironmentSpecError(f"{where}: {line!r}: {error}") from None
    while words:
        word = words.pop(0)
        if word.startswith("--"):
            option, equals, value = word.partition("=")
        else:
            option, value = _SHORT.get(word[:2], word), word[2:].removeprefix("=")
            equals = value
        if option in _FLAGS:
            yield option, ""
            continue
        if option not in _KEPT and option not in _SHORT.values():
            raise EnvironmentSpecError(f"{where}: option {option} is not supported here (known: {', '.join(_KNOWN)})")
        if not equals and words:
            value = words.pop(0)
        if not value:
            raise EnvironmentSpecError(f"{where}: option {option} needs a value")
        yield option, value


def _split_hashes(line: str, where: str) -> tuple[str, str]:
    """Return the requirement and its normalised ``--hash`` options."""
    body, *options = re.split(r"\s+(?=--)", line)
    hashes = [re.sub(r"^--hash[\s=]+", "", option) for option in options]
    for option, value in zip(options, hashes, strict=True):
        if option == value or ":" not in value:
            raise EnvironmentSpecError(f"{where}: {option} is not supported after a requirement, only --hash")
    return body, "".join(f" --hash={value}" for value in hashes)
