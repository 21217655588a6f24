"""Projects read and invoked; MLflow's own code is the specification of the command."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow.projects.utils import load_project

from mlflow_pytorch_estimator.errors import ProjectError
from mlflow_pytorch_estimator.project import Invocation, invoke, read_project, resolve_inputs

# Names that look like secrets on the machine that runs the tests must not matter.
pytestmark = pytest.mark.usefixtures("no_secrets")


@pytest.fixture
def no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if any(word in name.upper() for word in ("TOKEN", "PASS", "SECRET", "KEY", "CREDENTIAL")):
            monkeypatch.delenv(name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "project"
    path.mkdir()
    monkeypatch.chdir(tmp_path)
    return path


def write(folder: Path, text: str) -> None:
    (folder / "MLproject").write_text(text, encoding="utf-8")


def ours(folder: Path, entry_point: str, given: dict[str, Any] | None) -> Invocation:
    return invoke(read_project(folder), entry_point, given)


def theirs(folder: Path, entry_point: str, given: dict[str, Any] | None) -> str:
    storage = folder.parent / "storage"
    storage.mkdir(exist_ok=True)
    command: str = load_project(str(folder)).get_entry_point(entry_point).compute_command(given or {}, str(storage))
    return command


TYPES = """
name: toy
entry_points:
  main:
    parameters:
      lr: {type: float, default: 0.1}
      epochs: {default: 3}
      flag: {default: false}
      name: {type: string, default: "a b"}
      empty: {default: ""}
      data: {type: path, default: data}
      where: {type: uri, default: "s3://bucket/x y"}
      short: string
    command: "python train.py {lr} {epochs} {flag} {name} {empty} {data} {where} {short} {short}"
  bare:
    command: "python train.py"
  format:
    parameters: {x: {type: float, default: 3}, y: {default: abc}}
    command: "echo {x:>5} {y!r} {{literal}} {y[0]} '{x}' \\"{y}\\""
  strange:
    parameters: {x: {type: banana, default: 1}, "a-b": {default: 2}}
    command: |
      echo {x}
      echo {a-b}
"""

CASES: list[tuple[str, dict[str, Any] | None]] = [
    ("main", {"short": "s"}),
    ("main", {"short": "s", "lr": 1, "epochs": "7", "flag": True, "empty": "x"}),
    ("main", {"short": "it's", "name": "$(id)", "extra": "--x", "more": ""}),
    ("main", {"short": "\n", "name": "täglich ☃", "data": "./data", "where": "https://x.org/?a=b&c=d"}),
    ("main", {"short": "a", "data": "data/../data"}),
    ("main", {"zeta": "1", "short": "a", "alpha": "2", "lr": "nan"}),
    ("main", {"short": None}),
    ("main", {"short": ["a", 1]}),
    ("main", {"short": "{lr}", "name": "{{x}}"}),
    ("main", {"short": "~", "name": "~/x", "extra": "#"}),
    ("main", {"short": "GPUCLUSTERINPUT0X", "name": "~GPUCLUSTERSECRET0~"}),
    ("bare", None),
    ("bare", {}),
    ("bare", {"a": "b c", "d.e/f-g": "h", "with space": "i"}),
    ("format", {}),
    ("format", {"x": "a", "y": "b"}),
    ("strange", {}),
    ("strange", {"x": "-1", "a-b": "'"}),
    ("train.py", {}),
    ("train.py", {"lr": "0.1", "name": "a b"}),
    ("run.sh", {"x": 1}),
    ("sub dir/it's.py", {"x": 1}),
    ("report.R", {"x": 1}),
]


@pytest.mark.parametrize(("entry_point", "given"), CASES)
def test_the_command_is_mlflows(folder: Path, entry_point: str, given: dict[str, Any] | None) -> None:
    (folder.parent / "data").mkdir()
    write(folder, TYPES)
    invocation = ours(folder, entry_point, given)
    assert invocation.command == theirs(folder, entry_point, given)
    assert invocation.inputs == {}
    for name, value in (given or {}).items():
        assert invocation.parameters[name] == str(value)


@pytest.mark.parametrize("shell", ["/bin/sh", None])
def test_shell_scripts_run_under_the_users_shell(
    folder: Path, monkeypatch: pytest.MonkeyPatch, shell: str | None
) -> None:
    if shell:
        monkeypatch.setenv("SHELL", shell)
    else:
        monkeypatch.delenv("SHELL", raising=False)
    assert ours(folder, "run.sh", {}).command == theirs(folder, "run.sh", {}) == f"{shell or 'bash'} run.sh"


def test_the_parameters_are_raw_and_hold_the_defaults(folder: Path) -> None:
    (folder.parent / "data").mkdir()
    write(folder, TYPES)
    assert ours(folder, "main", {"short": "it's", "extra": 1}).parameters == {
        "lr": "0.1",
        "epochs": "3",
        "flag": "False",
        "name": "a b",
        "empty": "",
        "data": "data",
        "where": "s3://bucket/x y",
        "short": "it's",
        "extra": "1",
    }


def test_the_callers_parameters_are_not_changed(folder: Path) -> None:
    given: dict[str, Any] = {"a": 1, "b": None}
    ours(folder, "train.py", given)
    assert given == {"a": 1, "b": None}


def test_file_uris_are_local_paths(folder: Path) -> None:
    (folder.parent / "a b").mkdir()
    write(folder, "entry_points: {main: {parameters: {data: path}, command: 'ls {data}'}}")
    given = {"data": f"file://{folder.parent}/a b"}
    assert ours(folder, "main", given).command == theirs(folder, "main", given) == f"ls '{folder.parent}/a b'"


REMOTE = "entry_points: {main: {parameters: {a: path, b: path, c: {default: x}}, command: 'cat {a} {b} {a} {c}'}}"


def test_remote_paths_become_placeholders_for_later(folder: Path) -> None:
    write(folder, REMOTE)
    (folder.parent / "local").touch()
    invocation = ours(folder, "main", {"a": "runs:/1/x", "b": "s3://bucket/y"})
    assert sorted(invocation.inputs.values()) == ["runs:/1/x", "s3://bucket/y"]
    assert invocation.parameters == {"a": "runs:/1/x", "b": "s3://bucket/y", "c": "x"}
    by_uri = {uri: placeholder for placeholder, uri in invocation.inputs.items()}
    paths = {by_uri["runs:/1/x"]: "/tmp/a b/it's", by_uri["s3://bucket/y"]: "/tmp/$(id)"}  # noqa: S108 - text only
    resolved = resolve_inputs(invocation.command, paths)
    assert shlex.split(resolved) == ["cat", "/tmp/a b/it's", "/tmp/$(id)", "/tmp/a b/it's", "x"]  # noqa: S108
    mixed = ours(folder, "main", {"a": "local", "b": "https://x.org/y"})
    assert list(mixed.inputs.values()) == ["https://x.org/y"]
    assert str(folder.parent / "local") in mixed.command


def test_more_than_ten_placeholders_are_told_apart(folder: Path) -> None:
    names = [f"p{number}" for number in range(12)]
    command = " ".join(f"{{{name}}}" for name in names)
    write(
        folder,
        f"entry_points: {{main: {{parameters: {{{', '.join(f'{n}: path' for n in names)}}}, command: '{command}'}}}}",
    )
    invocation = ours(folder, "main", {name: f"s3://b/{name}" for name in names})
    paths = {placeholder: f"/got/{uri[-3:].strip('/')}" for placeholder, uri in invocation.inputs.items()}
    assert resolve_inputs(invocation.command, paths) == " ".join(f"/got/{name}" for name in names)


BROKEN: dict[str, str | bytes] = {
    "no YAML": "entry_points: [",
    "tabs": "\tname: x",
    "empty": "",
    "a list": "- a",
    "a text": "hello",
    "binary": b"\xff\xfe\x00",
    "entry points are a list": "entry_points: [main]",
    "an entry point is a text": "entry_points: {main: python train.py}",
    "no command": "entry_points: {main: {}}",
    "the command is a list": "entry_points: {main: {command: [a, b]}}",
    "the command is null": "entry_points: {main: {command: null}}",
    "parameters are a list": "entry_points: {main: {parameters: [a], command: a}}",
    "parameters are null": "entry_points: {main: {parameters: null, command: a}}",
    "a parameter is a number": "entry_points: {main: {parameters: {a: 3}, command: a}}",
    "unknown placeholder": "entry_points: {main: {command: 'echo {x}'}}",
    "numbered placeholder": "entry_points: {main: {command: 'echo {} {0}'}}",
    "attribute of a placeholder": "entry_points: {main: {parameters: {x: {default: 1}}, command: 'echo {x.y}'}}",
    "index of a placeholder": "entry_points: {main: {parameters: {x: {default: 1}}, command: 'echo {x[a]}'}}",
    "single brace": "entry_points: {main: {command: 'echo } {'}}",
    "awk": "entry_points: {main: {command: \"awk '{print $1}'\"}}",
    "two environments": "conda_env: a.yaml\npython_env: b.yaml\nentry_points: {main: {command: a}}",
    "environment file missing": "conda_env: missing.yaml\nentry_points: {main: {command: a}}",
    "environment file is a number": "python_env: 3\nentry_points: {main: {command: a}}",
    "docker": "docker_env: {image: x, ports: [80]}\nentry_points: {main: {command: a}}",
    "databricks": "databricks_spark_job: {python_file: a.py}",
    "other entry points": "entry_points: {other: {command: a}}",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_project_is_one_line(folder: Path, kind: str) -> None:
    content = BROKEN[kind]
    (folder / "MLproject").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ProjectError) as caught:
        ours(folder, "main", {})
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "No value given for missing parameters: 'x', 'y', 'u'"),
        ({"x": 1, "u": "s3://x"}, "No value given for missing parameters: 'y'"),
        ({"x": 1, "y": "missing/file", "u": "s3://x"}, "parameter 'y' is 'missing/file', but there is no such file"),
        ({"x": 1, "y": ".", "u": "no uri"}, "Expected URI for parameter u but got no uri"),
        ({"x": 1, "y": ".", "u": "s3://x", "a;b": 1}, 'Invalid value "a;b" for parameter'),
    ],
)
def test_wrong_parameters_are_named(folder: Path, given: dict[str, Any], message: str) -> None:
    write(folder, "entry_points: {main: {parameters: {x: float, y: path, u: uri}, command: 'a {x} {y} {u}'}}")
    with pytest.raises(ProjectError) as caught:
        ours(folder, "main", given)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_without_an_mlproject_is_a_project(folder: Path) -> None:
    project = read_project(folder)
    assert (project.name, project.environment_file, project.environment_kind) == ("project", None, None)
    assert invoke(project, "train.py", {"lr": 1}).command == "python train.py --lr 1"
    with pytest.raises(ProjectError, match=r"no MLproject file, .* `gpu-cluster submit SCRIPT`"):
        invoke(project, "main", {})


@pytest.mark.parametrize(
    ("files", "text", "expected"),
    [
        (["conda.yaml"], "name: x", ("conda.yaml", "conda")),
        (["python_env.yaml"], "name: x", ("python_env.yaml", "python")),
        (["python_env.yaml", "conda.yaml"], "name: x", ("python_env.yaml", "python")),
        (["other.yaml"], "conda_env: other.yaml", ("other.yaml", "conda")),
        (["other.yaml", "conda.yaml"], "python_env: other.yaml", ("other.yaml", "python")),
    ],
)
def test_the_environment_file_is_the_one_mlflow_takes(
    folder: Path, files: list[str], text: str, expected: tuple[str, str]
) -> None:
    for name in files:
        (folder / name).touch()
    write(folder, text)
    project = read_project(folder)
    assert project.environment_file == folder / expected[0]
    assert project.environment_kind == expected[1]


# Secrets

SHOW = f"{shlex.quote(sys.executable)} -c 'import json, sys; print(json.dumps(sys.argv[1:]))'"
SECRETS = [
    "s3cr3t-v4lue",
    'it\'s "quoted" secret',
    "line\nbreak\nsecret",
    "$HOME `id` $(id) \\",
    "täglich ☃ geheim",
    "with~tilde~~~",
]
TEMPLATES = {
    "bare": "{x}",
    "option": "--token={x}",
    "twice": "{x} {x}",
    "single quotes": "'{x}'",
    "double quotes": '"{x}"',
    "words in double quotes": '"a {x} b"',
}


def argv(command: str) -> list[str]:
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("value", ["{}", "\\{}\\", "x={}&y", "{}{}", "'{}'", '"{}', "a b {} $HOME"])
def test_secrets_arrive_through_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch, secret: str, value: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", secret)
    write(folder, f"entry_points: {{main: {{parameters: {{x: string}}, command: {json.dumps(SHOW + ' {x}')}}}}}")
    given = {"x": value.replace("{}", secret), "extra": f"{secret}!"}
    invocation = ours(folder, "main", given)
    assert secret not in invocation.command
    assert argv(invocation.command) == [given["x"], "--extra", given["extra"]]
    monkeypatch.delenv("HF_TOKEN")
    assert argv(ours(folder, "main", given).command) == [given["x"], "--extra", given["extra"]]


@pytest.mark.parametrize("template", TEMPLATES)
def test_secrets_arrive_wherever_the_command_puts_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    """With a value that needs no quotes, MLflow's command works inside of quotes too; so must ours."""
    secret = "s3cr3t-v4lue"
    command = json.dumps(f"{SHOW} {TEMPLATES[template]}")
    write(folder, f"entry_points: {{main: {{parameters: {{x: string}}, command: {command}}}}}")
    expected = argv(theirs(folder, "main", {"x": secret}))
    monkeypatch.setenv("HF_TOKEN", secret)
    invocation = ours(folder, "main", {"x": secret})
    assert secret not in invocation.command
    assert argv(invocation.command) == expected


def test_a_secret_that_begins_like_another_does_not_leak(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, f"entry_points: {{main: {{parameters: {{x: string}}, command: {json.dumps(SHOW + ' {x}')}}}}}")
    for first, second in (("A_TOKEN", "B_TOKEN"), ("D_TOKEN", "C_TOKEN")):
        monkeypatch.setenv(first, "abcdefgh")
        monkeypatch.setenv(second, "abcdefgh-and-more")
        invocation = ours(folder, "main", {"x": "abcdefgh-and-more abcdefgh"})
        assert "and-more" not in invocation.command
        assert argv(invocation.command) == ["abcdefgh-and-more abcdefgh"]
        monkeypatch.delenv(first)
        monkeypatch.delenv(second)


def test_a_secret_uri_is_a_uri(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "postgresql://me:pw@db.example.org/x"
    monkeypatch.setenv("DB_SECRET", uri)
    write(folder, f"entry_points: {{main: {{parameters: {{x: uri}}, command: {json.dumps(SHOW + ' {x}')}}}}}")
    invocation = ours(folder, "main", {"x": uri})
    assert uri not in invocation.command
    assert argv(invocation.command) == [uri]


def test_a_secret_in_a_variable_that_no_shell_can_expand_still_arrives(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("my-token.x", "s3cr3t-v4lue")
    write(folder, f"entry_points: {{main: {{parameters: {{x: string}}, command: {json.dumps(SHOW + ' {x}')}}}}}")
    assert argv(ours(folder, "main", {"x": "s3cr3t-v4lue"}).command) == ["s3cr3t-v4lue"]


def test_many_secrets_are_told_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [f"secret-number-{number}-" for number in range(15)]
    for number, value in enumerate(values):
        monkeypatch.setenv(f"TOKEN_{number}", value)
    write(folder, f"entry_points: {{main: {{parameters: {{x: string}}, command: {json.dumps(SHOW + ' {x}')}}}}}")
    assert argv(ours(folder, "main", {"x": " ".join(values)}).command) == [" ".join(values)]
