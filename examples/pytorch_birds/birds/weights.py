"""ResNet-18 with the weights asked for: ImageNet's, a file's, none, or the best to be had at once."""

from __future__ import annotations

import hashlib
import io
import pickle
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, TypeAlias

import requests
import torch
from torch import nn
from torchvision.models import ResNet18_Weights, resnet18

from birds import InputError

State: TypeAlias = dict[str, torch.Tensor]

IMAGENET_URL: str = ResNet18_Weights.DEFAULT.url
# ``auto`` may not hold up a job that has no network; ``imagenet`` was asked for and may take its time.
AUTO_SECONDS = 12.0
EXPLICIT_SECONDS = 300.0


class NotAvailableError(Exception):
    """The ImageNet weights cannot be had; the message is the reason."""


def build_model(choice: str, classes: int) -> tuple[nn.Module, str]:
    """Return ResNet-18 with a new last layer, and the name of the weights that it starts from."""
    state, used = _initial_state(choice)
    model: nn.Module = resnet18(weights=None)
    model.fc = nn.Linear(512, classes)
    if state is not None:
        # The last layer belongs to other classes unless it fits.
        fresh = len(state.get("fc.bias", ())) != classes
        try:
            model.load_state_dict(state if not fresh else {**state, **_last_layer(model)})
        except RuntimeError as error:
            raise InputError(f"weights: {choice} does not hold the weights of a ResNet-18") from error
    return model, used


def _last_layer(model: nn.Module) -> State:
    return {key: value for key, value in model.state_dict().items() if key.startswith("fc.")}


def _initial_state(choice: str) -> tuple[State | None, str]:
    if choice == "none":
        return None, "none"
    if choice == "imagenet":
        try:
            return _imagenet(EXPLICIT_SECONDS), "imagenet"
        except NotAvailableError as error:
            raise InputError(f"weights: ImageNet's cannot be had ({error}): use auto or none") from None
    if choice == "auto":
        try:
            return _imagenet(AUTO_SECONDS), "imagenet"
        except NotAvailableError as error:
            print(f"warning: no ImageNet weights ({error}), starting from random ones", flush=True)
            return None, "none"
    return _from_file(Path(choice).expanduser()), choice


def _from_file(path: Path) -> State:
    remedy = "give a state dict's path, imagenet, none or auto"
    if not path.is_file():
        raise InputError(f"weights: there is no file {path}: {remedy}")
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
        reason = type(error).__name__
        raise InputError(f"weights: {path} is not a file of plain tensors ({reason}): {remedy}") from error
    if not isinstance(state, dict) or "conv1.weight" not in state:
        raise InputError(f"weights: {path} does not hold the weights of a ResNet-18: {remedy}")
    return state


def _imagenet(seconds: float) -> State:
    """Load the weights from torch's hub cache, filling it within ``seconds`` when it is empty."""
    target = Path(torch.hub.get_dir()) / "checkpoints" / IMAGENET_URL.rpartition("/")[2]
    if not target.is_file():
        _fill(IMAGENET_URL, target, seconds)
    try:
        state: State = torch.load(target, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
        raise NotAvailableError(f"{target} is damaged, remove it") from None
    return state


def _fill(url: str, target: Path, seconds: float) -> None:
    # A thread, because looking up a host name knows no timeout; a daemon, because it may still hang there.
    given_up = threading.Event()
    failures: list[str] = []
    args = (url, target, time.monotonic() + seconds, given_up, failures)
    thread = threading.Thread(target=_download, args=args, daemon=True)
    thread.start()
    thread.join(seconds)
    given_up.set()
    if not target.is_file():
        raise NotAvailableError(failures[0] if failures else f"not here within {seconds:.0f} s")


def _download(url: str, target: Path, deadline: float, given_up: threading.Event, failures: list[str]) -> None:
    # Kept in memory until whole and checked: giving up leaves no partial file behind.
    content = io.BytesIO()
    try:
        with requests.get(url, stream=True, timeout=max(1.0, deadline - time.monotonic())) as answer:
            answer.raise_for_status()
            for chunk in answer.iter_content(1 << 20):
                content.write(chunk)
                if given_up.is_set():
                    return
        wanted = target.stem.rpartition("-")[2]
        if not hashlib.sha256(content.getbuffer()).hexdigest().startswith(wanted):
            failures.append("the file from the download host has a wrong checksum")
            return
        _write_whole(content.getbuffer(), target)
    except (requests.RequestException, OSError) as error:
        failures.append(f"{url.split('/')[2]}: {type(error).__name__}")


def _write_whole(content: memoryview, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".resnet18-", dir=target.parent) as aside:
        part = Path(aside) / target.name
        part.write_bytes(content)
        part.replace(target)
