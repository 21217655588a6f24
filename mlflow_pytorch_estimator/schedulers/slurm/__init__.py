"""Slurm as the engine: it queues and places, this package describes the job and reads what Slurm says of it.

Only ``sbatch``, ``squeue``, ``scancel``, ``scontrol``, ``sinfo``, ``srun`` and, where a site has it, ``sacct`` are
used, in text formats with explicit fields that Slurm 22.05 and every later version have.
"""
