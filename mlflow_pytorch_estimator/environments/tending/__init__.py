"""Look after the cache: list, check, remove, prune; nothing here is needed to run a job."""
