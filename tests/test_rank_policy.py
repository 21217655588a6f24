"""Ranks above 0 and the job's run: plain MLflow scripts in real processes, against real stores."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from conftest import ROOT, copy_store
from mlflow.store.model_registry.abstract_store import AbstractStore as AbstractRegistry
from mlflow.store.tracking.abstract_store import AbstractStore
from mlflow.store.tracking.file_store import FileStore
from mlflow.store.tracking.rest_store import RestStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from tracking_server import serving

from mlflow_pytorch_estimator.rank_policy import deliver, policy, registry, tracking
from mlflow_pytorch_estimator.topology import _FAMILIES

DROPPED = 'is dropped, rank 0 owns the run ("rank_metrics": "prefix" keeps its metrics)'
_PLACES = {name for family in _FAMILIES for names in family for name in names}


@dataclass
class Job:
    """A job's run in a store, and the folder that the agent would deliver."""

    uri: str
    client: MlflowClient
    run_id: str
    folder: Path
    root: Path
    database: Path
    files: Path

    @property
    def experiment_id(self) -> str:
        return str(self.client.get_run(self.run_id).info.experiment_id)

    def environ(self, rank: int | None, world: int = 2, **more: str) -> dict[str, str]:
        # Bytecode is written, as in jobs: without it `import mlflow` compiles for seconds.
        kept = {name: value for name, value in os.environ.items() if name not in {*_PLACES, "PYTHONDONTWRITEBYTECODE"}}
        place = {} if rank is None else {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
        (self.root / "temporary").mkdir(exist_ok=True)
        return kept | {
            "PYTHONPATH": f"{self.folder}:{ROOT}",
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_REGISTRY_URI": self.uri,
            "MLFLOW_RUN_ID": self.run_id,
            "MLFLOW_EXPERIMENT_ID": self.experiment_id,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "TMPDIR": str(self.root / "temporary"),
            **place,
            **more,
        }

    def start(self, script: str, rank: int | None, world: int = 2, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)],
            env=self.environ(rank, world, **more),
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, rank: int | None, world: int = 2, **more: str) -> tuple[str, str]:
        """Output and errors of a script that succeeds."""
        return ended(self.start(script, rank, world, **more))

    def state(self) -> tuple[list[str], list[str]]:
        """All that the store holds: every row of its tables, every file."""
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            rows = [
                f"{table} {row!r}"
                for table in tables
                for row in connection.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - names from the database
            ]
        return sorted(rows), sorted(str(path) for path in self.files.rglob("*") if path.is_file())

    def metrics(self) -> dict[str, float]:
        return dict(self.client.get_run(self.run_id).data.metrics)


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out, err


def notices(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("gpu-cluster:")]


def make_job(client: MlflowClient, root: Path, database: Path) -> Job:
    folder = root / "ranks"
    deliver(folder)
    run = client.create_run(client.create_experiment(f"of {root}"), run_name="the job")
    client.log_metric(run.info.run_id, "loss", 0.25, step=0)
    client.log_param(run.info.run_id, "lr", "0.1")
    client.log_text(run.info.run_id, "of rank 0", "notes/zero.txt")
    return Job(client.tracking_uri, client, run.info.run_id, folder, root, database, root / "mlruns")


@pytest.fixture
def local(store: MlflowClient, tmp_path: Path) -> Job:
    """A job whose store is SQLite."""
    return make_job(store, tmp_path, tmp_path / "mlflow.db")


@pytest.fixture(scope="module")
def server_folder(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[tuple[str, Path]]:
    """The address of a real `mlflow server` for all tests here, and where its store lies."""
    folder = tmp_path_factory.mktemp("server")
    copy_store(empty_store, folder / "server.db", "mlflow-artifacts:/0")
    with serving(folder / "server.db") as uri:
        yield uri, folder


@pytest.fixture(params=["sqlite", "server"])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Job:
    """A job in each kind of store."""
    if request.param == "sqlite":
        found: Job = request.getfixturevalue("local")
        return found
    uri, folder = request.getfixturevalue("server_folder")
    found = make_job(MlflowClient(uri, uri), tmp_path, folder / "server.db")
    return replace(found, files=folder / "stored")


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield
    assert not list((tmp_path / "temporary").glob("gpu-cluster-rank-*"))


# What a script may do to its run, through every door that MLflow has. Answers have the types of the real ones.
EVERYTHING = """
    import os
    import mlflow, numpy
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag
    from pathlib import Path

    if "GIVEN_URI" in os.environ:
        mlflow.set_tracking_uri(os.environ["GIVEN_URI"])
    client = MlflowClient()
    with mlflow.start_run(tags={"mine": "1"}, description="text") as run:
        job = run.info.run_id
        assert mlflow.log_metric("loss", 0.5, step=1) is None
        mlflow.log_metrics({"loss": 1, "accuracy": 2}, step=2)
        assert mlflow.log_param("lr", 0.001) == 0.001
        mlflow.log_params({"depth": 3})
        mlflow.set_tag("t", "x"); mlflow.set_tags({"u": 1}); mlflow.delete_tag("mlflow.runName")
        mlflow.log_metric("later", 1, synchronous=False).wait()
        mlflow.log_param("later", 1, synchronous=False).wait()
        mlflow.set_tag("later", 1, synchronous=False).wait()
        client.log_batch(job, [Metric("b", 1, 1, 1)], [Param("b", "1")], [RunTag("b", "1")])
        client.log_batch(job, [Metric("b", 1, 1, 1)], synchronous=False).wait()
        mlflow.log_text("rank 1", "notes/one.txt"); mlflow.log_dict({"a": 1}, "d.json")
        mlflow.log_table({"a": [1]}, "t.json")
        Path("tree").mkdir(exist_ok=True); Path("tree/file").write_text("x")
        mlflow.log_artifacts("tree"); mlflow.log_artifact("tree/file")
        mlflow.log_image(numpy.zeros((4, 4, 3), dtype="uint8"), key="picture", step=0)
        mlflow.log_input(mlflow.data.from_numpy(numpy.zeros((2, 2))), context="training")
        mlflow.set_experiment_tag("e", "1")
        client.update_run(job, name="renamed")
        client.delete_run(job); client.restore_run(job)
        with mlflow.start_run(nested=True, run_name="child"):
            mlflow.log_metric("x", 1)
        assert mlflow.active_run().info.run_id == job
        @mlflow.trace
        def traced(x):
            return x + 1
        traced(1)
        mlflow.flush_async_logging(); mlflow.flush_artifact_async_logging()
        client.set_terminated(job, "FAILED")
    with mlflow.start_run(run_name="after the end"):
        mlflow.log_metric("stray", 1)
    client.create_run(os.environ["MLFLOW_EXPERIMENT_ID"], run_name="client's")
    mlflow.flush_trace_async_logging()
"""


def test_nothing_reaches_the_store_and_one_line_says_so(job: Job) -> None:
    before = job.state()
    out, err = job.run(EVERYTHING, rank=1)
    assert job.state() == before
    assert notices(err) == [f"gpu-cluster: rank 1: what it logs to MLflow {DROPPED}"]
    assert "http://" not in out, "a link to a run that nobody can see"


def test_a_script_that_sets_the_store_itself_is_held_as_well(job: Job) -> None:
    before = job.state()
    job.run(EVERYTHING, rank=1, GIVEN_URI=job.uri, MLFLOW_TRACKING_URI=f"sqlite:///{job.root}/other.db")
    assert job.state() == before


def test_rank_0_has_mlflows_own_store(local: Job) -> None:
    script = """
        import mlflow
        with mlflow.start_run():
            mlflow.log_metric("loss", 0.5, step=1)
            mlflow.log_text("more", "notes/more.txt")
        client = mlflow.MlflowClient()
        for store in (client._tracking_client.store, client._get_registry_client().store):
            assert not [name for name, value in vars(store).items() if "Guarded" in repr(value)]
    """
    _, err = local.run(script, rank=0)
    run = local.client.get_run(local.run_id)
    assert (run.data.metrics["loss"], run.info.status) == (0.5, "FINISHED")
    assert len(local.client.list_artifacts(local.run_id, "notes")) == 2
    assert notices(err) == []


def test_without_a_run_of_a_job_ranks_are_free(local: Job) -> None:
    local.run("import mlflow; mlflow.start_run(run_name='free'); mlflow.log_metric('a', 1)", 1, MLFLOW_RUN_ID="")
    assert [run.info.run_name for run in local.client.search_runs([local.experiment_id], "metrics.a = 1")] == ["free"]


def test_prefix_keeps_the_metrics_and_nothing_else(job: Job) -> None:
    rows, files = job.state()
    _, err = job.run(EVERYTHING, rank=1, GPU_CLUSTER_RANK_METRICS="prefix")
    own = {"rank_1/loss": 1.0, "rank_1/accuracy": 2.0, "rank_1/later": 1.0, "rank_1/b": 1.0}
    assert job.metrics() == {"loss": 0.25, **own}
    history = job.client.get_metric_history(job.run_id, "rank_1/loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 1.0)]
    after, files_after = job.state()
    assert files_after == files
    assert {row.split()[0] for row in set(after) ^ set(rows)} == {"metrics", "latest_metrics"}
    assert len(notices(err)) == 1
    assert "rank_1/NAME" in notices(err)[0]


def test_prefix_does_not_log_again_what_it_has_read(job: Job) -> None:
    script = """
        import mlflow
        from mlflow.pyfunc import PythonModel
        class Model(PythonModel):
            def predict(self, context, model_input, params=None):
                return model_input
        with mlflow.start_run():
            mlflow.log_metric("own", 1, step=0)
            mlflow.pyfunc.log_model(name="model", python_model=Model(), pip_requirements=[])
            mlflow.log_metric("with a model", 2, step=0)
    """
    job.run(script, rank=1, GPU_CLUSTER_RANK_METRICS="prefix")
    assert job.metrics() == {"loss": 0.25, "rank_1/own": 1.0, "rank_1/with a model": 2.0}


def test_ranks_write_at_the_same_time(job: Job) -> None:
    script = """
        import mlflow
        with mlflow.start_run():
            for step in range(30):
                mlflow.log_metric("busy", step + RANK, step=step)
                mlflow.log_metrics({"more": step}, step=step, synchronous=False)
                mlflow.log_param("rank", RANK)
        mlflow.flush_async_logging()
    """
    ranks = [
        job.start(script.replace("RANK", str(rank)), rank, 3, GPU_CLUSTER_RANK_METRICS="prefix") for rank in range(3)
    ]
    for process in ranks:
        ended(process)
    run = job.client.get_run(job.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["rank"] == "0"
    for rank, prefix in enumerate(["", "rank_1/", "rank_2/"]):
        history = job.client.get_metric_history(job.run_id, f"{prefix}busy")
        assert [metric.value for metric in history] == [step + rank for step in range(30)]
        assert len(job.client.get_metric_history(job.run_id, f"{prefix}more")) == 30
    assert len(job.client.search_runs([job.experiment_id])) == 1


def test_own_runs_can_be_read_back(job: Job) -> None:
    before = job.state()
    script = """
        import mlflow
        client = mlflow.MlflowClient()
        with mlflow.start_run() as job:
            for depth in range(3):
                with mlflow.start_run(nested=True, run_name=f"trial {depth}") as trial:
                    mlflow.log_param("depth", depth)
                    for step in range(3):
                        mlflow.log_metric("loss", 1 / (1 + depth + step), step=step)
                    mlflow.log_text(f"of {depth}", "trial.txt")
                    mlflow.set_tag("kind", "trial")
        run = mlflow.get_run(trial.info.run_id)
        assert run.info.status == "FINISHED" and run.info.end_time and run.info.run_name == "trial 2"
        assert run.data.params == {"depth": "2"} and run.data.metrics == {"loss": 0.2}
        assert run.data.tags["mlflow.parentRunId"] == job.info.run_id
        assert [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")] == [0, 1, 2]
        assert mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/trial.txt") == "of 2"
        assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["trial.txt"]
        found = mlflow.search_runs(filter_string="tags.kind = 'trial'", order_by=["metrics.loss ASC"])
        assert list(found["params.depth"]) == ["2", "1", "0"]
        client.delete_run(run.info.run_id)
        assert len(mlflow.search_runs(filter_string="tags.kind = 'trial'")) == 2
        client.delete_tag(trial.info.run_id, "kind")
        assert "kind" not in client.get_run(trial.info.run_id).data.tags
    """
    job.run(script, rank=1)
    assert job.state() == before


def test_what_is_read_of_the_jobs_run_is_real(job: Job) -> None:
    script = f"""
        import mlflow
        client = mlflow.MlflowClient()
        with mlflow.start_run() as run:
            mlflow.log_text("mine", "notes/zero.txt")
            mlflow.log_metric("loss", 99, step=9)
        run = mlflow.get_run("{job.run_id}")
        assert run.data.metrics == {{"loss": 0.25}} and run.data.params == {{"lr": "0.1"}}
        assert [file.path for file in client.list_artifacts(run.info.run_id, "notes")] == ["notes/zero.txt"]
        assert mlflow.artifacts.load_text(f"runs:/{job.run_id}/notes/zero.txt") == "of rank 0"
        assert mlflow.artifacts.load_text(run.info.artifact_uri + "/notes/zero.txt") == "of rank 0"
        open(run.info.artifact_uri + "/by hand.txt", "w").write("lost")
    """
    before = job.state()
    job.run(script, rank=1)
    assert job.state() == before


def test_another_run_is_the_users_own_business(job: Job) -> None:
    other = job.client.create_run(job.experiment_id, run_name="other").info.run_id
    script = f"""
        import mlflow
        client = mlflow.MlflowClient()
        client.log_metric("{other}", "a", 1); client.log_param("{other}", "b", 2); client.set_tag("{other}", "c", 3)
        client.log_batch("{other}", [mlflow.entities.Metric("d", 4, 1, 1)])
        client.log_metric("{other}", "e", 5, synchronous=False).wait()
        client.log_text("{other}", "text", "f.txt")
        model = client.create_logged_model("{job.experiment_id}", name="m", source_run_id="{other}")
        client.set_logged_model_tags(model.model_id, {{"g": "6"}})
        client.finalize_logged_model(model.model_id, mlflow.entities.LoggedModelStatus.READY)
        client.set_terminated("{other}", "KILLED")
    """
    _, err = job.run(script, rank=1)
    run = job.client.get_run(other)
    assert (run.data.metrics, run.info.status) == ({"a": 1.0, "d": 4.0, "e": 5.0}, "KILLED")
    assert run.data.params == {"b": "2"}
    assert [file.path for file in job.client.list_artifacts(other)] == ["f.txt"]
    [model] = job.client.search_logged_models([job.experiment_id])
    assert (model.tags["g"], str(model.status)) == ("6", "READY")
    assert notices(err) == []


TORCH = """
    import mlflow, torch
    mlflow.pytorch.autolog()
    model = torch.nn.Linear(2, 1)
    with mlflow.start_run() as run:
        example = torch.zeros(3, 2).numpy()
        info = mlflow.pytorch.log_model(model, name="net", input_example=example, registered_model_name="registered")
        mlflow.log_metric("loss", 0.5)
    client = mlflow.MlflowClient()
    assert info.model_id and info.registered_model_version
    for uri in (info.model_uri, f"runs:/{run.info.run_id}/net", f"models:/registered/{info.registered_model_version}"):
        loaded = mlflow.pytorch.load_model(uri)
        assert torch.equal(loaded.weight, model.weight), uri
    client.set_registered_model_alias("registered", "best", info.registered_model_version)
    assert torch.equal(mlflow.pytorch.load_model("models:/registered@best").weight, model.weight)
    again = mlflow.register_model(info.model_uri, "registered")
    assert int(again.version) == int(info.registered_model_version) + 1
    client.set_model_version_tag("registered", again.version, "a", "b")
    client.update_model_version("registered", again.version, "text")
    assert client.get_registered_model("registered").name == "registered"
    assert mlflow.get_logged_model(info.model_id).status == mlflow.entities.LoggedModelStatus.READY
"""


def test_models_are_logged_registered_and_loaded_in_the_process_only(job: Job) -> None:
    before = job.state()
    job.run(TORCH, rank=1)
    assert job.state() == before


def test_the_models_of_rank_0_are_left_alone(local: Job) -> None:
    model = local.client.create_logged_model(local.experiment_id, name="zero", source_run_id=local.run_id)
    local.client.finalize_logged_model(model.model_id, "READY")
    before = local.state()
    script = f"""
        import mlflow
        client = mlflow.MlflowClient()
        assert client.get_logged_model("{model.model_id}").name == "zero"
        client.set_logged_model_tags("{model.model_id}", {{"a": "b"}})
        client.log_model_params("{model.model_id}", {{"a": "b"}})
        assert str(client.finalize_logged_model("{model.model_id}", "FAILED").status) == "READY"
        mlflow.register_model("models:/{model.model_id}", "name")
        client.delete_logged_model("{model.model_id}")
        client.delete_registered_model("name")
    """
    local.run(script, rank=1)
    assert local.state() == before


def test_sklearns_autologging_with_child_runs(local: Job) -> None:
    before = local.state()
    script = """
        import mlflow, numpy
        from sklearn.linear_model import Ridge
        from sklearn.model_selection import GridSearchCV
        mlflow.sklearn.autolog(log_datasets=True)
        x = numpy.random.default_rng(0).random((30, 2))
        GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=2).fit(x, x.sum(axis=1))
        Ridge().fit(x, x.sum(axis=1))  # begins a run by itself
        assert mlflow.last_active_run() is not None
    """
    _, err = local.run(script, rank=1)
    assert local.state() == before
    assert len(notices(err)) == 1


def test_a_new_experiment_is_rank_0s_to_create(job: Job) -> None:
    name = f"fresh of {job.root}"
    script = f"""
        import mlflow
        experiment = mlflow.set_experiment("{name}")
        assert experiment.name == "{name}" and mlflow.get_experiment_by_name("{name}") is not None
        assert mlflow.get_experiment(experiment.experiment_id).name == "{name}"
        run = mlflow.MlflowClient().create_run(experiment.experiment_id)
        assert mlflow.get_run(run.info.run_id).info.experiment_id == experiment.experiment_id
    """
    before = job.state()
    job.run(script, rank=1)
    assert job.state() == before
    for process in [job.start(script, rank, 3) for rank in (2, 0, 1)]:
        ended(process)
    fresh = job.client.get_experiment_by_name(name)
    assert fresh is not None
    assert len(job.client.search_runs([fresh.experiment_id])) == 1, "rank 0's, in the experiment it has set"


def test_the_estimators_own_logging(local: Job) -> None:
    before = local.state()
    script = """
        from mlflow_pytorch_estimator import Run
        run = Run.get_context()
        run.log("loss", 1.0); run.log_list("some", [1, 2]); run.flush()
    """
    local.run(script, rank=1)
    assert local.state() == before


def test_a_script_that_starts_torchrun(local: Job) -> None:
    inner = local.root / "inner.py"
    inner.write_text(
        "import mlflow, os, sys\nwith mlflow.start_run():\n    mlflow.log_metric('torchrun', int(os.environ['RANK']))\n"
    )
    argv = f"[sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2', {str(inner)!r}]"
    local.run(f"import subprocess, sys; subprocess.run({argv}, check=True)", None, GPU_CLUSTER_RANK_METRICS="prefix")
    assert local.metrics() == {"loss": 0.25, "torchrun": 0.0, "rank_1/torchrun": 1.0}


def test_a_process_that_a_rank_starts_after_its_run_began(local: Job) -> None:
    before = local.state()
    script = """
        import mlflow, os, subprocess, sys
        with mlflow.start_run():
            assert "MLFLOW_RUN_ID" not in os.environ
            subprocess.run([sys.executable, "-c", "import mlflow; mlflow.log_metric('a', 1)"], check=True)
        mlflow.set_tracking_uri(mlflow.get_tracking_uri() + "?")  # a store that is built only now
        mlflow.log_metric("b", 1)
    """
    local.run(script, rank=1, GPU_CLUSTER_RUN_ID=local.run_id)
    assert local.state() == before


PLUGIN = """
    def build(store_uri=None, artifact_uri=None):
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
        class Store(SqlAlchemyStore):
            "Another package's store, which writes one thing through another."
            def log_batch(self, run_id, metrics, params, tags):
                for metric in metrics:
                    self.log_metric(run_id, metric)
        return Store("sqlite:///mlflow.db", artifact_uri or "mlruns")
"""


@pytest.mark.parametrize("scheme", ["sqlite", "elsewhere"])
def test_stores_of_other_plug_ins_are_held_as_well(local: Job, scheme: str) -> None:
    other = local.root / "other"
    info = other / "other_plugin-1.dist-info"
    info.mkdir(parents=True)
    (other / "other_plugin.py").write_text(textwrap.dedent(PLUGIN))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[mlflow.tracking_store]\n{scheme} = other_plugin:build\n")
    more = {"PYTHONPATH": f"{local.folder}:{other}:{ROOT}", "MLFLOW_TRACKING_URI": f"{scheme}:///mlflow.db"}
    script = """
        import mlflow
        with mlflow.start_run():
            mlflow.log_metric("one", 1); mlflow.log_metrics({"many": 2})
            mlflow.log_metric("later", 3, synchronous=False).wait()
        assert type(mlflow.MlflowClient()._tracking_client.store).__name__ == "Store"
    """
    local.run(script, 1, 2, GPU_CLUSTER_RANK_METRICS="prefix", **more)
    assert local.metrics() == {"loss": 0.25, "rank_1/one": 1.0, "rank_1/many": 2.0, "rank_1/later": 3.0}
    assert local.client.get_run(local.run_id).info.status == "RUNNING"


def test_the_import_costs_next_to_nothing(local: Job) -> None:
    # Process time: other processes on the machine do not count.
    script = """
        import sys, time, mlflow
        begin = time.process_time()
        import mlflow_pytorch_estimator.rank_policy.plugin
        print(time.process_time() - begin)
    """
    seconds = [float(local.run(script, rank=0, PYTHONPATH=str(ROOT))[0]) for _ in range(2)]
    assert min(seconds) < 0.01
    script = (
        "import mlflow, sys; print(*(name for name in sys.modules if name.startswith(('torch', 'mlflow_pytorch'))))"
    )
    own = "mlflow_pytorch_estimator"
    assert set(local.run(script, rank=0)[0].split()) == {
        *(own, f"{own}._version", f"{own}.topology", f"{own}.rank_policy", f"{own}.rank_policy.delivery"),
        *(f"{own}.rank_policy.plugin", f"{own}.rank_policy.policy", f"{own}.rank_policy.scratch"),
    }


def test_the_policy_is_read_from_the_environment() -> None:
    rank = {"RANK": "3", "WORLD_SIZE": "4", "MLFLOW_RUN_ID": "r"}
    found = policy.current(rank)
    assert found is not None
    assert (found.rank, found.run_id, found.keeps_metrics, found.prefix) == (3, "r", False, "rank_3/")
    assert found.notice == f"gpu-cluster: rank 3: what it logs to MLflow {DROPPED}"
    kept = policy.current(rank | {"GPU_CLUSTER_RANK_METRICS": "prefix", "GPU_CLUSTER_RUN_ID": "job"})
    assert kept is not None
    assert (kept.keeps_metrics, kept.run_id) == (True, "job")
    for free in ({"RANK": "0"}, {"RANK": "0", "WORLD_SIZE": "1"}, {"RANK": "5"}, {"MLFLOW_RUN_ID": ""}):
        assert policy.current(rank | free) is None
    assert policy.current({"MLFLOW_RUN_ID": "r"}) is None


@pytest.mark.parametrize(
    "place",
    [
        {"HOROVOD_RANK": "1", "HOROVOD_SIZE": "2", "HOROVOD_LOCAL_RANK": "1"},
        {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"},
        {"GPU_CLUSTER_RANK": "1", "GPU_CLUSTER_WORLD_SIZE": "2"},
    ],
)
def test_the_ranks_of_every_launcher_are_known(place: dict[str, str]) -> None:
    assert policy.current(place | {"MLFLOW_RUN_ID": "r"}) == policy.RankPolicy(1, "r")


# Every public method of a store is reading, guarded or passed on purpose: a new one of MLflow's must not slip through.
READING = re.compile(
    r"(get|search|list|batch_get|query|find|calculate|resolve|filter|supports|sum)_(?!or_create)|sanitize_metric_value$"
)
OF_THE_PROCESS = {"end_async_logging", "flush_async_logging", "shut_down_async_logging", "secret_cache"}
# No training's business. Whoever calls these on each rank means it, or has the race on any other system as well.
PASSED = re.compile(
    r".*(gateway|guardrail|endpoint|budget_policy|mcp_|review_queue|label_schema|user_queue|_scorer|scoring_config"
    r"|issue|webhook|_secret|dataset(?!_input)|trace_location)"
    r"|(update|delete)_assessment$|delete_traces$|archive_traces$|deprecated_(start|end)_trace_v2$"
)
# These write through methods that are guarded.
PROMPTS = re.compile(r"(create|delete|set|link)_prompt")


def _methods(*kinds: type) -> set[str]:
    return {name for kind in kinds for name in dir(kind) if not name.startswith("_") and name.upper() != name}


def _guarded(*kinds: type) -> set[str]:
    return {name for kind in kinds for name in tracking.replaced(kind)}


def test_every_method_of_a_tracking_store_is_decided() -> None:
    guarded = _guarded(*tracking.KINDS)
    rest = _methods(AbstractStore, SqlAlchemyStore, RestStore, FileStore) - guarded - OF_THE_PROCESS
    undecided = {name for name in rest if not READING.match(name) and not PASSED.match(name)}
    assert undecided == set()
    assert not {name for name in guarded if PASSED.match(name)}


def test_every_method_of_a_model_registry_is_decided() -> None:
    guarded = _guarded(registry.GuardedRegistry)
    rest = _methods(AbstractRegistry) - guarded
    assert {
        name for name in rest if not READING.match(name) and not PASSED.match(name) and not PROMPTS.match(name)
    } == set()


@pytest.mark.parametrize(
    ("kinds", "stores"),
    [
        (tracking.KINDS, (AbstractStore, SqlAlchemyStore, RestStore, FileStore)),
        ((registry.GuardedRegistry,), (AbstractRegistry,)),
    ],
)
def test_guarded_methods_take_what_the_stores_take(kinds: tuple[type, ...], stores: tuple[type, ...]) -> None:
    for kind in kinds:
        for name in tracking.replaced(kind):
            theirs: list[Callable[..., object]] = [getattr(store, name) for store in stores if hasattr(store, name)]
            assert theirs, f"{name} is no method of a store"
            for method in theirs:
                wanted = list(inspect.signature(method).parameters)
                ours = inspect.signature(getattr(kind, name))
                ours.bind(*wanted)
                # MLflow 3.8 marks with "_" what a base class does not use.
                ours.bind(None, **dict.fromkeys(name.lstrip("_") for name in wanted[1:]))
