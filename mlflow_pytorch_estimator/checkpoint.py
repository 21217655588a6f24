"""``Checkpoint``: a plain PyTorch loop that goes on where it was killed.

    checkpoint = Checkpoint(model, optimizer, scheduler, epoch=0)
    checkpoint.restore()
    while checkpoint.epoch < epochs:
        train_one_epoch()
        checkpoint.epoch += 1
        checkpoint.save()

The same lines serve one process and many ranks, with torch.distributed, with Horovod or with neither.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mlflow_pytorch_estimator.checkpoint_files import FORMAT, CheckpointFolder, DamagedError, Saved
from mlflow_pytorch_estimator.checkpoint_objects import (
    check_fit,
    class_name,
    has_state,
    load_state,
    positional,
    state_of,
    unwrapped,
)
from mlflow_pytorch_estimator.checkpoint_ranks import gather, rank_and_size
from mlflow_pytorch_estimator.checkpoint_state import plain, random_state, set_random_state
from mlflow_pytorch_estimator.errors import CheckpointError

FOLDER_VARIABLE = "CHECKPOINT_DIR"


class Checkpoint:
    """Saves and restores a training loop: objects with a state, plain values, and the random state of every rank.

    ``objects`` are given by place or by name: whatever has ``state_dict`` and ``load_state_dict`` (a model, plain or
    wrapped for data-parallel training, an optimizer, a learning-rate scheduler, a GradScaler, a sampler), and
    ``torch.Generator``. All other names are plain values: numbers, strings, truth values, None, tensors, and lists,
    tuples or dicts of these. They are attributes, to be read and set: ``checkpoint.epoch += 1``.

    ``folder`` is where the files are: by default that of the variable ``CHECKPOINT_DIR``, else ``checkpoints`` in the
    working directory. All ranks of a job must see the same folder, and no other job may write into it. ``keep`` is how
    many complete checkpoints stay, at least 1; with 2 or more, a damaged newest one can be passed over.

    A checkpoint is complete when every rank has saved it. Objects and values are those of rank 0, and every rank gets
    them; of the other ranks only the random state is kept. It does not save the place within an epoch: a loop that
    saves there skips the batches that it has seen. The state of loader workers is not part of it either.

    Raises ``CheckpointError``, one line with the remedy, for everything that cannot be done as asked.
    """

    def __init__(
        self, *objects: Any, folder: str | os.PathLike[str] | None = None, keep: int = 2, **named: Any
    ) -> None:
        stateful = {str(place): positional(item, place) for place, item in enumerate(objects, start=1)}
        stateful |= {name: unwrapped(item, name) for name, item in named.items() if has_state(item)}
        values = {name: plain(item, name) for name, item in named.items() if not has_state(item)}
        taken = [name for name in named if name.startswith("_") or hasattr(type(self), name)]
        if taken:
            raise CheckpointError(f"Checkpoint needs the name {taken[0]} for itself: give it another name")
        if not stateful and not values:
            raise CheckpointError("Checkpoint has nothing to save: give it at least the model, Checkpoint(model)")
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise CheckpointError(f"keep is {keep!r}: it is the number of checkpoints that stay, at least 1")
        self.__dict__.update(_objects=stateful, _values=values, _keep=keep, _files=_folder(folder), _number=0)

    def __getattr__(self, name: str) -> Any:
        for known in ("_values", "_objects"):
            if name in self.__dict__.get(known, ()):
                return self.__dict__[known][name]
        raise AttributeError(f"this checkpoint has no value {name!r}: {self._how_to_name(name)}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._values:
            raise AttributeError(f"this checkpoint has no value {name!r} to set: {self._how_to_name(name)}")
        self._values[name] = value

    @property
    def folder(self) -> Path:
        """Where the files are; it exists from the first save on."""
        return Path(self._files.path)

    def save(self) -> Path:
        """Save the next checkpoint and remove what is older than the ``keep`` newest; return this rank's file.

        Every rank calls it. When it returns, this rank's part is on the disk; the checkpoint before stays valid until
        the new one is complete, also when the process is killed or the disk is full.
        """
        rank, size = rank_and_size()
        # Also a number that fails is used up: the other ranks have counted on.
        self.__dict__["_number"] += 1
        foreign = [saved for saved in self._files.files() if saved.rank == rank and saved.number >= self._number]
        if foreign:
            raise CheckpointError(
                f"{foreign[-1].path} is of another run: call restore() before the first save(),"
                f" or give each run a folder of its own (folder=, or the variable {FOLDER_VARIABLE})"
            )
        content: dict[str, Any] = {"format": FORMAT, "number": self._number, "random": random_state()}
        if rank == 0:
            content["values"] = {name: _own(plain(value, name)) for name, value in self._values.items()}
            content["classes"] = {name: class_name(item) for name, item in self._objects.items()}
            content["objects"] = {name: state_of(item, self._label(name)) for name, item in self._objects.items()}
        path: Path = self._files.write(self._number, rank, size, content)
        self._files.prune(self._keep)
        return path

    def restore(self) -> bool:
        """Continue from the newest complete checkpoint; say whether there was one.

        Every rank calls it, before the first ``save``. A damaged checkpoint is passed over with a warning. Ranks that
        are joined by torch.distributed or Horovod make sure that all of them restore the same one.
        """
        rank, size = rank_and_size()
        chosen = self._newest_whole()
        number = chosen[0].number if chosen else 0
        device = self._device()
        answers = gather(number, device)
        if set(answers) != {number}:
            raise CheckpointError(
                f"the ranks see different checkpoints in {self.folder} (numbers {', '.join(map(str, answers))}):"
                f" give a folder that all nodes share (folder=, or the variable {FOLDER_VARIABLE})"
            )
        # Parts of a later checkpoint would be taken for parts of the one that will get its number.
        later = [saved for saved in self._files.files() if saved.number > number]
        self._files.remove([saved for saved in later if saved.rank == rank or (rank == 0 and saved.rank >= size)])
        gather(number, device)
        self.__dict__["_number"] = number
        if chosen is None:
            return False
        self._load(chosen, rank, size)
        return True

    def _newest_whole(self) -> tuple[Saved, ...] | None:
        # Every rank looks at the files of all, so that all come to the same answer.
        for files in self._files.complete():
            try:
                for saved in files:
                    self._files.verify(saved)
            except DamagedError as error:
                warnings.warn(f"checkpoint {files[0].number} is passed over: {error}", RuntimeWarning, stacklevel=3)
                continue
            found: tuple[Saved, ...] = files
            return found
        return None

    def _load(self, files: tuple[Saved, ...], rank: int, size: int) -> None:
        content = self._files.read(files[0])
        classes = {name: class_name(item) for name, item in self._objects.items()}
        self._compare("objects", _labels(classes), _labels(content["classes"]))
        self._compare("values", {name: name for name in self._values}, {name: name for name in content["values"]})
        for name, item in self._objects.items():
            check_fit(item, self._label(name), content["objects"][name], content["classes"][name])
        own = content if rank == 0 else self._files.read(files[rank]) if rank < len(files) else None
        for name, item in self._objects.items():
            load_state(item, self._label(name), content["objects"][name])
        for name, value in content["values"].items():
            present = self._values[name]
            self._values[name] = value.to(present.device) if _both_tensors(value, present) else value
        if own is None:
            warnings.warn(
                f"checkpoint {files[0].number} is of {len(files)} ranks, now there are {size}:"
                f" rank {rank} starts with the random state that it has",
                RuntimeWarning,
                stacklevel=3,
            )
        else:
            set_random_state(own["random"])

    def _compare(self, what: str, ours: Mapping[str, str], theirs: Mapping[str, str]) -> None:
        """Both name their entries, with what a message calls them."""
        if set(ours) != set(theirs):
            raise CheckpointError(
                f"the checkpoint in {self.folder} holds the {what} {', '.join(theirs.values()) or 'none'},"
                f" but this script has {', '.join(ours.values()) or 'none'}:"
                " give Checkpoint the same ones as before, or start in another folder"
            )

    def _device(self) -> torch.device | None:
        modules = (item for item in self._objects.values() if isinstance(item, torch.nn.Module))
        return next((weight.device for module in modules for weight in module.parameters()), None)

    def _label(self, name: str) -> str:
        return _label(name, class_name(self._objects[name]))

    def _how_to_name(self, name: str) -> str:
        known = ", ".join(self.__dict__.get("_values", ())) or "none"
        return f"name it when the checkpoint is made, Checkpoint(model, {name}=...); it has {known}"


def _folder(given: str | os.PathLike[str] | None) -> CheckpointFolder:
    named = given if given is not None else os.environ.get(FOLDER_VARIABLE) or "checkpoints"
    # Absolute, because scripts change their working directory.
    path = Path(named).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise CheckpointError(f"{path} is a file: give a folder for checkpoints (folder=, or {FOLDER_VARIABLE})")
    return CheckpointFolder(path)


def _label(name: str, kind: str) -> str:
    return f"argument {name} ({kind})" if name.isdigit() else f"{name} ({kind})"


def _labels(classes: Mapping[str, str]) -> dict[str, str]:
    return {name: _label(name, kind) for name, kind in classes.items()}


def _own(value: Any) -> Any:
    # A slice would take the whole tensor that it is cut from into the file.
    return value.clone() if isinstance(value, torch.Tensor) else value


def _both_tensors(value: Any, present: Any) -> bool:
    return isinstance(value, torch.Tensor) and isinstance(present, torch.Tensor)
