"""``doctor``: what this machine has for jobs, and what to do about what it lacks."""
