"""Keeps ranks above 0 from ending or polluting the job's MLflow run, also in scripts that know nothing of this package.

All ranks of a job have the same ``MLFLOW_RUN_ID``, and an unsuspecting script calls ``mlflow.start_run()`` in each of
them. `deliver` writes a folder with nothing but the metadata of a distribution; with it on ``PYTHONPATH``, MLflow finds
entry points that lead here (`plugin`). On a rank above 0 the stores that MLflow builds then get other writing methods:

- on the job's run, what is written is dropped, or metrics go under ``rank_3/``; what is read is real;
- runs, models, experiments and model versions that the rank creates live in its memory, with files in a temporary
  folder (`scratch`), and can be read back by it;
- a write on any other run is the user's own business and passes.

Nothing here is imported by a job of one rank, and rank 0 pays only for `plugin`.
"""

from mlflow_pytorch_estimator.rank_policy.delivery import deliver

__all__ = ["deliver"]
