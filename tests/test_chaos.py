"""A few seeds of ``chaos.py``; ``make test-chaos`` plays a hundred."""

from __future__ import annotations

from pathlib import Path

import chaos
import pytest
from mlflow.tracking import MlflowClient
from rank_jobs import Jobs

# Chosen so that every victim and every signal is there, with either launcher.
SEEDS = [0, 1, 5, 12, 28]


def test_the_seeds_are_worth_their_time() -> None:
    cases = [chaos.Case.of(seed) for seed in SEEDS]
    assert {case.victim for case in cases} == {"rank", "follower", "leader"}
    assert len({case.signal for case in cases}) == 3
    assert {case.kind for case in cases} == {"horovod", "torch"}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_job_tells_the_truth(store: MlflowClient, horovod_python: Path, seed: int) -> None:
    assert chaos.run(chaos.Case.of(seed), Jobs(store, str(horovod_python))) == [], chaos.Case.of(seed)
