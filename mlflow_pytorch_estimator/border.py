"""The border to MLflow: errors of ours leave as MLflow's ``ExecutionException`` too, one line on its command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import ExecutionException, MlflowException

from mlflow_pytorch_estimator.errors import GpuClusterError, one_line


@contextmanager
def as_execution_exception() -> Iterator[None]:
    """Errors of ours leave as themselves and as MLflow's; a store's error as one line."""
    try:
        yield
    except ExecutionException:
        raise
    except GpuClusterError as error:
        raise _as_both(error) from None
    except MlflowException as error:
        raise ExecutionException(one_line(error)) from error


def _as_both(error: GpuClusterError) -> GpuClusterError:
    both = _COMBINED.setdefault(type(error), _combine(type(error)))
    made = both.__new__(both, *error.args)
    ExecutionException.__init__(made, str(error))
    made.__dict__.update(error.__dict__)
    return made


def _combine(kind: type[GpuClusterError]) -> type[GpuClusterError]:
    return type(kind.__name__, (kind, ExecutionException), {"__module__": kind.__module__})


_COMBINED: dict[type[GpuClusterError], type[GpuClusterError]] = {}
