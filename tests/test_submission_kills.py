"""A few seeds of ``submission_kills.py``; the extended tests play two hundred."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from slurm_cluster import Slurm

SCRIPT = Path(__file__).with_name("submission_kills.py")


def play(*arguments: str) -> dict[int, str]:
    """Play some seeds; where each was killed, and how its run ended."""
    # Apart: a fork of this process would have the threads of other tests.
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return {int(seed): told for seed, told in re.findall(r"^ *(\d+) (\S+:\d+ .*)$", done.stdout, re.MULTILINE)}


def test_what_a_killed_submitter_leaves_is_put_right() -> None:
    killed = play("--seeds", "0", "20", "--batch", "7")
    assert len(killed) == 20, killed
    ends = " ".join(killed.values())
    assert "FINISHED" in ends, "some jobs were handed over, and go on"
    assert "FAILED" in ends, "others were not"
    assert len({told.partition(" ")[0] for told in killed.values()}) > 10, "at many places"


def test_two_hundred_killed_submitters() -> None:
    assert len(play("--seeds", "0", "200")) == 200


def test_a_job_that_slurm_has_taken_goes_on_although_its_submitter_was_killed(slurm: Slurm) -> None:
    killed = play("--seeds", "0", "6", "--batch", "6", "--scheduler", "slurm", "--window", "sbatch")
    assert all(told.endswith("FINISHED") for told in killed.values()), killed
    assert slurm.command("squeue", "--noheader").strip() == ""
