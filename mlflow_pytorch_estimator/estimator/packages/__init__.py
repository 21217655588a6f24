"""``Environment`` and ``CondaDependencies``: packages in the original's words."""
