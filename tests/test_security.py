"""Planted secrets, permissions, and names that a shell would obey: looked for in everything that a job leaves."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Project, Server, finish, submit, wait_until
from mlflow.tracking import MlflowClient

from mlflow_pytorch_estimator import Experiment, PyTorch, Workspace
from mlflow_pytorch_estimator.jobdir import JobDir
from mlflow_pytorch_estimator.schedulers.slurm.script import batch_script
from mlflow_pytorch_estimator.spec import InterpreterSpec, JobSpec

SECRETS = {
    "MLFLOW_TRACKING_PASSWORD": "planted-one-2f6c",
    "AWS_SECRET_ACCESS_KEY": "planted-two-9b1d",
    "MY_API_TOKEN": "planted-three-7a44",
    "DATABASE_URL": "postgres://me:planted-four-c3e8@db/x",
}
PLANTED = ("planted-one-2f6c", "planted-two-9b1d", "planted-three-7a44", "planted-four-c3e8", "planted-five-51aa")
# Each would make a file called PWNED, or more words of one, if a shell or an option parser ever saw it bare.
HOSTILE = (
    "; touch PWNED #",
    "$(touch PWNED)",
    "`touch PWNED`",
    "' ; touch PWNED ; '",
    '" ; touch PWNED ; "',
    "a\ntouch PWNED",
    "| touch PWNED",
    "&& touch PWNED",
    "> PWNED",
    "--output=PWNED",
    "-o PWNED",
    "${IFS}touch${IFS}PWNED",
    "%(touch PWNED)s {0} {touch} %n",
    "../../PWNED",
    "täglich ☃ 🦃",
    "\\",
)


# For names: no slash and no line break, several in one so that a few jobs do for all.
NAMES = [" ".join(word.replace("/", "_").replace("\n", " ") for word in HOSTILE[start::4]) for start in range(4)]


def arguments_of_processes() -> Iterator[bytes]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                yield (entry / "cmdline").read_bytes()
            except OSError:
                continue  # it has ended


def holding(folder: Path, words: tuple[str, ...]) -> list[str]:
    """The files below a folder that hold one of the words, or are called so."""
    found = []
    for path in folder.rglob("*"):
        named = any(word in path.name for word in words)
        if named or (
            path.is_file() and not path.is_symlink() and any(word.encode() in path.read_bytes() for word in words)
        ):
            found.append(str(path.relative_to(folder)))
    return found


def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


SCRIPT = f"""
import os, sys, time
assert os.environ["MY_API_TOKEN"] == {SECRETS["MY_API_TOKEN"][:8]!r} + {SECRETS["MY_API_TOKEN"][8:]!r}
assert "planted" + "-three-7a44" in sys.argv, "an argument has its true value"
os.makedirs("outputs", exist_ok=True)
open("outputs/result.txt", "w").write("well")
print("up", flush=True)
while not os.path.exists(os.environ["GO"]):
    time.sleep(0.1)
if os.environ.get("FAIL"):
    raise ValueError("no luck")
"""


@pytest.mark.parametrize("ending", ["well", "badly"])
def test_planted_secrets_are_nowhere(
    store: MlflowClient, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    planted(monkeypatch)
    monkeypatch.setenv("GO", str(tmp_path / "go"))
    if ending == "badly":
        monkeypatch.setenv("FAIL", "1")
    project.script(SCRIPT, parameters="{token: str}").entry("main", "python train.py {token}", "{token: str}")
    running = submit(project, parameters={"token": SECRETS["MY_API_TOKEN"]})
    wait_until(lambda: "up" in running.directory.rank_log(0).read_text(), 60, "the script")
    seen = b"".join(arguments_of_processes())
    # The rank itself has what the user gave it as an argument; nothing of ours has.
    assert seen.count(b"planted-three-7a44") == seen.count(b"train.py\0planted-three-7a44")
    assert not any(word.encode() in seen for word in PLANTED if word != "planted-three-7a44")
    (tmp_path / "go").touch()
    done = finish(running)
    assert done.succeeded == (ending == "well"), done.log
    assert holding(tmp_path, ("result.txt",)) != []  # it looks everywhere
    assert holding(tmp_path, PLANTED) == []  # the store and its artifacts, too
    said = {**done.run.data.tags, **done.run.data.params}
    assert not any(word in text for word in PLANTED for text in (*said, *said.values()))
    assert done.run.data.params["token"] == "<MY_API_TOKEN>"


def test_secrets_of_an_estimators_job_and_of_its_server_are_nowhere(
    server: Server, home: Path, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    uri = server.uri.replace("http://", "http://me:planted-five-51aa@")
    (folder / "train.py").write_text("import os\nassert os.environ['OTHER_PASSWORD'].startswith('planted-two')\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    estimator = PyTorch(
        str(folder),
        entry_script="train.py",
        compute_target="local",
        user_managed=True,
        environment_variables={"OTHER_PASSWORD": SECRETS["AWS_SECRET_ACCESS_KEY"]},
    )
    run = Experiment(Workspace(tracking_uri=uri), "birds").submit(estimator)
    run.wait_for_completion()
    assert not any(word in repr(estimator) + repr(run) + str(run.get_details()) for word in PLANTED)
    assert holding(home, PLANTED) == []
    assert holding(tmp_path, PLANTED) == []


def test_nobody_else_reads_or_changes_what_a_job_has(store: MlflowClient, project: Project, home: Path) -> None:
    before = os.umask(0)  # the most careless of users
    try:
        done = finish(submit(project.script("open('outputs/a', 'w').close()\n")))
    finally:
        os.umask(before)
    assert done.succeeded, done.log
    others = stat.S_IRWXG | stat.S_IRWXO
    # What lies in a private folder is private; the ways in are what counts.
    for path in (home, home / "jobs", done.directory.path, home / "snapshots", home / "queue"):
        if path.exists():
            assert not path.stat().st_mode & others, path
    for path in done.directory.path.glob("*.json"):
        assert not path.stat().st_mode & others, path


def test_parameters_are_never_obeyed(store: MlflowClient, project: Project, tmp_path: Path) -> None:
    names = [f"p{number}" for number in range(len(HOSTILE))]
    (project.path / "echo.py").write_text("import json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    words = " ".join(f"{{{name}}}" for name in names)
    project.entry("main", f"python echo.py {words}", "{" + ", ".join(f"{name}: str" for name in names) + "}")
    done = finish(submit(project, parameters=dict(zip(names, HOSTILE, strict=True))))
    assert done.succeeded, done.log
    assert json.loads(done.log) == list(HOSTILE)
    assert list(tmp_path.rglob("PWNED*")) == []


@pytest.mark.parametrize("name", NAMES)
def test_names_of_folders_scripts_experiments_and_runs_are_never_obeyed(
    store: MlflowClient, tmp_path: Path, name: str
) -> None:
    source = tmp_path / f"src {name}"
    source.mkdir()
    script = f"train {name}.py".removeprefix("-")
    (source / script).write_text("import os\nprint('ran', os.environ['WORD'])\n")
    estimator = PyTorch(
        str(source),
        entry_script=script,
        compute_target="local",
        user_managed=True,
        environment_variables={"WORD": name},
    )
    run = Experiment(Workspace(), name).submit(estimator, tags={"note": name}, run_name=name)
    run.wait_for_completion()
    assert run.job is not None
    assert run.job.directory.rank_log(0).read_text() == f"ran {name}\n"
    assert list(tmp_path.rglob("PWNED*")) == []


@pytest.mark.parametrize("word", HOSTILE)
def test_the_header_of_a_batch_script_stays_a_header(word: str, tmp_path: Path) -> None:
    job = JobSpec(
        "r1",
        "0",
        word,
        word,
        "true",
        {},
        InterpreterSpec("local", python=sys.executable),
        scheduler="slurm",
        scheduler_options={"comment": word.replace("\n", " ")},
    )
    text = batch_script(job, JobDir(tmp_path / "job"))
    before, _, after = text.partition("\nexec ")
    assert all(line.startswith("#") or not line for line in before.splitlines())
    assert after.count("\n") == 1
    assert "PWNED" not in after
