"""The place of a process among its ranks, from real launchers' variables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_pytorch_estimator import topology
from mlflow_pytorch_estimator.topology import Place, place

TORCH = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "GROUP_RANK": "2"}
SRUN = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}
NAMES = sorted({name for family in topology._FAMILIES for names in family for name in names} | {"SLURM_STEP_ID"})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Place(0, 0, 1, 0)),
        (TORCH, Place(5, 1, 8, 2)),
        ({"RANK": "3", "WORLD_SIZE": "4", "NODE_RANK": "1", "LOCAL_RANK": "1"}, Place(3, 1, 4, 1)),
        ({"RANK": "3", "WORLD_SIZE": "4"}, Place(3, 3, 4, 0)),
        ({"HOROVOD_RANK": "1", "HOROVOD_SIZE": "2", "HOROVOD_LOCAL_RANK": "1"}, Place(1, 1, 2, 0)),
        (
            {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "0"},
            Place(1, 0, 2, 0),
        ),
        (SRUN, Place(3, 1, 4, 1)),
        (SRUN | {"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "4"}, Place(3, 1, 4, 1)),
    ],
)
def test_each_launcher_is_understood(environ: dict[str, str], expected: Place) -> None:
    assert place(environ) == expected


@pytest.mark.parametrize(
    "environ",
    [
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"},
        {"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "batch"},
        {"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "4294967291"},
        {"RANK": "1"},
        {"RANK": "", "WORLD_SIZE": "4"},
        {"RANK": "one", "WORLD_SIZE": "4"},
        {"RANK": "-1", "WORLD_SIZE": "4"},
        {"RANK": "4", "WORLD_SIZE": "4"},
        {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "x"},
        {"RANK": "²", "WORLD_SIZE": "4"},
    ],
)
def test_half_a_family_is_none(environ: dict[str, str]) -> None:
    assert place(environ) == Place()


def test_our_own_variables_come_first_and_round_trip() -> None:
    ours = Place(2, 0, 3, 2)
    assert place(TORCH | SRUN | ours.environment()) == ours
    assert place({"RANK": "x", "WORLD_SIZE": "2"} | SRUN) == Place(3, 1, 4, 1)


def test_the_functions_read_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    assert topology.is_rank_zero()
    for name, value in TORCH.items():
        monkeypatch.setenv(name, value)
    found = topology.rank(), topology.local_rank(), topology.world_size(), topology.node_rank()
    assert found == (5, 1, 8, 2)
    assert not topology.is_rank_zero()


@given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=4) | st.integers(-2, 9).map(str)))
def test_nothing_in_the_environment_is_an_error(environ: dict[str, str]) -> None:
    found = place(environ)
    assert 0 <= found.rank < found.world_size
