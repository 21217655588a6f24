"""Words of the command line that say several things."""

from __future__ import annotations

import click


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


def launched(shape: str | None, launcher: str | None, config: str | None) -> None:
    """Raise UsageError where several ranks are wanted and nothing says what starts them."""
    if shape and shape.lower() != "1x1" and not launcher and not config:
        raise click.UsageError(f"-j {shape} needs --launcher torchrun, horovod or mpirun")


def shape(option: str, text: str | None) -> dict[str, int]:
    """``NODESxRANKS`` as keys of the backend config; raises BadParameter."""
    if text is None:
        return {}
    nodes, _, ranks = text.lower().partition("x")
    if not (nodes.isdigit() and ranks.isdigit() and int(nodes) and int(ranks)):
        raise click.BadParameter(f"{text!r} is not of the form NODESxRANKS, such as 2x4", param_hint=option)
    return {"node_count": int(nodes), "process_count_per_node": int(ranks)}
