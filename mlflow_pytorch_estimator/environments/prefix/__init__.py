"""Environments in which conda installs what only conda has."""
