"""Keeps values of secret environment variables out of everything that we write."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow_pytorch_estimator import processes
from mlflow_pytorch_estimator.jobenv import CARRIED_VARIABLE

_SECRET_NAME = re.compile(r"TOKEN|PASSWORD|PASSWD|SECRET|KEY|CREDENTIAL", re.IGNORECASE)
_SHORTEST = 8
_URI_PASSWORD = re.compile(r"(?P<scheme>\b(?:git\+)?https?://)[^/\s@]+@", re.IGNORECASE)


@dataclass(frozen=True)
class Concealer:
    """Knows the secret values: ``values`` maps each to the name of its variable."""

    values: dict[str, str]

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Concealer:
        """Secrets are variables named like one, with a value too long to be a switch or a count."""
        found = processes.environment() if environ is None else dict(environ)
        found.update(json.loads(found.get(CARRIED_VARIABLE, "{}")))
        names = (name for name in found if _SECRET_NAME.search(name))
        return cls({found[name]: name for name in names if _is_secret(found[name])})

    def conceal(self, text: str) -> str:
        """The text with each secret replaced by ``<NAME>``."""
        forms = {form: name for value, name in self.values.items() for form in _forms(value)}
        for form in sorted(forms, key=len, reverse=True):
            text = text.replace(form, f"<{forms[form]}>")
        return text


def _forms(value: str) -> set[str]:
    """The value as it is, and as JSON writes it."""
    return {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}


def _is_secret(value: str) -> bool:
    # A path to a key file is no secret, and replacing it would garble every path beside it.
    return len(value) >= _SHORTEST and not value.startswith(("/", "./", "~"))


def without_password(uri: str) -> str:
    """A URI without the user and password in front of its host."""
    return _URI_PASSWORD.sub(r"\g<scheme>", uri)
