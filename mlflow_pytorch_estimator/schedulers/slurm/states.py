"""What Slurm's states and reasons mean. Source: ``squeue(1)`` and ``sacct(1)`` of Slurm 22.05 to 25.05."""

from __future__ import annotations

from dataclasses import dataclass

from mlflow_pytorch_estimator.status import Phase


@dataclass(frozen=True)
class State:
    """One of Slurm's job states."""

    phase: Phase
    words: str
    """Of states that end a job: how it ended."""
    over: bool = False


_QUEUED, _SCALING, _RUNNING = Phase.QUEUED, Phase.SCALING, Phase.RUNNING
_FAILED = Phase.FAILED

STATES: dict[str, State] = {
    "BOOT_FAIL": State(_FAILED, "a node of the job did not boot", True),
    "CANCELLED": State(Phase.CANCELED, "canceled in Slurm", True),
    "COMPLETED": State(Phase.COMPLETED, "", True),
    "CONFIGURING": State(_SCALING, ""),
    "COMPLETING": State(Phase.FINALIZING, ""),
    "DEADLINE": State(_FAILED, "the deadline of the job in Slurm was over", True),
    "FAILED": State(_FAILED, "the job failed in Slurm", True),
    "LAUNCH_FAILED": State(_FAILED, "Slurm could not start the job on a node", True),
    "NODE_FAIL": State(_FAILED, "a node of the job failed", True),
    "OUT_OF_MEMORY": State(_FAILED, "out of memory", True),
    "PENDING": State(_QUEUED, ""),
    "POWER_UP_NODE": State(_SCALING, ""),
    "PREEMPTED": State(_FAILED, "preempted by a job that came first", True),
    "RUNNING": State(_RUNNING, ""),
    "RESV_DEL_HOLD": State(_QUEUED, "held: its reservation was deleted"),
    "REQUEUE_FED": State(_QUEUED, "being requeued by a federation"),
    "REQUEUE_HOLD": State(_QUEUED, "requeued and held"),
    "REQUEUED": State(_QUEUED, "requeued"),
    "RESIZING": State(_RUNNING, ""),
    "REVOKED": State(Phase.CANCELED, "revoked: another cluster of the federation runs the job", True),
    "RECONFIG_FAIL": State(_FAILED, "the reconfiguration of a node failed", True),
    "SPECIAL_EXIT": State(_QUEUED, "requeued with a special exit state and held"),
    "SIGNALING": State(_RUNNING, ""),
    "STAGE_OUT": State(Phase.FINALIZING, ""),
    "STOPPED": State(_RUNNING, "stopped in Slurm, its resources are kept"),
    "SUSPENDED": State(_RUNNING, "suspended in Slurm"),
    "TIMEOUT": State(_FAILED, "TIMEOUT: the job's time limit in Slurm was over", True),
}
"""By the names that ``squeue`` and ``sacct`` print in full."""


def find(name: str) -> State | None:
    """The meaning of ``RUNNING``, ``CANCELLED by 1000`` or ``CANCELLED+``; None for a state that is not known."""
    words = name.strip().rstrip("+*").split()
    return STATES.get(words[0].rstrip("+*")) if words else None


REASONS = {
    "AccountNotAllowed": "the partition does not admit the account: cancel the job and name another one",
    "AccountingPolicy": "the accounting policy does not admit the job now",
    "BadConstraints": "no node meets the constraint: cancel the job and correct it",
    "BeginTime": "it was requeued, or asked for a later start",
    "Cleaning": "it was requeued and is being cleaned up after",
    "Dependency": "waits for another job to end",
    "DependencyNeverSatisfied": "the job it waits for did not end as required, it will never start: cancel it",
    "InvalidAccount": "the account is not valid: cancel the job and name another one",
    "InvalidQOS": "the QOS is not valid: cancel the job and name another one",
    "JobArrayTaskLimit": "the array may not run more tasks at once",
    "JobHeldAdmin": "an administrator holds the job",
    "JobHeldUser": "it is held: `scontrol release` lets it go",
    "JobHoldMaxRequeue": "it was requeued too often, and is held",
    "JobLaunchFailure": "it could not be started, and is held",
    "Licenses": "waits for a license",
    "MaxMemPerLimit": "it asks for more memory than one job may have: cancel it and ask for less",
    "NodeDown": "a node that it needs is down",
    "None": "",
    "PartitionConfig": "it asks for more than the partition allows: cancel it and ask for less",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition is inactive",
    "PartitionNodeLimit": "it asks for more nodes than the partition allows, or they are down",
    "PartitionTimeLimit": "it asks for more time than the partition allows: cancel it and ask for less",
    "Priority": "jobs of higher priority come first",
    "Prolog": "its nodes are being prepared",
    "ReqNodeNotAvail": "a node that it needs is not available",
    "Reservation": "waits for its reservation",
    "Resources": "waits for free nodes",
    "launch failed requeued held": "it could not be started, and is held",
    "user env retrieval failed requeued held": "a node could not load your environment; it is held",
}
"""Why a job waits, as Slurm calls it and in plain words. Limits have hundreds of names, see ``plain``."""

_PREFIXES = (
    ("QOSMax", "the limit of the QOS is reached"),
    ("QOSMin", "it asks for less than the QOS wants"),
    ("QOSGrp", "all users of the QOS together have reached its limit"),
    ("QOS", "the QOS does not admit it now"),
    ("AssocMax", "your limit is reached"),
    ("AssocGrp", "your group's limit is reached"),
    ("Assoc", "your association with the account does not admit it now"),
    ("MaxJobs", "your limit of jobs is reached"),
    ("BurstBuffer", "waits for a burst buffer"),
    ("Federation", "the federation decides where it runs"),
    ("Node", "a node that it needs is not available"),
    ("FrontEnd", "the front end is down"),
    ("Partition", "the partition does not admit it now"),
    ("System", "Slurm had an error of its own"),
)


def plain(reason: str) -> str:
    """A waiting reason in plain words with Slurm's own: ``waits for free nodes (Resources)``; "" for none."""
    name = reason.strip().strip("()")
    if not name or name == "None":
        return ""
    # Where blanks stand in a reason, most versions of Slurm print underscores.
    words = REASONS.get(name.split(",")[0].split("(")[0].replace("_", " ").strip())
    if words is None:
        words = next((text for prefix, text in _PREFIXES if name.startswith(prefix)), "")
    return f"{words} ({name})" if words else name
