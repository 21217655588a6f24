"""The parts of the turkey-and-chicken example; ``train.py`` beside this folder puts them together."""

from __future__ import annotations


class InputError(Exception):
    """Something the user gave cannot be used; the message is one line that names it and the remedy."""
