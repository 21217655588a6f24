"""Teach ResNet-18 to tell turkeys from chickens, or any other classes of an image folder.

    python train.py
        draws 440 turkeys and chickens and trains on them, about two minutes on two cores
    python train.py --data_dir photos --image_size 224 --num_epochs 25 --learning_rate 0.001
        your photographs, in photos/train/<class> and photos/val/<class>
    torchrun --nproc-per-node 2 train.py
        on two ranks; the ranks of a Horovod job do the same

The defaults suit the drawings, with random as with ImageNet weights, and other small pictures. Photographs
want the second line's values and ImageNet weights: a few hundred of them cannot teach a network from scratch.

Several ranks train on batches of batch_size each, and validate a part of the images each: what is printed and
logged, by the first rank, is that of all. A folder in the variable CHECKPOINT_DIR gets a checkpoint after each
epoch, and a training that finds one there goes on from it.

Every epoch is logged to the job's MLflow run, or to a new one outside of a job. The best epoch ends up in
output_dir as model.pt (state dict of torchvision's ResNet-18) and classes.json, and in the run as a model
with a PyTorch and an ONNX flavor. That model takes "image", float32 (N, 3, H, W), RGB from 0 to 1 normalised
with ImageNet's mean and deviation, and returns "logits" (N, classes) in the order of classes.json; their softmax
is the probabilities.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from birds import InputError
from birds.options import parse

from mlflow_pytorch_estimator.errors import GpuClusterError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    options = parse(argv, __doc__ or "")
    # Read when torch is loaded. Threads that spin while they wait take the cores from the loader's workers and
    # from whoever shares the machine: on two busy cores training took four times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # torch and MLflow take seconds to import; a mistyped option should not.
    from birds.pipeline import run

    try:
        run(options)
    except (InputError, GpuClusterError) as error:
        # An error from a loader's worker arrives with the worker's traceback before its message.
        line = str(error).strip().splitlines()[-1].rpartition(f"{type(error).__name__}: ")[2]
        print(f"error: {line}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
