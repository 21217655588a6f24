"""Submit a training, wait for it and register its model. Only the imports tell which SDK it was written for.

python submit.py
"""

from __future__ import annotations

from pathlib import Path

from mlflow_pytorch_estimator import AmlCompute, ComputeTarget, ComputeTargetException, Experiment, PyTorch, Workspace


def find_or_create(workspace: Workspace, name: str) -> ComputeTarget:
    """The cluster of that name, or a new one."""
    try:
        target = ComputeTarget(workspace=workspace, name=name)
        print("found an existing compute target")
    except ComputeTargetException:
        print("creating a compute target")
        config = AmlCompute.provisioning_configuration(vm_size="STANDARD_NC6", max_nodes=4)
        target = ComputeTarget.create(workspace, name, config)
        target.wait_for_completion(show_output=True)
    print(target.get_status().serialize())
    return target


def describe(target: ComputeTarget) -> PyTorch:
    """The training as an estimator."""
    return PyTorch(
        source_directory=str(Path(__file__).parent / "training"),
        script_params={"--num_epochs": 3, "--output_dir": "./outputs"},
        compute_target=target,
        entry_script="train_sides.py",
        use_gpu=True,
        pip_packages=["numpy"],
    )


def main() -> None:
    """Run it all."""
    workspace = Workspace.from_config()
    target = find_or_create(workspace, "gpu-cluster")
    experiment = Experiment(workspace, name="moved")
    run = experiment.submit(describe(target))
    run.wait_for_completion(show_output=True)
    print(run.get_metrics()["best_val_acc"][-1])
    model = run.register_model(model_name="pt-dnn", model_path="outputs/")
    print(model.name, model.id, model.version, sep="\t")
    for name in run.get_file_names():
        if name.startswith("outputs/model"):
            run.download_file(name)


if __name__ == "__main__":
    main()
