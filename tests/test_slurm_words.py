"""What is said to Slurm and what is understood of it: the batch script, its states and reasons, recorded output."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mlflow_pytorch_estimator.attempt import Verdict
from mlflow_pytorch_estimator.errors import ConfigError, SchedulerError
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.schedulers.slurm import client, memory, options, place, queries, script, states
from mlflow_pytorch_estimator.schedulers.slurm.queries import Said
from mlflow_pytorch_estimator.spec import Distribution, InterpreterSpec, JobSpec, Resources
from mlflow_pytorch_estimator.status import Phase

JOB = JobSpec("r1", "0", "birds & bees", "main", "python train.py --lr '0.1'", {}, InterpreterSpec("local"))

SMALL = """#!/bin/bash
#SBATCH --job-name=birds---bees
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --output=/home/me/jobs/r1/logs/agent.log
#SBATCH --open-mode=append
#SBATCH --chdir=/home/me/jobs/r1
#SBATCH --comment=r1
#SBATCH --signal=B:USR2@40
#SBATCH --no-requeue
#SBATCH --exclusive

exec /opt/python -m mlflow_pytorch_estimator.schedulers.slurm.node /home/me/jobs/r1
"""
LARGE = """#!/bin/bash
#SBATCH --job-name=birds---bees-horovod
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --output="/home/my jobs/r1/logs/agent.log"
#SBATCH --open-mode=append
#SBATCH --chdir="/home/my jobs/r1"
#SBATCH --comment=r1
#SBATCH --signal=B:USR2@90
#SBATCH --requeue
#SBATCH --cpus-per-task=16
#SBATCH --gres=gpu:a100:2
#SBATCH --mem=65536M
#SBATCH --time=67
#SBATCH --nice=1000
#SBATCH --partition=gpu
#SBATCH --constraint=nvlink
#SBATCH --contiguous

exec /opt/python -m mlflow_pytorch_estimator.schedulers.slurm.node '/home/my jobs/r1'
"""
FAR = """#!/bin/bash
#SBATCH --job-name=birds---bees
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --output=/dev/null
#SBATCH --open-mode=append
#SBATCH --chdir=/
#SBATCH --comment=r1
#SBATCH --signal=B:USR2@130
#SBATCH --no-requeue
#SBATCH --exclusive
#SBATCH --time=48

until [ -e '/home/my jobs/r1/arrived' ]; do
  [ $SECONDS -lt 1800 ] || exit 75
  sleep 0.2
done
exec >>'/home/my jobs/r1/logs/agent.log' 2>&1
export PYTHONPATH='/home/my jobs/r1/lib'${PYTHONPATH:+:$PYTHONPATH}
exec /home/me/envs/k/bin/python -m mlflow_pytorch_estimator.schedulers.slurm.node '/home/my jobs/r1'
"""


def test_the_script_of_a_small_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "PYTHON", "/opt/python")
    assert script.batch_script(JOB, JobDir(Path("/home/me/jobs/r1"))) == SMALL


def test_the_script_of_a_large_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "PYTHON", "/opt/python")
    given = {"--partition": "gpu", "constraint": "nvlink", "contiguous": True, "gpu_type": "a100"}
    job = replace(
        JOB,
        entry_point="horovod",
        resources=Resources(4, 16, 2, 64.0, low_priority=True),
        distribution=Distribution("horovod", 2),
        scheduler_options=given,
        max_seconds=3600.0,
        grace_seconds=60.0,
        start_seconds=300.0,
        max_retries=2,
    )
    assert script.batch_script(job, JobDir(Path("/home/my jobs/r1"))) == LARGE


def test_the_script_of_a_job_that_is_sent_to_its_nodes() -> None:
    interpreter = InterpreterSpec("uv", python="/home/me/envs/k/bin/python")
    job = replace(JOB, shared_filesystem=False, interpreter=interpreter, max_retries=1, max_seconds=600.0)
    assert script.batch_script(job, JobDir(Path("/home/my jobs/r1"))) == FAR


def test_paths_that_slurm_would_change_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"Slurm cannot take the path .*set GPU_CLUSTER_HOME"):
        script.batch_script(JOB, JobDir(Path("/home/100%/jobs/r1")))


# --- states and reasons

NAMES = """
    BOOT_FAIL CANCELLED COMPLETED CONFIGURING COMPLETING DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PENDING PREEMPTED
    RUNNING RESV_DEL_HOLD REQUEUE_FED REQUEUE_HOLD REQUEUED RESIZING REVOKED SIGNALING SPECIAL_EXIT STAGE_OUT STOPPED
    SUSPENDED TIMEOUT
"""
OVER = "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED REVOKED TIMEOUT"


def test_every_state_of_slurm_has_a_meaning_and_only_one_is_success() -> None:
    found = {name: states.find(name) for name in NAMES.split()}
    assert len(found) == 24
    assert None not in found.values()
    over = {name for name, state in found.items() if state and state.over}
    assert over == set(OVER.split())
    for name, state in found.items():
        assert state is not None
        assert state.phase.terminal == state.over
        assert (state.phase is Phase.COMPLETED) == (name == "COMPLETED")
        assert state.words or not state.over or name == "COMPLETED"


@pytest.mark.parametrize("words", ["CANCELLED by 1000", "CANCELLED+", " CANCELLED "])
def test_states_with_additions(words: str) -> None:
    assert states.find(words) == states.STATES["CANCELLED"]


@pytest.mark.parametrize("words", ["", "LOST_IN_SPACE"])
def test_states_that_nobody_knows(words: str) -> None:
    assert states.find(words) is None


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("None", ""),
        ("", ""),
        ("(Resources)", "waits for free nodes (Resources)"),
        ("Priority", "jobs of higher priority come first (Priority)"),
        ("QOSMaxGRESPerUser", "the limit of the QOS is reached (QOSMaxGRESPerUser)"),
        ("QOSGrpCpuLimit", "all users of the QOS together have reached its limit (QOSGrpCpuLimit)"),
        ("AssocGrpGRES", "your group's limit is reached (AssocGrpGRES)"),
        ("ReqNodeNotAvail, UnavailableNodes:n1", "a node that it needs is not available (ReqNodeNotAvail, "),
        ("ReqNodeNotAvail,_UnavailableNodes:n_1", "a node that it needs is not available (ReqNodeNotAvail,_Un"),
        ("launch_failed_requeued_held", "it could not be started, and is held (launch_failed_requeued_held)"),
        ("Nodes_required_for_job_are_DOWN,_DRAINED", "a node that it needs is not available (Nodes_required_for"),
        ("SomethingNew", "SomethingNew"),
    ],
)
def test_reasons_in_plain_words(reason: str, words: str) -> None:
    assert states.plain(reason).startswith(words)
    assert bool(states.plain(reason)) == bool(words)


# --- answers of Slurm's programs; recorded, the older ones on 22.05.8


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a test puts programs, the only ones there are."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(client, "_PAUSES", (0.01,))
    return folder


def program(folder: Path, name: str, output: str = "", errors: str = "", code: int = 0) -> None:
    """A program that says this and notes its arguments and environment."""
    path = folder / name
    path.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        f"open({str(folder / name)!r} + '.argv', 'a').write(' '.join(sys.argv[1:]) + chr(10))\n"
        f"open({str(folder / name)!r} + '.environ', 'w').write(chr(10).join(os.environ))\n"
        f"sys.stdout.write({output!r})\nsys.stderr.write({errors!r})\nsys.exit({code})\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def asked(folder: Path, name: str) -> list[str]:
    return (folder / f"{name}.argv").read_text().splitlines()


def test_one_question_for_many_jobs(programs: Path) -> None:
    program(
        programs,
        "squeue",
        "7|RUNNING|None|n[1-2]\n8|PENDING|Resources|\n9|CONFIGURING|None|c1\n"
        "10|COMPLETED|None|n1\n11|PENDING|(Priority)|(null)\n",
    )
    assert queries.active(["7", "8", "9", "10", "11", "12"]) == {
        "7": Said("RUNNING", "None", "n[1-2]"),
        "8": Said("PENDING", "Resources"),
        "9": Said("CONFIGURING", "None", "c1"),
        "10": Said("COMPLETED", "None", "n1"),
        "11": Said("PENDING", "Priority"),
    }
    assert asked(programs, "squeue") == ["--noheader --states=all --jobs=10,11,12,7,8,9 --format=%i|%T|%r|%N"]


def test_no_job_is_known_any_more(programs: Path) -> None:
    program(programs, "squeue", errors="slurm_load_jobs error: Invalid job id specified\n", code=1)
    assert queries.active(["7"]) == {}


AWAY = (
    "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
    "squeue: error: Socket timed out on send/recv operation",
    "slurm_load_jobs error: Zero Bytes were transmitted or received",
)


@pytest.mark.parametrize("words", AWAY)
def test_a_controller_that_is_away_is_no_answer(programs: Path, words: str) -> None:
    program(programs, "squeue", errors=f"{words}\n", code=1)
    with pytest.raises(SchedulerError, match=r"^squeue: "):
        queries.active(["7"])


def test_a_patient_question_is_asked_again(programs: Path) -> None:
    program(programs, "scontrol", errors=f"{AWAY[0]}\n", code=1)
    with pytest.raises(SchedulerError, match="Unable to contact"):
        client.ask("scontrol", "ping")
    assert len(asked(programs, "scontrol")) == 2


def test_a_job_that_the_accounting_knows(programs: Path) -> None:
    program(programs, "sacct", "7|NODE_FAIL|0:0|n1\n7|TIMEOUT|0:15|n[1-2]\n70|COMPLETED|0:0|n1\n")
    program(programs, "scontrol", code=1)
    assert queries.ended("7") == Said("TIMEOUT", "", "n[1-2]", -15)


@pytest.mark.parametrize(
    ("output", "errors", "code"),
    [
        ("", "Slurm accounting storage is disabled\n", 1),
        ("", "", 0),
        ("", "sacct: error: Problem talking to the db\n", 1),
    ],
)
def test_without_accounting_the_controller_is_asked(programs: Path, output: str, errors: str, code: int) -> None:
    program(programs, "sacct", output, errors, code)
    program(
        programs,
        "scontrol",
        "JobId=7 JobName=a b UserId=root(0) JobState=OUT_OF_MEMORY Reason=OutOfMemory Requeue=0 ExitCode=0:125 "
        "NodeList=n2 BatchHost=n2\n",
    )
    assert queries.ended("7") == Said("OUT_OF_MEMORY", "OutOfMemory", "n2", -125)


def test_jobs_of_other_clusters_are_asked_for_there(programs: Path) -> None:
    program(programs, "squeue", "7|PENDING|Resources|\n8|RUNNING|None|n1\n")
    assert queries.active(["7", "8;gpu", "7;gpu"]) == {
        "7": Said("PENDING", "Resources"),
        "7;gpu": Said("PENDING", "Resources"),
        "8;gpu": Said("RUNNING", "None", "n1"),
    }
    assert asked(programs, "squeue") == [
        "--noheader --states=all --jobs=7 --format=%i|%T|%r|%N",
        "--clusters=gpu --noheader --states=all --jobs=7,8 --format=%i|%T|%r|%N",
    ]
    program(programs, "sacct", "7|CANCELLED by 0|0:0|None assigned\n")
    assert queries.ended("7;gpu") == Said("CANCELLED by 0", "", "", 0)
    assert asked(programs, "sacct")[0].startswith("--clusters=gpu --allocations ")
    program(programs, "sacct", code=1)
    program(programs, "scontrol", "JobId=7 JobState=CANCELLED Reason=None ExitCode=0:0 NodeList=(null)\n")
    assert queries.ended("7;gpu") == Said("CANCELLED", "None", "", 0)
    assert asked(programs, "scontrol") == ["--clusters=gpu --oneliner show job 7"]


def test_a_job_that_nobody_knows(programs: Path) -> None:
    program(programs, "scontrol", errors="slurm_load_jobs error: Invalid job id specified\n", code=1)
    assert queries.ended("7") is None


def test_many_jobs_are_two_questions(programs: Path) -> None:
    program(programs, "sacct", "7|TIMEOUT|0:15|n1\n9|COMPLETED|0:0|n1\n")
    shown = "JobId={} JobState=FAILED Reason=None ExitCode=3:0 NodeList=n2\n"
    program(programs, "scontrol", shown.format(8) + shown.format(80))
    assert queries.all_ended({"7", "8", "6"}) == {
        "7": Said("TIMEOUT", "", "n1", -15),
        "8": Said("FAILED", "None", "n2", 3),
    }
    assert [len(asked(programs, name)) for name in ("sacct", "scontrol")] == [1, 1]


@pytest.mark.parametrize(("text", "status"), [("3:0", 3), ("0:9", -9), ("0:0", 0), ("", None), ("x", None), ("1", 1)])
def test_exit_statuses(text: str, status: int | None) -> None:
    assert queries.exit_status(text) == status


def test_settings_of_the_users_shell_do_not_reach_the_commands(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SBATCH_PARTITION", "SLURM_JOB_ID", "SLURM_NTASKS", "SQUEUE_FORMAT", "SLURM_CONF", "SLURM_CLUSTERS"):
        monkeypatch.setenv(name, "x")
    program(programs, "sbatch")
    client.run("sbatch")
    there = (programs / "sbatch.environ").read_text().splitlines()
    assert not {"SBATCH_PARTITION", "SLURM_JOB_ID", "SLURM_NTASKS", "SQUEUE_FORMAT"} & set(there)
    assert {"SLURM_CONF", "SLURM_CLUSTERS"} <= set(there)


def test_what_a_user_says_for_all_jobs_counts_where_the_job_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCOUNT", "PARTITION", "QOS", "OUTPUT", "GRES", "TIMELIMIT"):
        monkeypatch.setenv(f"SBATCH_{name}", f"my-{name.lower()}")
    monkeypatch.setenv("SBATCH_CONSTRAINT", "")
    assert options.users_defaults(["--partition", "mem"]) == ("--account=my-account", "--qos=my-qos")
    assert options.users_defaults([])[1] == "--partition=my-partition"


def test_a_program_that_does_not_answer(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (programs / "squeue").write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    (programs / "squeue").chmod(0o755)
    monkeypatch.setattr(client, "_LIMIT_SECONDS", 0.5)
    with pytest.raises(SchedulerError, match=r"squeue has not answered within 0\.5 s"):
        queries.active(["7"])


# --- an agent killed for memory; what slurmstepd of 22.05, of 20.11 with cgroups, and of newer ones writes


@pytest.mark.parametrize(
    ("words", "is_so"),
    [
        ("slurmstepd-n1: error: StepId=2.batch exceeded memory limit (530903040 > 268435456), being killed", True),
        ("slurmstepd: error: Exceeded job memory limit", True),
        ("slurmstepd: error: Detected 1 oom-kill event(s) in StepId=9.batch. Some of your processes may have", True),
        (
            "slurmstepd: error: Detected 1 oom_kill event in StepId=9.0. Some of the step tasks have been OOM Killed.",
            True,
        ),
        ("slurmstepd: error: *** JOB 2 ON n1 CANCELLED AT 2026-11-26T19:23:52 ***", False),
        ("the user's own words: exceeded memory limit", False),
    ],
)
def test_what_was_killed_for_its_memory(tmp_path: Path, words: str, *, is_so: bool) -> None:
    log = tmp_path / "agent.log"
    assert not memory.exceeded(log)
    log.write_text(f"before\n{words}\nafter\n")
    assert memory.exceeded(log) == is_so


def test_the_loss_of_a_node_is_explained_by_it_and_nothing_else_is(tmp_path: Path) -> None:
    lost = Verdict(failure={"rank": None, "node": "n2", "reason": "node n2 was lost"})
    assert memory.explained(lost, tmp_path) is lost
    (tmp_path / "agent_1.log").write_text("slurmstepd: error: Exceeded job memory limit\n")
    found = memory.explained(lost, tmp_path).failure
    assert found is not None
    assert (found["reason"], found["out_of_memory"]) == ("node n2 was lost (out of memory: Slurm ended it)", True)
    for failure in (None, {"rank": 1, "node": "n1", "reason": "x"}, {"rank": None, "reason": "ran longer"}):
        verdict = Verdict(failure=failure)
        assert memory.explained(verdict, tmp_path) is verdict


# --- where a node stands


def test_a_node_of_several(programs: Path) -> None:
    program(programs, "scontrol", "no-such-host-1\nno-such-host-2\n")
    environ = {
        "SLURM_JOB_ID": "7",
        "SLURMD_NODENAME": "no-such-host-2",
        "SLURM_JOB_NODELIST": "no-such-host-[1-2]",
        "SLURM_CPUS_ON_NODE": "6",
        "CUDA_VISIBLE_DEVICES": "0,2",
    }
    found = place.here(environ)
    assert (found.node, found.cpus, found.cores, found.gpus) == ("no-such-host-2", (), 6, (0, 2))
    others = place.others(environ, found)
    assert others is not None
    assert others.names == ("no-such-host-1",)
    assert others.prefixes[0][0] == "srun"
    assert "--cpus-per-task=6" in others.prefixes[0]
    assert "--nodelist=no-such-host-1" in others.prefixes[0]


def test_a_single_node() -> None:
    environ = {"SLURM_JOB_ID": "7", "SLURMD_NODENAME": "localhost", "SLURM_JOB_NODELIST": "localhost"}
    found = place.here(environ)
    assert (found.node, found.gpus, found.cores) == ("localhost", (), os.cpu_count())
    assert place.others(environ, found) is None


def test_gpus_by_their_long_names() -> None:
    environ = {"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "GPU-4b5a,MIG-17"}
    assert place.here(environ).gpus == (0, 1)


def test_outside_of_slurm() -> None:
    with pytest.raises(SchedulerError, match="SLURM_JOB_ID is not set"):
        place.here({})
