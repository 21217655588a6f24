"""Checks of what the estimators are given; each raises TrainingException."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlflow_pytorch_estimator.estimator import training
from mlflow_pytorch_estimator.estimator.compute.cluster import ComputeTarget
from mlflow_pytorch_estimator.estimator.exceptions import TrainingException
from mlflow_pytorch_estimator.script_source import Word


def script_words(params: Mapping[str, Any] | None) -> tuple[Word, ...]:
    """``{"--lr": 0.1, "--amp": ""}`` as the words that the script gets; the empty ones are left out."""
    if params is not None and not isinstance(params, Mapping):
        raise TrainingException(f"script_params is {params!r}; it must be a dict")
    words: list[Word] = []
    for name, value in (params or {}).items():
        if not isinstance(name, str):
            raise TrainingException(f"script_params: the name {name!r} must be text, such as '--lr'")
        if isinstance(value, (list, tuple, dict, set)):
            raise TrainingException(
                f"script_params: {name} is a {type(value).__name__}; for several values use "
                "ScriptRunConfig(arguments=[...])"
            )
        found = [
            training.text_word(f"script_params: the name {name!r}", name),
            training.word(f"script_params: the value of {name!r}", value),
        ]
        words += [item for item in found if item != ""]
    return tuple(words)


def resume_words(resume_from: object) -> tuple[Word, ...]:
    """The argument ``--resume-from PATH`` for a folder, an artifact URI or a ``DataInput``."""
    if resume_from is None:
        return ()
    (item,) = training.named_inputs([resume_from])
    if not item.remote and item.mode == "download":
        item.local_path()
    return ("--resume-from", item)


def names(parameter: str, value: object) -> tuple[str, ...]:
    """A list of texts as a tuple of our own."""
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TrainingException(f"{parameter} is {value!r}; it must be a list")
    for item in value:
        if not isinstance(item, str):
            raise TrainingException(f"{parameter} holds {item!r}; each entry must be text")
    return tuple(value)


def flag(parameter: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise TrainingException(f"{parameter} is {value!r}; it must be True or False")
    return value


def target_name(target: ComputeTarget | str | None, vm_size: str | None) -> str | None:
    """The name of a compute target, None for this machine; one of the two must be given."""
    if target is None and vm_size is None:
        raise TrainingException(
            "compute_target is missing: give a ComputeTarget, its name, or 'local' for this machine"
        )
    if target is not None and vm_size is not None:
        raise TrainingException("compute_target and vm_size are both given: the target has its own size; leave one out")
    if isinstance(target, ComputeTarget):
        return str(target.name)
    if target is not None and not isinstance(target, str):
        raise TrainingException(f"compute_target is {target!r}; it must be a ComputeTarget or a name")
    return None if target in {None, "local"} else target
