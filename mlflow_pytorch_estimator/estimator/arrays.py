"""The runs of an array from one description: each gets arguments of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mlflow_pytorch_estimator.errors import GpuClusterError
from mlflow_pytorch_estimator.estimator.arguments import script_words
from mlflow_pytorch_estimator.estimator.exceptions import TrainingException, UserErrorException
from mlflow_pytorch_estimator.estimator.pytorch import PyTorch
from mlflow_pytorch_estimator.estimator.script_run_config import ScriptRunConfig
from mlflow_pytorch_estimator.estimator.training import TrainingJob, parameters_of


def jobs(config: PyTorch | ScriptRunConfig, parameters: object) -> list[TrainingJob]:
    """One job for each dict of arguments; raises UserErrorException for a list that is none."""
    if isinstance(parameters, (str, bytes, Mapping)) or not isinstance(parameters, Sequence):
        raise UserErrorException(f"parameters is a {type(parameters).__name__}; it must be a list, a dict for each run")
    if not parameters:
        raise UserErrorException("parameters is empty; it must hold a dict for each run")
    return [_job(config, number, given) for number, given in enumerate(parameters)]


def _job(config: PyTorch | ScriptRunConfig, number: int, given: object) -> TrainingJob:
    where = f"parameters[{number}]"
    if not isinstance(given, Mapping):
        raise TrainingException(f"{where} is {given!r}; it must be a dict such as {{'--lr': 0.1}}")
    for name in given:
        if not isinstance(name, str) or not name.startswith("-"):
            raise TrainingException(f"{where}: {name!r} is no option of a script; it must begin with -, such as '--lr'")
    try:
        return _with(config, given)
    except GpuClusterError as error:
        raise TrainingException(f"{where}: {error}") from error


def _with(config: PyTorch | ScriptRunConfig, given: Mapping[str, Any]) -> TrainingJob:
    if isinstance(config, PyTorch):
        return config.describe(script_params={**(config._given["script_params"] or {}), **given})
    job = config.describe()
    start = ("python", job.source.entry_point)
    if job.source.words[:2] != start:
        raise TrainingException("a ScriptRunConfig with a command has no arguments to change: give it a script")
    words = (*job.source.words, *script_words(given))  # of an option that is given twice the last counts
    source = replace(job.source, words=words, parameters=parameters_of(words[len(start) :]))
    return replace(job, source=source)
