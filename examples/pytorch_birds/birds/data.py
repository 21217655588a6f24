"""Image folders: where they come from, whether they are sound, and how they become batches."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from birds import InputError, synthetic
from birds.batches import SharedBatches
from birds.cache import cached_folder
from birds.download import fetch_images

if TYPE_CHECKING:
    from collections.abc import Sequence

# ImageNet's, so that pretrained weights see what they were trained on.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def find_images(data_dir: str, data_url: str, seed: int) -> Path:
    """Return the folder with ``train`` and ``val``: the given one, a fetched one or a drawn one."""
    if data_dir:
        return Path(data_dir).expanduser()
    if data_url:
        return _inner_folder(fetch_images(data_url))
    name = f"drawn-v{synthetic.VERSION}-seed{seed}"
    return cached_folder(name, partial(synthetic.write_pictures, seed=seed))


def _inner_folder(folder: Path) -> Path:
    """Step into the single top folder that many zips have."""
    inner = _subfolders(folder)
    return inner[0] if len(inner) == 1 and inner[0].name not in {"train", "val"} else folder


def _subfolders(folder: Path) -> list[Path]:
    # __MACOSX, .ipynb_checkpoints and their like are not classes.
    found = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__"))]
    return sorted(found)


def _files(folder: Path) -> list[Path]:
    found = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.name[0] != "."]
    if not found:
        raise InputError(f"{folder} holds no image: add some (such as .jpg or .png) or remove the folder")
    return sorted(found)


@dataclass(frozen=True)
class ImageFolders:
    """The classes and, for ``train`` and ``val``, each image's path and class number."""

    classes: list[str]
    train: list[tuple[Path, int]]
    val: list[tuple[Path, int]]


def scan(root: Path) -> ImageFolders:
    """List the images below ``root``; refuse a folder that cannot be trained on."""
    for split in ("train", "val"):
        if not (root / split).is_dir():
            raise InputError(f"there is no folder {root / split}: train/<class>/ and val/<class>/ are needed")
    classes, other = ([path.name for path in _subfolders(root / split)] for split in ("train", "val"))
    if classes != other:
        odd = ", ".join(sorted(set(classes) ^ set(other)))
        raise InputError(f"{root}: train/ and val/ must hold the same classes, only one of them has {odd}")
    if len(classes) < 2:
        raise InputError(f"{root / 'train'} holds {len(classes)} class folders: at least two are needed")
    train, val = (
        [(path, number) for number, name in enumerate(classes) for path in _files(root / split / name)]
        for split in ("train", "val")
    )
    return ImageFolders(classes, train, val)


def read_image(path: Path, pixels: int) -> Image.Image:
    """Decode an image, a large JPEG only as finely as ``pixels`` needs."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * pixels, 2 * pixels))
            # Cameras store the photograph lying and say so in a tag.
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as an image ({error}): replace or remove it") from error


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Decoded, augmented (when training) and normalised images, made in the loader's workers."""

    def __init__(self, samples: Sequence[tuple[Path, int]], pixels: int, *, augment: bool) -> None:
        self.samples = samples
        self.pixels = pixels
        varied = [
            v2.RandomResizedCrop(pixels, scale=(0.6, 1.0)),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
        ]
        plain = [v2.Resize(pixels), v2.CenterCrop(pixels)]
        finish = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
        self.transform: Any = v2.Compose([*(varied if augment else plain), *finish])

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.samples[index]
        return self.transform(read_image(path, self.pixels)), label


def default_workers(ranks_here: int = 1) -> int:
    """Half of the processor cores that this process may use, eight at most, shared by the ranks of the node."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, usable // 2) // ranks_here)


def _seed_worker(_: int, rank: int) -> None:
    # All ranks' loaders start from one seed; their augmentations shall not be the same.
    torch.manual_seed(torch.initial_seed() + rank * 1_000_003)


def make_loader(  # noqa: PLR0917
    pictures: Pictures, batch_size: int, workers: int, seed: int | None, rank: int = 0, size: int = 1
) -> DataLoader[Any]:
    """Return batches of the pictures, shuffled by ``seed`` or in order when it is ``None``; a rank gets its part."""
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    batches: dict[str, Any] = {
        "batch_size": batch_size,
        "shuffle": seed is not None,
        # A last batch of one image has no variance for the batch normalisation.
        "drop_last": seed is not None and len(pictures) % batch_size == 1,
    }
    if size > 1:
        batches = {"batch_sampler": SharedBatches(len(pictures), batch_size, seed, rank, size)}
    return DataLoader(
        pictures,
        **batches,
        worker_init_fn=partial(_seed_worker, rank=rank) if rank else None,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),
        generator=generator,
    )
