"""Names of artifacts and places on disk: neither the user's nor the server's may lead out of its folder."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from urllib.parse import unquote, urlparse, urlunparse

from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException

# MLflow decodes %XX once more on the way, cuts a URL at "#" and "?", and takes "c:" and "file:" for absolute.
_CHANGED_ON_THE_WAY = re.compile(r"[#?\\]|%[0-9A-Fa-f]{2}")
_ANCHORED = re.compile(r"([A-Za-z]|file):", re.IGNORECASE)
_MAX_COMPONENT_BYTES = 255


def clean(name: object, what: str, *, root: bool = False, error: type[UserErrorException] = UserErrorException) -> str:
    """A relative path with ``/``, without ``.`` and empty parts; ``root`` allows the top folder, which is ``""``.

    Raises ``error`` for a name that leads out of its folder, or that MLflow would store under another name.
    """
    if not isinstance(name, str):
        raise error(f"{what} is {name!r}, a {type(name).__name__}; it must be text such as 'outputs/model.pt'")
    reason = _refusal(name)
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if reason is None:
        reason = _change("/".join(parts)) if parts or root else "it names no file"
    if reason is not None:
        raise error(f"{what} {_shown(name)}: {reason}; use a relative path such as 'outputs/model.pt'")
    return "/".join(parts)


def _refusal(name: str) -> str | None:
    if any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in name):
        return "it holds a control character or broken Unicode"
    if name.startswith("/"):
        return "it is absolute"
    if found := _CHANGED_ON_THE_WAY.search(name):
        return f"MLflow cannot keep {found.group()!r} in a name"
    return next(filter(None, map(_refusal_of_part, name.split("/"))), None)


def _change(name: str) -> str | None:
    """MLflow reads names as URLs: ``a;`` would be ``a``, another file, and ``Http:x`` is no longer relative."""
    if name.startswith(".."):
        return "MLflow takes two dots at its beginning for a way out"
    try:
        read = urlunparse(urlparse(unquote(name)))
    except ValueError:
        read = None
    return None if read == name else f"MLflow would read it as {read!r}"


def _refusal_of_part(part: str) -> str | None:
    if part == "..":
        return "'..' could lead out of the folder"
    if _ANCHORED.match(part):
        return f"{part!r} begins like a drive or a URL"
    if part != part.strip():
        return f"MLflow cannot keep the spaces around {part!r}"
    if len(part.encode()) > _MAX_COMPONENT_BYTES:
        return f"a part of it is longer than {_MAX_COMPONENT_BYTES} bytes"
    return None


def _shown(name: str) -> str:
    return repr(name if len(name) <= 120 else f"{name[:117]}...")


def place_within(folder: Path, name: str) -> Path:
    """Where a file of that (clean) name may be written below ``folder``, following no link out of it."""
    inside, target = folder.resolve(), folder / name
    if not target.resolve().is_relative_to(inside):
        raise UserErrorException(f"{str(target)!r} leads out of {str(folder)!r} through a link: remove the link")
    if target.is_dir():
        raise UserErrorException(f"{str(target)!r} is a folder: give the file another name or place")
    blocking = next((step for step in target.parents if step.exists() or step.is_symlink()), folder)
    if not blocking.is_dir():
        raise UserErrorException(f"{str(blocking)!r} is a file, so {str(target)!r} cannot be written: move it away")
    return target.resolve()


def some(names: list[str] | tuple[str, ...], limit: int = 20) -> str:
    """The first few names for a message, and how many there are."""
    if not names:
        return "no files"
    more = f" ... ({len(names)} in all)" if len(names) > limit else ""
    return ", ".join(repr(name) for name in names[:limit]) + more


def text_path(path: object, what: str) -> Path:
    """A local path that the user gave; raises on NUL and on bytes."""
    given = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(given, str) or not given or "\0" in given:
        raise UserErrorException(f"{what} is {given!r}; it must be the path of a local file or folder")
    return Path(given)
