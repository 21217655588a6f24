"""Words of the command line that say several things."""

from __future__ import annotations

import difflib
import re

import click

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> float:
    """``90``, ``90s``, ``30m``, ``2h`` or ``1d`` in seconds; raises BadParameter."""
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)([smhd]?)", text.strip())
    if found is None:
        raise click.BadParameter(f"{text!r} is no time: write seconds, such as 90, or 90s, 30m, 2h, 1d")
    return float(found[1]) * _SECONDS[found[2]]


def pairs(option: str, words: tuple[str, ...]) -> dict[str, str]:
    """``NAME=VALUE`` words as a dict; raises BadParameter."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{word!r} is not of the form NAME=VALUE", param_hint=option)
        if name in found:
            raise click.BadParameter(f"{name} is given twice", param_hint=option)
        found[name] = value
    return found


def options() -> set[str]:
    """The options of the command that runs."""
    parameters = click.get_current_context().command.params
    return {option for parameter in parameters for option in parameter.opts if option.startswith("-")}


def misspelled(word: str, cutoff: float = 0.6) -> list[str]:
    """The options of the command that runs which a word may have been meant for."""
    return difflib.get_close_matches(word, options(), cutoff=cutoff)


def launched(shape: str | None, launcher: str | None, config: str | None) -> None:
    """Raise UsageError where several ranks are wanted and nothing says what starts them."""
    asked = shape_of("-j", shape)
    if set(asked.values()) - {1} and not launcher and not config:
        raise click.UsageError(f"-j {shape} needs --launcher torchrun, horovod or mpirun")


def shape_of(option: str, text: str | None) -> dict[str, int]:
    """``NODESxRANKS`` as keys of the backend config; raises BadParameter."""
    if text is None:
        return {}
    nodes, _, ranks = text.lower().partition("x")
    if not (nodes.isdigit() and ranks.isdigit()):
        raise click.BadParameter(f"{text!r} is not of the form NODESxRANKS, such as 2x4", param_hint=option)
    if not (int(nodes) and int(ranks)):
        raise click.BadParameter(f"{text!r} is nothing: there is at least one node with one rank", param_hint=option)
    return {"node_count": int(nodes), "process_count_per_node": int(ranks)}
