"""Shared fixtures: a private home, real tracking stores, small projects, real processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import horovod_built
import mlflow
import pytest
from extended import pytest_collection_modifyitems  # noqa: F401 - a hook
from gateway import gateway, through  # noqa: F401 - fixtures
from hypothesis import HealthCheck, settings
from images import image, podman_settings, registry, small_root  # noqa: F401 - fixtures
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from mounts import mount  # noqa: F401 - a fixture
from slurm_cluster import lab, slurm  # noqa: F401 - fixtures
from told_at_once import pytest_configure  # noqa: F401 - a hook
from tracking_server import serving

from mlflow_pytorch_estimator import Experiment, Workspace
from mlflow_pytorch_estimator.environments import ReadyEnvironment
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.submitted_run import GpuClusterSubmittedRun

ROOT = Path(__file__).resolve().parents[1]

# How long a draw takes says something about the machine, not about what is tested.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
# A shell that runs the tests in the background ignores these for them and for all that they start.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _handler)


def wait_until(condition: Callable[[], object], seconds: float = 60.0, what: str = "condition") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {seconds:.0f} s")
        time.sleep(0.05)


def vanish(folder: Path) -> None:
    """Remove a folder in which others still write: what goes while it is walked through is no error."""

    def gone() -> bool:
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()

    wait_until(gone, 10, f"the removal of {folder}")


def processes_with(text: str) -> list[int]:
    """Pids of living processes whose command line or environment holds a text."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            seen = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if state != "Z" and text.encode() in seen:
            found.append(int(entry.name))
    return found


@pytest.fixture(autouse=True)
def _no_active_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow keeps the experiment that an earlier test has set, and then refuses runs of another."""
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A GPU_CLUSTER_HOME of its own."""
    path = tmp_path / "home"
    monkeypatch.setenv("GPU_CLUSTER_HOME", str(path))
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "GPU_CLUSTER_ALLOCATION", "GPU_CLUSTER_JOB_DIR"):
        monkeypatch.delenv(name, raising=False)
    return path


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store as MLflow makes it: MLflow needs a second for that, a copy needs none."""
    folder = tmp_path_factory.mktemp("empty")
    MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
    return folder / "mlflow.db"


def copy_store(empty: Path, target: Path, artifacts: str) -> None:
    """A store of a test's own, with the default experiment's files where MLflow would put them."""
    shutil.copyfile(empty, target)
    with contextlib.closing(sqlite3.connect(target)) as connection:
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", (artifacts,))
        connection.commit()


@pytest.fixture
def store(tmp_path: Path, home: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    """A SQLite store of its own, as MLflow's current one."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    copy_store(empty_store, tmp_path / "mlflow.db", str(tmp_path / "mlruns/0"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", uri)
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    monkeypatch.chdir(tmp_path)
    client = MlflowClient()
    # Another test may have left its own active experiment in this process; the variable would reach `mlflow run`.
    mlflow.set_experiment(experiment_id="0")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
    yield client
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty source folder."""
    path = tmp_path / "src"
    path.mkdir()
    return path


@pytest.fixture
def experiment(store: MlflowClient) -> Experiment:
    """An experiment of the estimator in the current store."""
    return Experiment(Workspace(), "birds")


@dataclass
class Server:
    """A real `mlflow server`."""

    uri: str
    client: MlflowClient


@pytest.fixture
def server(tmp_path: Path, home: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of the test's own, as MLflow's current store."""
    copy_store(empty_store, tmp_path / "server.db", "mlflow-artifacts:/0")
    with serving(tmp_path / "server.db") as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setenv("MLFLOW_REGISTRY_URI", uri)
        yield Server(uri, MlflowClient(uri, uri))


@dataclass
class Project:
    """A project folder in the making."""

    path: Path
    entry_points: dict[str, str] = field(default_factory=dict)

    def entry(self, name: str, command: str, parameters: str = "") -> Project:
        """Add an entry point; ``parameters`` is YAML in braces."""
        lines = [f"  {name}:"]
        if parameters:
            lines.append(f"    parameters: {parameters}")
        lines.append(f"    command: {json.dumps(command)}")
        self.entry_points[name] = "\n".join(lines)
        body = "\n".join(self.entry_points.values())
        (self.path / "MLproject").write_text(f"name: toy\nentry_points:\n{body}\n", encoding="utf-8")
        return self

    def script(self, text: str, name: str = "train.py", parameters: str = "") -> Project:
        """Add a Python script and an entry point `main` for it."""
        (self.path / name).write_text(text, encoding="utf-8")
        return self.entry("main", f"python {name}", parameters)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    path = tmp_path / "project"
    path.mkdir()
    return Project(path)


def submit(project: Project | str | Path, **options: object) -> GpuClusterSubmittedRun:
    """Submit through MLflow's Python API with this interpreter, without waiting."""
    uri = str(project.path if isinstance(project, Project) else project)
    settings: dict[str, object] = {"synchronous": False, "env_manager": "local", **options}
    config = settings.pop("config", None)
    run = mlflow.projects.run(uri, backend="gpu-cluster", backend_config=config, **settings)
    assert isinstance(run, GpuClusterSubmittedRun)
    return run


@dataclass
class Finished:
    """A run after its job, with what it left."""

    run: Run
    directory: JobDir
    client: MlflowClient
    succeeded: bool

    @property
    def log(self) -> str:
        return self.directory.rank_log(0).read_text(encoding="utf-8")

    @property
    def tags(self) -> dict[str, str]:
        return dict(self.run.data.tags)

    def artifact(self, path: str) -> str:
        return Path(self.client.download_artifacts(self.run.info.run_id, path)).read_text(encoding="utf-8")

    def files(self, path: str = "") -> set[str]:
        found: set[str] = set()
        for item in self.client.list_artifacts(self.run.info.run_id, path or None):
            found |= self.files(item.path) if item.is_dir else {item.path}
        return found


def finish(submitted: GpuClusterSubmittedRun) -> Finished:
    """Wait for a job and read its run."""
    succeeded = submitted.wait()
    client = MlflowClient()
    return Finished(client.get_run(submitted.run_id), submitted.directory, client, succeeded)


def command_line(*arguments: str, **options: object) -> subprocess.Popen[str]:
    """Start `mlflow ...` as a user's shell would."""
    settings: dict[str, object] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen([sys.executable, "-m", "mlflow", *arguments], **settings)  # type: ignore[call-overload, no-any-return]  # passed through


def companion(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m mlflow_pytorch_estimator ...`."""
    command = [sys.executable, "-m", "mlflow_pytorch_estimator", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="session")
def horovod_environment() -> ReadyEnvironment:
    """torch, MLflow and Horovod, built as for a job and kept for the next run of the tests."""
    return horovod_built.build()


@pytest.fixture(scope="session")
def horovod_python(request: pytest.FixtureRequest) -> Path:
    """An interpreter with torch, MLflow and Horovod; GPU_CLUSTER_TEST_HOROVOD names one that is there already."""
    given = os.environ.get("GPU_CLUSTER_TEST_HOROVOD")
    if given:
        return Path(given)
    environment: ReadyEnvironment = request.getfixturevalue("horovod_environment")
    return environment.python


@pytest.fixture(scope="session")
def photographs() -> Callable[[], Path]:
    """A function that returns the folder of real photographs, or skips the test with the reason."""

    def find() -> Path:
        folder = Path(os.environ.get("GPU_CLUSTER_TEST_PHOTOS", ROOT.parent / "shared/data/hymenoptera"))
        if not (folder / "train").is_dir():
            pytest.skip(f"no photographs at {folder}; set GPU_CLUSTER_TEST_PHOTOS")
        return folder

    return find
