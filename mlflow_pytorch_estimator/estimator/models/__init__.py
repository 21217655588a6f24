"""``Model``, and how what a run left becomes a registered version."""
