"""Sizes by name."""

from __future__ import annotations

import pytest

from mlflow_pytorch_estimator.estimator.compute.vm_sizes import SIZES, find_size, shape_of_size
from mlflow_pytorch_estimator.estimator.exceptions import ComputeTargetException
from mlflow_pytorch_estimator.schedulers.machine import Capacity


@pytest.mark.parametrize(
    ("name", "cpus", "memory_gb", "gpus", "model"),
    [
        ("STANDARD_NC6", 6, 56, 1, "K80"),
        ("Standard_NC24rs_v3", 24, 448, 4, "V100"),
        ("Standard_ND40rs_v2", 40, 672, 8, "V100"),
        ("Standard_NC96ads_A100_v4", 96, 880, 4, "A100-80GB"),
        ("standard_nd96isr_h100_v5", 96, 1900, 8, "H100"),
        ("NC4as_T4_v3", 4, 28, 1, "T4"),
        ("STANDARD_D2_V2", 2, 7, 0, None),
        ("Standard_D1_v2", 1, 3.5, 0, None),
        ("f72S_v2", 72, 144, 0, None),
        ("p3.8xlarge", 32, 244, 4, "V100"),
        ("a2-highgpu-1g", 12, 85, 1, "A100-40GB"),
    ],
)
def test_sizes_are_found_whatever_the_case_and_prefix(
    name: str, cpus: int, memory_gb: float, gpus: int, model: str | None
) -> None:
    size = find_size(name)
    assert (size.cpus, size.memory_gb, size.gpus, size.gpu_model) == (cpus, memory_gb, gpus, model)
    assert size.name.casefold().endswith(name.casefold())


def test_every_name_is_there_once_and_plausible() -> None:
    names = [size.name.casefold() for size in SIZES]
    assert len(set(names)) == len(names) > 80
    for size in SIZES:
        assert find_size(size.name) is size
        assert find_size(f" {size.name.upper()} ") is size
        assert 1 <= size.memory_gb / size.cpus <= 30
        assert size.gpus in {0, 1, 2, 4, 8}
        assert (size.gpu_model is None) == (size.gpus == 0)


def test_an_unknown_size_names_the_nearest_and_the_alternative() -> None:
    with pytest.raises(ComputeTargetException) as caught:
        find_size("STANDARD_NC6_v2")
    message = str(caught.value)
    assert message.startswith("vm_size 'STANDARD_NC6_v2' is not known (did you mean Standard_NC6s_v2, ")
    assert message.endswith("say other sizes with cpus_per_node, memory_gb_per_node and gpus_per_node")
    assert "\n" not in message
    with pytest.raises(ComputeTargetException, match="is not known; say other sizes"):
        find_size("§§§§")


def test_a_size_is_capped_by_the_machine() -> None:
    small = Capacity((0, 1), (), 8.0)
    assert shape_of_size("STANDARD_NC6", small) == (2, 0, 8.0)
    big = Capacity(tuple(range(64)), tuple(range(8)), 512.0)
    assert shape_of_size("STANDARD_NC6", big) == (6, 1, 56.0)
    assert shape_of_size("STANDARD_NC6", Capacity((0,), (3,))) == (1, 1, 56.0)
