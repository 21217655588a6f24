"""Keep passwords in URLs out of everything that is stored, logged or shown."""

from __future__ import annotations

import re

from mlflow_pytorch_estimator.errors import EnvironmentSpecError

_USERINFO = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<user>[^/\s]+)@(?P<host>[^/@\s?#]*)", re.IGNORECASE)
_VARIABLES = re.compile(r"(\$\{[A-Z0-9_]+\})+")
# A keyring wants short fixed user names (oauth2accesstoken, VssSessionToken); tokens are longer.
_LONGEST_USER = 19


def refuse_secret(text: str, where: str) -> None:
    """Raise when a URL in ``text`` carries a password; ``${VARIABLE}`` in its place is fine."""
    for url in _USERINFO.finditer(text):
        user, colon, password = url["user"].partition(":")
        secret = password if colon else user if len(user) > _LONGEST_USER else ""
        if secret and not _VARIABLES.fullmatch(secret):
            raise EnvironmentSpecError(
                f"{where}: the URL of {url['host']} holds a password or token; write ${{VARIABLE}} instead, "
                "or use UV_INDEX_<NAME>_PASSWORD, ~/.netrc or a keyring"
            )


def redact(text: str) -> str:
    """Return ``text`` without the passwords and tokens of its URLs."""

    def masked(url: re.Match[str]) -> str:
        harmless = ":" not in url["user"] and len(url["user"]) <= _LONGEST_USER
        return url[0] if harmless else f"{url['scheme']}://****@{url['host']}"

    return _USERINFO.sub(masked, text)
