"""Launchers: how the ranks of a job start."""
