"""The same with Horovod: two ranks on one node.

python train_with_horovod.py
"""

from __future__ import annotations

from pathlib import Path

from mlflow_pytorch_estimator import (
    AmlCompute,
    ComputeTarget,
    ComputeTargetException,
    Experiment,
    MpiConfiguration,
    PyTorch,
    Workspace,
)


def main() -> None:
    """Run the tutorial."""
    workspace = Workspace.from_config()
    try:
        cluster = ComputeTarget(workspace=workspace, name="gpu-cluster")
    except ComputeTargetException:
        config = AmlCompute.provisioning_configuration(vm_size="STANDARD_NC6", max_nodes=4)
        cluster = ComputeTarget.create(workspace, "gpu-cluster", config)
        cluster.wait_for_completion(show_output=True)

    estimator = PyTorch(
        source_directory=Path(__file__).parent / "training",
        compute_target=cluster,
        script_params={"--num_epochs": 3},
        entry_script="pytorch_horovod_train.py",
        node_count=1,
        process_count_per_node=2,
        distributed_training=MpiConfiguration(),
        use_gpu=True,
    )
    run = Experiment(workspace, name="pytorch-horovod").submit(estimator)
    run.wait_for_completion(show_output=True)
    print(run.get_metrics())


if __name__ == "__main__":
    main()
