"""Names that MLflow takes for metrics, tags and files, and the nearest one to a name that it refuses."""

from __future__ import annotations

import hashlib
import posixpath
import re

MAX_LENGTH = 250
# `\w` is Unicode's, as in MLflow's own rule. MLflow's `$` also lets one newline at the end through; this does not.
_LEGAL = re.compile(r"[/\w.\- :]+")
_ILLEGAL_CHARACTER = re.compile(r"[^/\w.\- :]")
_MAX_FILE_NAME_BYTES = 200


def is_legal(name: str) -> bool:
    """Whether MLflow takes the name as it is."""
    if len(name) > MAX_LENGTH or not _LEGAL.fullmatch(name):
        return False
    return posixpath.normpath(name) == name and name != "." and not name.startswith(("..", "/"))


def nearest(name: str) -> str:
    """The name itself where it is legal, else the legal one that looks most like it: ``prec@1`` -> ``prec_1``."""
    if is_legal(name):
        return name
    spelled = _ILLEGAL_CHARACTER.sub("_", name)
    parts = [part.replace(".", "_") if part in {".", ".."} else part for part in spelled.split("/") if part]
    joined = "/".join(parts) or "_"
    if joined.startswith(".."):
        joined = "__" + joined[2:]
    return joined if len(joined) <= MAX_LENGTH else _marked(joined, name)


def distinct(name: str) -> str:
    """A legal name that no other name has; for a name whose nearest one is taken."""
    return _marked(nearest(name), name)


def file_stem(name: str) -> str:
    """The path, without suffix, of a file named like a legal name; no part is too long for a file system."""
    return "/".join(_short_enough(part) for part in name.split("/"))


def _short_enough(part: str) -> str:
    encoded = part.encode()
    if len(encoded) <= _MAX_FILE_NAME_BYTES:
        return part
    return f"{encoded[:_MAX_FILE_NAME_BYTES].decode(errors='ignore')}_{_digest(part)}"


def _marked(legal: str, original: str) -> str:
    return f"{legal[: MAX_LENGTH - 9]}_{_digest(original)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
