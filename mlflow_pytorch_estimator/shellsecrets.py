"""Secrets of the environment in a command line: left out of it, for the shell on the node to put in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from mlflow_pytorch_estimator.secretvalues import Concealer

_QUOTING = {"": ('"${', '}"'), "'": ("'\"${", "}\"'"), '"': ("${", "}")}


class HiddenSecrets:
    """Replaces secrets by tokens before a command is quoted, and the tokens by variables afterwards."""

    def __init__(self, concealer: Concealer) -> None:
        # Longest first: one secret may begin like another.
        known = sorted(concealer.values.items(), key=lambda item: -len(item[0]))
        self._secrets = {secret: name for secret, name in known if name.isascii() and name.isidentifier()}
        self._names: dict[str, str] = {}

    def hide(self, value: str) -> str:
        """The value with a token for each secret in it; quoting treats the token as it would treat the secret."""
        for number, (secret, name) in enumerate(self._secrets.items()):
            if secret in value:
                mark = "" if shlex.quote(secret) == secret else "~"
                token = f"{mark}GPUCLUSTERSECRET{number}X"
                self._names[token] = name
                value = value.replace(secret, token)
        return value

    def expand(self, command: str) -> str:
        """The quoted command with a variable for each token, also inside of quotes."""
        return _expand(command, self._names) if self._names else command


def _expand(command: str, names: Mapping[str, str]) -> str:
    pattern = re.compile("|".join(map(re.escape, names)) + r"|\\[\\'\"]|['\"]")
    quote = ""

    def replace(found: re.Match[str]) -> str:
        nonlocal quote
        text = found[0]
        if text in names:
            before, after = _QUOTING[quote]
            return f"{before}{names[text]}{after}"
        if text == quote:
            quote = ""
        elif not quote and text in _QUOTING:
            quote = text
        elif quote == "'" and text == "\\'":
            quote = ""  # a backslash means nothing in single quotes
        return text

    return pattern.sub(replace, command)
