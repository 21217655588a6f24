"""The command line: its names are the parameters of ``MLproject``."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Options:
    """What the user asked for; the texts of ``parse`` say what each is."""

    num_epochs: int
    learning_rate: float
    momentum: float
    scale_learning_rate: int
    batch_size: int
    image_size: int
    data_dir: str
    data_url: str
    output_dir: str
    weights: str
    model_name: str
    seed: int
    workers: int


def parse(argv: Sequence[str] | None, description: str) -> Options:
    """Read and check the command line; a wrong value ends the process with status 2 and one line."""
    parser = argparse.ArgumentParser(
        usage="train.py [--name value]...   (--help lists the names)",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--num_epochs", type=int, default=25)
    add("--learning_rate", type=float, default=0.005, help="falls to a fifth after 60 and 85 %% of them")
    add("--momentum", type=float, default=0.9)
    add("--scale_learning_rate", type=int, default=0, help="1: times the number of ranks, 0: as it is")
    add("--batch_size", type=int, default=16, help="images of a step; of each rank, if there are several")
    add("--image_size", type=int, default=64, help="side in pixels of what the network sees")
    add("--data_dir", default="", help="folder with train/<class>/ and val/<class>/; empty: draw one")
    add("--data_url", default="", help="zip of such a folder, URL or path, with #sha256=<hex> checked")
    add("--output_dir", default="outputs", help="where model.pt and classes.json go")
    add("--weights", default="auto", help="imagenet, none, a state dict's path, auto: imagenet if at hand")
    add("--model_name", default="", help="register the model under this name")
    add("--seed", type=int, default=0, help="of drawings, weights, order and augmentation")
    add(
        "--workers",
        type=int,
        default=-1,
        help="loading processes; -1: half of the cores, eight at most, shared by the node's ranks",
    )
    options = Options(**vars(parser.parse_args(argv)))
    fault = _fault(options)
    if fault:
        parser.error(fault)
    return options


def _fault(options: Options) -> str:
    rules = {
        "num_epochs": (options.num_epochs >= 1, "at least 1"),
        "learning_rate": (0 < options.learning_rate < math.inf, "above 0"),
        "momentum": (0 <= options.momentum < 1, "from 0 to below 1"),
        "scale_learning_rate": (options.scale_learning_rate in {0, 1}, "0 or 1"),
        "batch_size": (options.batch_size >= 2, "at least 2"),
        "image_size": (options.image_size >= 32, "at least 32"),
        "seed": (options.seed >= 0, "0 or more"),
        "workers": (options.workers >= -1, "0 or more, or -1"),
        "weights": (bool(options.weights), "imagenet, none, auto or a path"),
    }
    for name, (good, rule) in rules.items():
        if not good:
            return f"{name} is {getattr(options, name)!r}, but must be {rule}"
    if options.data_dir and options.data_url:
        return "data_dir and data_url are both given: leave one of them empty"
    return ""
