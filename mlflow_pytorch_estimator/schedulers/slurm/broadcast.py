"""The submit host's side of sending: ``sbcast`` puts archives on the disks of all nodes, ``tar`` unpacks them there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow_pytorch_estimator import jobdir, locks
from mlflow_pytorch_estimator.errors import ConfigError, SchedulerError
from mlflow_pytorch_estimator.files import private_folder
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.relay import choosing
from mlflow_pytorch_estimator.schedulers.slurm import client, parcels
from mlflow_pytorch_estimator.schedulers.slurm.far import FarFiles
from mlflow_pytorch_estimator.schedulers.slurm.parcels import Needs, Parcel
from mlflow_pytorch_estimator.secretvalues import without_password
from mlflow_pytorch_estimator.spec import JobSpec

_STEP_SECONDS = 120.0
_TRANSFER_SECONDS = 3600.0
_PATH = "--export=PATH=/usr/local/bin:/usr/bin:/bin"
_MIB = 1 << 20
_LOOK = """\
while [ $# -gt 0 ]; do
  case $1 in
    absent) [ ! -e "$2" ] || echo "shared $SLURMD_NODENAME $2"; shift 2 ;;
    make) mkdir -p "$2" || exit 1; shift 2 ;;
    need) [ -x "$2" ] || echo "need $SLURMD_NODENAME $2"; shift 2 ;;
    have) [ -e "$2" ] && { [ -z "$3" ] || [ "$(sha256sum <"$2")" = "$3  -" ]; } || echo "lack $SLURMD_NODENAME $2"
          shift 3 ;;
  esac
done
"""
# Renamed into its place when it is whole: nobody ever sees half of it, and of two jobs that bring the same one wins.
_UNPACK = """\
archive=$1 target=$2 mode=$3 new=$2.new-$SLURM_JOB_ID old=$2.old-$SLURM_JOB_ID
shift 3
trap 'rm -rf "$archive" "$new" "$old"' EXIT
rm -rf "$new" && mkdir -m "$mode" "$new" && tar --extract --no-same-owner --file "$archive" --directory "$new" || exit 1
if [ -e "$target" ]; then mv -T "$target" "$old" || exit 1; fi
mv -T "$new" "$target" || [ -e "$target" ] || exit 1
while [ $# -gt 0 ]; do
  mkdir -p "$(dirname "$1")" && ln -sfn "$2" "$1" || exit 1
  shift 2
done
"""


def check(job: JobSpec) -> None:
    """Raise ConfigError for what cannot be without a shared file system."""
    if job.shared_filesystem:
        return
    if job.container is not None:
        raise ConfigError("shared_filesystem is false, and images are not sent to the nodes: leave out the image")
    if job.prepare_on == "node":
        raise ConfigError("prepare_on: a node can only build for a file system that all share: leave it out")
    if job.distribution.min_nodes is not None:
        raise ConfigError("min_node_count needs a file system that all nodes share: leave it out")
    if job.resources.node_count > 1 and (job.max_retries or job.distribution.max_restarts):
        name = "max_retries" if job.max_retries else "max_restarts"
        raise ConfigError(
            f"{name} on several nodes needs a file system that they share, for the checkpoints: leave it out"
        )
    if job.inputs and job.storage_dir is not None:
        raise ConfigError(
            f"the inputs in {job.storage_dir} are not sent to the nodes: leave out --storage-dir, "
            "and they come into the job directory"
        )
    _check_store(job.tracking_uri)


def _check_store(uri: str | None) -> None:
    if uri is not None and choosing.only_from_here(uri):
        raise ConfigError(
            f"the nodes cannot reach the tracking store {without_password(uri or '')}, and shared_filesystem is false: "
            "start `mlflow server --host 0.0.0.0` and set MLFLOW_TRACKING_URI to http://THIS_HOST:PORT"
        )


@dataclass(frozen=True)
class _Cargo:
    """What one archive brings."""

    target: Path
    contents: Sequence[str]
    """As arguments of ``tar``."""
    mode: str = "755"
    """Of the folder that it becomes."""
    links: tuple[tuple[Path, Path], ...] = ()


@dataclass(frozen=True)
class Nodes:
    """The nodes that Slurm gave to a job."""

    job_id: str
    names: tuple[str, ...]

    def step(self, *command: str, only: str | None = None) -> list[str]:
        """A command on each of them, or on one, beside whatever else runs there."""
        count = 1 if only else len(self.names)
        where = ("--nodelist", only) if only else ("--ntasks-per-node=1", "--label", "--input=none")
        return [
            *("srun", f"--jobid={self.job_id}", "--overlap", f"--nodes={count}", f"--ntasks={count}", *where),
            *("--cpus-per-task=1", "--mpi=none", "--chdir=/", "--quiet", _PATH, "--job-name=courier", *command),
        ]

    def shell(self, script: str, *arguments: str, seconds: float = _STEP_SECONDS) -> list[str]:
        """Run a script on all of them; the lines that it prints. SchedulerError with the first node's complaint."""
        answer = client.run(*self.step("sh", "-c", script, "sh", *arguments), patient=True, seconds=seconds)
        if answer.code != 0:
            lines = [line.partition(": ")[2] for line in answer.errors.splitlines() if line.strip()[:1].isdigit()]
            raise SchedulerError(lines[0] if lines else f"srun: {answer.reason}")
        return [line.partition(": ")[2] for line in answer.output.splitlines()]


def send(directory: JobDir, nodes: Nodes, say: Callable[[str], None]) -> None:
    """Bring all that a job needs to its nodes. ConfigError: what always hinders it; SchedulerError: what may pass."""
    needed = parcels.needs(directory.job.interpreter)
    folders = {directory.path.parent, *(parcel.folder.parent for parcel in needed.parcels)}
    _look(directory, nodes, folders, needed)
    for parcel in needed.parcels:
        _send_parcel(parcel, nodes, say)
    with parcels.of_the_job(directory) as contents:
        say(f"sends the job to {', '.join(nodes.names)}")
        # From here on the journal grows on the first node alone: it comes back from where it is now.
        _transfer(_Cargo(directory.path, contents, "700"), nodes)
    FarFiles(directory).sent.write_text(nodes.job_id, encoding="ascii")


def _look(directory: JobDir, nodes: Nodes, folders: set[Path], needed: Needs) -> None:
    # What is sent replaces what is there: it must not be this directory itself.
    words = ["absent", str(FarFiles(directory).lock)]
    words += [word for folder in sorted(folders) for word in ("make", str(folder))]
    words += [word for path in needed.present for word in ("need", str(path))]
    try:
        lines = nodes.shell(_LOOK, *words)
    except SchedulerError as error:
        if "mkdir: " not in str(error):
            raise
        raise ConfigError(
            f"a node says {str(error).removeprefix('mkdir: ')}: set GPU_CLUSTER_HOME and GPU_CLUSTER_ENVIRONMENTS to "
            "folders that you may make on the disks of the nodes"
        ) from None
    shared = [line.split()[1] for line in lines if line.startswith("shared ")]
    if shared:
        raise ConfigError(
            f"node {shared[0]} sees {directory.path}, so there is a shared file system: leave out shared_filesystem"
        )
    missing = sorted(line.removeprefix("need ") for line in lines if line.startswith("need "))
    if missing:
        node, _, program = missing[0].partition(" ")
        raise ConfigError(
            f"node {node} has no {program}, which is not sent: install it there, or let the environment have a Python "
            "of uv's (uv python install) or of pyenv's"
        )


def _send_parcel(parcel: Parcel, nodes: Nodes, say: Callable[[str], None]) -> None:
    folder = _bundles()
    with locks.holding(folder / f"{parcel.folder.name}.lock"):  # another job may be bringing the same to the same nodes
        lines = nodes.shell(_LOOK, "have", str(parcel.proof), parcel.digest)
        if not any(line.startswith("lack ") for line in lines):
            return
        excluded = [f"--exclude={pattern}" for pattern in parcel.excluded]
        say(f"sends {parcel.title} to {', '.join(nodes.names)}")
        contents = [*excluded, f"--directory={parcel.folder}", "."]
        sent = _transfer(_Cargo(parcel.folder, contents, links=parcel.links), nodes)
        say(f"sent {parcel.title}: {sent / _MIB:.0f} MiB")


def _bundles() -> Path:
    folder = jobdir.home() / "slurm" / "bundles"
    private_folder(folder)
    return folder


def _transfer(cargo: _Cargo, nodes: Nodes) -> int:
    """Bring it to all nodes; returns its size."""
    archive = _bundles() / f"{cargo.target.name}-{nodes.job_id}.tar"
    there = cargo.target.with_name(f".{archive.name}")
    try:
        _run("tar", "--create", f"--file={archive}", *cargo.contents)
        archive.chmod(0o600)  # sbcast keeps the mode
        size = archive.stat().st_size
        _run("sbcast", f"--jobid={nodes.job_id}", "--force", str(archive), str(there))
    finally:
        archive.unlink(missing_ok=True)
    links = [str(path) for link in cargo.links for path in link]
    nodes.shell(_UNPACK, str(there), str(cargo.target), cargo.mode, *links, seconds=_TRANSFER_SECONDS)
    return size


def _run(*argv: str) -> None:
    answer = client.run(*argv, patient=True, seconds=_TRANSFER_SECONDS)
    if answer.code != 0:
        raise SchedulerError(f"{argv[0]}: {answer.reason}")
