"""Train, wait, register, download: the estimator's way, in the order of its tutorial.

    python train_with_estimator.py [FOLDER]

FOLDER holds pictures (``train/`` and ``val/``, a folder for each class); without it the script draws its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mlflow_pytorch_estimator import (
    AmlCompute,
    ComputeTarget,
    ComputeTargetException,
    DataInput,
    Experiment,
    PyTorch,
    Workspace,
)


def main(pictures: str | None = None) -> None:
    """Run the tutorial."""
    workspace = Workspace.from_config()
    experiment = Experiment(workspace, name="pytorch-birds")

    try:
        cluster = ComputeTarget(workspace=workspace, name="gpu-cluster")
        print("found the compute target", cluster.name)
    except ComputeTargetException:
        config = AmlCompute.provisioning_configuration(vm_size="STANDARD_NC6", max_nodes=4)
        cluster = ComputeTarget.create(workspace, "gpu-cluster", config)
        cluster.wait_for_completion(show_output=True)
    print(cluster.get_status().serialize())

    script_params = {"--num_epochs": 3, "--output_dir": "./outputs"}
    if pictures:
        script_params["--data_dir"] = DataInput(pictures)
    estimator = PyTorch(
        source_directory=Path(__file__).parent / "training",
        script_params=script_params,
        compute_target=cluster,
        entry_script="pytorch_train.py",
        use_gpu=True,
        pip_packages=["pillow"],
    )

    run = experiment.submit(estimator)
    run.wait_for_completion(show_output=True)
    print("best validation accuracy:", run.get_metrics()["best_val_acc"][-1])

    model = run.register_model(model_name="pt-dnn", model_path="outputs/")
    print(model.name, model.id, model.version, sep="\t")

    for name in run.get_file_names():
        if name.startswith("outputs/model"):
            run.download_file(name)
            print("downloaded", name)


if __name__ == "__main__":
    main(*sys.argv[1:2])
