"""Compute targets: named clusters, their definition and their state."""
