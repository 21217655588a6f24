"""What a registered version carries as tags: the user's own, and the package's under a reserved prefix."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from mlflow_pytorch_estimator import tags as run_tags
from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException
from mlflow_pytorch_estimator.estimator.recording.legalnames import is_legal

PROPERTY = run_tags.PROPERTY
FRAMEWORK = "gpu_cluster.model_framework"
FRAMEWORK_VERSION = "gpu_cluster.model_framework_version"
NOT_SERVABLE = "gpu_cluster.not_servable"
KIND = "gpu_cluster.model_kind"
PATH = "gpu_cluster.model_path"

_RESERVED = ("gpu_cluster.", "mlflow.")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,254}")
_MAX_VALUE = 100_000  # MLflow's limit for a tag of a version
_MAX_TEXT = 5000  # the width of its column for a description


def checked_model_name(name: object) -> str:
    """A name that the original takes, and MLflow too."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserErrorException(
            f"model_name is {name!r}; it must begin with a letter or digit, go on with letters, digits, '_', '.' or "
            "'-', and have at most 255 characters"
        )
    return name


def checked_tags(given: object, what: str = "tags", prefix: str = "") -> dict[str, str]:
    """Tags or properties as MLflow keeps them; ``prefix`` goes before each key."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise UserErrorException(f"{what} is {given!r}; it must be a dict such as {{'area': 'vision'}}")
    return {prefix + _checked_key(key, what, prefix): _checked_value(key, value, what) for key, value in given.items()}


def _checked_key(key: object, what: str, prefix: str) -> str:
    if not isinstance(key, str) or not is_legal(prefix + key) or not is_legal(key):
        raise UserErrorException(
            f"{what} has the key {key!r}; it must be text of letters, digits, '_', '-', '.', ':', '/' and spaces, "
            f"at most {250 - len(prefix)} characters"
        )
    if not prefix and key.startswith(_RESERVED):
        raise UserErrorException(
            f"{what} has the key {key!r}; keys that begin with {' or '.join(_RESERVED)} are reserved"
        )
    return key


def _checked_value(key: object, value: object, what: str) -> str:
    text = "" if value is None else str(value)
    if len(text) > _MAX_VALUE:
        raise UserErrorException(f"{what}[{key!r}] has {len(text)} characters; MLflow keeps at most {_MAX_VALUE}")
    if not _storable(text):
        raise UserErrorException(f"{what}[{key!r}] holds characters that no store keeps: {text[:80]!r}")
    return text


def checked_text(value: object, what: str) -> str | None:
    """A description, a framework or its version."""
    if value is None or (isinstance(value, str) and _storable(value) and len(value) <= _MAX_TEXT):
        return value
    raise UserErrorException(f"{what} is {str(value)[:80]!r}; it must be text of at most {_MAX_TEXT} characters")


def _storable(text: str) -> bool:
    return "\0" not in text and text.encode(errors="ignore").decode() == text


def users_own(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags that the user has set."""
    return {key: value for key, value in tags.items() if not key.startswith(_RESERVED)}


def properties_of(tags: Mapping[str, str]) -> dict[str, str]:
    """The properties among the tags."""
    return {key.removeprefix(PROPERTY): value for key, value in tags.items() if key.startswith(PROPERTY)}


def fits(present: Mapping[str, str], wanted: Iterable[object] | Mapping[str, str] | str | None, what: str) -> bool:
    """Whether all of ``wanted`` is there: keys, and ``[key, value]`` pairs with that value."""
    if wanted is None:
        return True
    if isinstance(wanted, Mapping):
        wanted = [[key, value] for key, value in wanted.items()]
    for item in [wanted] if isinstance(wanted, str) else wanted:
        if isinstance(item, str):
            if item not in present:
                return False
        elif isinstance(item, (list, tuple)) and len(item) == 2:
            if present.get(item[0]) != str(item[1]):
                return False
        else:
            raise UserErrorException(f"{what} holds {item!r}; it must be a list of keys and of [key, value] pairs")
    return True
