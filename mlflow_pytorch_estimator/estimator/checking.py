"""What names and tags a store takes, and its refusals in one line. Raises UserErrorException."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mlflow.exceptions import MlflowException

from mlflow_pytorch_estimator.errors import one_line
from mlflow_pytorch_estimator.estimator.exceptions import UserErrorException
from mlflow_pytorch_estimator.estimator.recording import legalnames


def text_tags(tags: Mapping[str, Any] | None) -> dict[str, str]:
    """Tags as MLflow takes them; raises UserErrorException."""
    if tags is not None and not isinstance(tags, Mapping):
        raise UserErrorException(f"tags is {tags!r}; it must be a dict")
    result = {}
    for key, value in (tags or {}).items():
        if not isinstance(key, str) or not legalnames.is_legal(key):
            raise UserErrorException(
                f"{key!r} cannot be the key of a tag: use up to {legalnames.MAX_LENGTH} letters, digits, _ - . : / "
                "and spaces"
            )
        result[key] = unicode_text(f"the tag {key!r}", "" if value is None else str(value))
    return result


def has_tags(present: Mapping[str, str], wanted: str | Mapping[str, Any] | None) -> bool:
    """Whether all wanted tags are there, with their values where values are given."""
    if wanted is None:
        return True
    if isinstance(wanted, str):
        return wanted in present
    return all(present.get(key) == str(value) for key, value in wanted.items())


def check_run_name(name: object) -> None:
    """Refuse what MLflow cannot show as the name of a run; None is no name."""
    if name is not None and (not isinstance(name, str) or len(name) > legalnames.MAX_LENGTH):
        raise UserErrorException(f"run_name is {short(name)!r}; it must be text of up to 250 characters")
    unicode_text("run_name", name or "")


def unicode_text(what: str, text: str) -> str:
    """The text, if a store can keep it (no lone surrogates); ``what`` names it in the error."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserErrorException(f"{what} is {text!r}, which is no valid Unicode") from None
    return text


def short(name: object) -> object:
    """A name as an error shows it."""
    return f"{name[:60]}..." if isinstance(name, str) and len(name) > 80 else name


@contextmanager
def store_errors(what: str) -> Iterator[None]:
    """What a store refuses, or that it does not answer, as one line of UserErrorException."""
    try:
        yield
    except MlflowException as error:
        archived = "Current state is deleted" in str(error)
        reason = "it is archived; reactivate() brings it back" if archived else one_line(error)
        raise UserErrorException(f"{what}: {reason}") from error
    except ModuleNotFoundError as error:
        raise UserErrorException(f"{what}: {error}; the store needs it, so install it here") from error
