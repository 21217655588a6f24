"""What users write about their environment, read or refused; no process is started here."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from typing import TYPE_CHECKING

import pytest
import yaml

from mlflow_pytorch_estimator.environments import EnvironmentSpec, read_environment
from mlflow_pytorch_estimator.environments.base import default_base, job_packages, requirement_name
from mlflow_pytorch_estimator.environments.description.localpath import LocalRequirement, content_hash
from mlflow_pytorch_estimator.environments.description.notices import warn_once
from mlflow_pytorch_estimator.environments.messages import clean, reason
from mlflow_pytorch_estimator.environments.redaction import redact
from mlflow_pytorch_estimator.environments.uv import uv_environment
from mlflow_pytorch_estimator.errors import EnvironmentSpecError

if TYPE_CHECKING:
    from pathlib import Path


def read_conda(folder: Path, text: str, manager: str | None = None) -> EnvironmentSpec:
    file = folder / "conda.yaml"
    file.write_text(text)
    return read_environment(folder, file, "conda", manager)


def read_python_env(folder: Path, text: str) -> EnvironmentSpec:
    file = folder / "python_env.yaml"
    file.write_text(text)
    return read_environment(folder, file, "python", None)


def read_requirements(folder: Path, text: str) -> EnvironmentSpec:
    (folder / "requirements.txt").write_text(text)
    return read_environment(folder, None, None, None)


def spec(*requirements: str, constraints: tuple[str, ...] = ()) -> EnvironmentSpec:
    return EnvironmentSpec("uv", None, requirements, constraints, "requirements.txt")


# --- conda.yaml


@pytest.mark.parametrize(
    ("line", "python"),
    [
        ("python", None),
        ("python=3.11", "==3.11.*"),
        ("python==3.11", "==3.11.*"),
        ("python=3.11.*", "==3.11.*"),
        ("python 3.11", "==3.11.*"),
        ("python==3.11.4", "==3.11.4"),
        ("python=3.11.4", "==3.11.4"),
        ("python=3.11.4=h955ad1f_0", "==3.11.4"),
        ("python 3.11.4 h955ad1f_0", "==3.11.4"),
        ("python>=3.10,<3.13", ">=3.10,<3.13"),
        ("python >=3.10, <3.13", ">=3.10,<3.13"),
        ("python!=3.11.*", "!=3.11.*"),
        ("conda-forge::python=3.12", "==3.12.*"),
    ],
)
def test_conda_python(tmp_path: Path, line: str, python: str | None) -> None:
    assert read_conda(tmp_path, f"dependencies:\n  - {line}\n").python == python


@pytest.mark.parametrize(
    ("line", "expected"),
    [("pip", ()), ("pip=24", ("pip==24.*",)), ("pip<=23", ("pip<=23",)), ("pip=24.0.1", ("pip==24.0.1",))],
)
def test_conda_pip(tmp_path: Path, line: str, expected: tuple[str, ...]) -> None:
    assert read_conda(tmp_path, f"dependencies: [{line}]\n").requirements == expected


def test_conda_file(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("six\n")
    found = read_conda(
        tmp_path,
        "name: train\nchannels: [conda-forge]\ndependencies:\n- python=3.11\n- pip\n- pip:\n"
        "  - Torch>=2.6 \n  - -r more.txt\n  - 'x[a,b]==1 ; python_version < \"3\"'\n",
        manager="conda",
    )
    assert found == EnvironmentSpec(
        "uv", "==3.11.*", ("Torch>=2.6", "six", 'x[a,b]==1; python_version < "3"'), (), "conda.yaml"
    )


MIXED = ["python=3.11", "numpy=1.26", "cudatoolkit=11", "other::tool", "python[version='>3']", "nodejs|x"]


def engine(folder: Path, monkeypatch: pytest.MonkeyPatch, *, installed: bool) -> None:
    """A conda on PATH, or none at all; nothing may run it."""
    for name in ("MAMBA_EXE", "CONDA_EXE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setitem(sys.modules, "rattler", None)  # as if it were not installed
    if installed:
        (folder / "conda").write_text("#!/bin/sh\nexit 99\n")
        (folder / "conda").chmod(0o755)


def test_what_only_conda_has_is_refused_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(tmp_path, monkeypatch, installed=False)
    with pytest.raises(EnvironmentSpecError) as refusal:
        read_conda(tmp_path, yaml.safe_dump({"dependencies": MIXED}))
    said = str(refusal.value)
    assert "only conda has cudatoolkit=11, other::tool, python[version='>3'], nodejs|x, and" in said
    assert "(leave out cudatoolkit=11: PyPI's torch brings its own CUDA libraries)" in said
    assert "(mamba, micromamba, conda, py-rattler): install one ('pip install mlflow-pytorch-estimator[conda]'" in said


@pytest.mark.parametrize("manager", ["uv", "virtualenv"])
def test_conda_is_not_used_against_the_users_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manager: str
) -> None:
    engine(tmp_path, monkeypatch, installed=True)
    with pytest.raises(EnvironmentSpecError, match="only conda has nodejs, and no conda may be used"):
        read_conda(tmp_path, "dependencies: [nodejs]\n", manager)


@pytest.mark.parametrize("manager", [None, "conda"])
def test_conda_is_used_for_what_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manager: str | None) -> None:
    engine(tmp_path, monkeypatch, installed=True)
    text = (
        "channels: [pytorch, conda-forge, nodefaults, pytorch]\n"
        "dependencies: ['python=3.11', 'numpy=1.26', nodejs >=20, horovod, {pip: [six, 'pip>=23']}]\n"
    )
    assert read_conda(tmp_path, text, manager) == EnvironmentSpec(
        "conda",
        "==3.11.*",
        ("six", "pip>=23"),
        (),
        "conda.yaml",
        conda=("python 3.11.*", "pip", "numpy=1.26", "nodejs >=20"),
        channels=("pytorch", "conda-forge"),
        horovod=True,
    )


@pytest.mark.parametrize(
    ("line", "specs"),
    [
        ("pip=24", ("python >=3.10", "pip=24")),
        ("python", ("python >=3.10", "pip")),
        ("python<3.12", ("python >=3.10,<3.12", "pip")),
        ("python>=3.11,!=3.12.*", ("python >=3.11,!=3.12.*", "pip")),
        ("python==3.11.4", ("python ==3.11.4", "pip")),
        ("python~=3.11", ("python ~=3.11", "pip")),
        ("python[version='>3']", ("python >=3.10", "pip", "python[version='>3']")),
        ("python=3.10|3.11", ("python >=3.10", "pip", "python=3.10|3.11")),
    ],
)
def test_what_conda_is_told_about_python_and_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, specs: tuple[str, ...]
) -> None:
    engine(tmp_path, monkeypatch, installed=True)
    found = read_conda(tmp_path, yaml.safe_dump({"dependencies": [line, "nodejs"]}))
    assert set(found.conda) == {*specs, "nodejs"}
    assert found.channels == ("conda-forge",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("channels: ['https://u:hunter2@host/c']", "the URL of host holds a password"),
        ("channels: ['https://host/t/hunter2/c']", "holds a token"),
        ("channels: [./here]", "channel './here' must be a name, a URL or an absolute path"),
        ("channels: ['https://host/t/${TOKEN}/c']", "cannot hold a variable: log in to it with"),
        ("channels: conda-forge", "'channels' must be a list"),
        ("variables: [A]", "'variables' must be a mapping"),
        ("variables: {A-B: x}", "'A-B' cannot name an environment variable"),
        ("variables: {A: true}", "the variable A must be a text"),
        ("variables: {A: 0.1}", "write its value in quotes"),
    ],
)
def test_bad_sections_of_a_conda_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    engine(tmp_path, monkeypatch, installed=True)
    with pytest.raises(EnvironmentSpecError) as refusal:
        read_conda(tmp_path, f"dependencies: [nodejs]\n{text}\n")
    assert words in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


def test_an_option_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(tmp_path, monkeypatch, installed=True)
    with pytest.raises(EnvironmentSpecError, match=r"conda.yaml: '--file=x' is no package"):
        read_conda(tmp_path, "dependencies: [nodejs, --file=x]\n")


def test_conda_against_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(tmp_path, monkeypatch, installed=True)
    for more in ("", ", nodejs"):
        with pytest.raises(EnvironmentSpecError, match=r"numpy==(2\.0|1\.26\.\*) .* contradicts numpy"):
            read_conda(tmp_path, f"dependencies: [numpy=1.26{more}, {{pip: [numpy==2.0]}}]\n")


def test_variables_of_a_conda_file_are_neither_stored_nor_shown(tmp_path: Path) -> None:
    found = read_conda(tmp_path, "dependencies: [python]\nvariables: {API_TOKEN: hunter2, OMP_NUM_THREADS: 4}\n")
    assert dict(found.variables) == {"API_TOKEN": "hunter2", "OMP_NUM_THREADS": "4"}
    assert "hunter2" not in repr(found) + json.dumps(found.to_json())
    assert EnvironmentSpec.from_json(found.to_json()).variables == ()


# --- the same software under PyPI's name


@pytest.mark.parametrize(
    ("item", "line"),
    [
        ("pytorch=2.1", "torch==2.1.*"),
        ("pytorch::pytorch=2.1.0=py3.11_cuda12.1_cudnn8_0", "torch==2.1.0"),
        ("pytorch::torchvision", "torchvision"),
        ("nvidia::pytorch", "torch"),
        ("conda-forge::msgpack-python=1.0", "msgpack==1.0.*"),
        ("huggingface_hub", "huggingface_hub"),
        ("pytables", "tables"),
        ("numpy=1.26.4 py311_0", "numpy==1.26.4"),
    ],
)
def test_names_that_pypi_has(tmp_path: Path, item: str, line: str) -> None:
    wanted = requirement_name(line)
    (found,) = read_conda(tmp_path, yaml.safe_dump({"dependencies": [item]})).requirements
    assert requirement_name(found) == wanted
    assert found.partition("=")[1:] == line.partition("=")[1:]


@pytest.mark.parametrize(
    "item", ["pytorch::numpy", "bioconda::pytorch", "lmdb", "graphviz", "opencv", "mpi4py", "cudnn"]
)
def test_names_that_mean_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, item: str) -> None:
    engine(tmp_path, monkeypatch, installed=False)
    with pytest.raises(EnvironmentSpecError, match=f"only conda has {item}"):
        read_conda(tmp_path, f"dependencies: ['{item}']\n")


# --- Horovod


@pytest.mark.parametrize(
    "line", ["horovod", "Horovod[pytorch]", "horovod==0.28.1", "horovod>=0.21", "horovod==0.28.1 --hash=sha256:aa"]
)
def test_horovod_is_taken_out(tmp_path: Path, line: str) -> None:
    (tmp_path / "limits.txt").write_text("horovod<1\nnumpy<3\n")
    found = read_requirements(tmp_path, f"six\n{line}\n-c limits.txt\n")
    assert (found.requirements, found.constraints, found.horovod) == (("six",), ("numpy<3",), True)


@pytest.mark.parametrize("item", ["horovod", "horovod=0.28", "conda-forge::horovod=0.28.1=cuda118_0"])
def test_horovod_of_conda(tmp_path: Path, item: str) -> None:
    found = read_conda(tmp_path, f"dependencies: [{item}, {{pip: [torch]}}]\n")
    assert (found.manager, found.requirements, found.horovod) == ("uv", ("torch",), True)


@pytest.mark.parametrize("line", ["horovod==0.21.*", "horovod<0.28", "horovod[spark]"])
def test_horovod_that_cannot_be_built(tmp_path: Path, line: str) -> None:
    with pytest.raises(
        EnvironmentSpecError, match=r"requirements\.txt: horovod.* cannot be had: Horovod is built here"
    ):
        read_requirements(tmp_path, line + "\n")
    (tmp_path / "limits.txt").write_text(f"{line}\n")
    with pytest.raises(EnvironmentSpecError, match="cannot be had"):
        read_requirements(tmp_path, "horovod\n-c limits.txt\n")
    assert not read_requirements(tmp_path, "six\n-c limits.txt\n").horovod


@pytest.mark.parametrize(
    "line",
    [
        "horovod @ https://host/horovod.whl",
        "git+https://host/horovod.git",
        "./horovod",
        "./wheels/horovod-0.21-py3-none-any.whl",
    ],
)
def test_horovod_of_the_users_own(tmp_path: Path, line: str) -> None:
    (tmp_path / "horovod").mkdir()
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels/horovod-0.21-py3-none-any.whl").touch()
    found = read_requirements(tmp_path, f"{line}\nhorovod>=0.19\n")
    assert (found.requirements, found.horovod) == ((line, "horovod>=0.19"), False)


# --- pyproject.toml


def read_pyproject(folder: Path, text: str) -> EnvironmentSpec:
    (folder / "pyproject.toml").write_text(text)
    return read_environment(folder, None, None, None)


def test_pyproject(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    found = read_pyproject(
        tmp_path,
        '[project]\nrequires-python = ">=3.8"\ndependencies = ["Torch >= 2", "horovod", "pkg @ file:pkg"]\n'
        '[project.optional-dependencies]\ndev = ["pytest"]\n[dependency-groups]\ntest = ["coverage"]\n',
    )
    assert found == EnvironmentSpec("uv", ">=3.8", ("Torch>=2", "pkg @ ./pkg"), (), "pyproject.toml", horovod=True)


@pytest.mark.parametrize("text", ["", "[tool.ruff]\nline-length = 100\n", "[project]\nname = 'x'\ndependencies = []\n"])
def test_pyproject_that_asks_for_nothing(tmp_path: Path, text: str) -> None:
    assert read_pyproject(tmp_path, text) == EnvironmentSpec("uv", None, (), (), "none")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[project\n", "pyproject.toml: not valid TOML"),
        ("project = 1\n", "'project' must be a table"),
        ("[project]\ndependencies = 'six'\n", "project.dependencies must be a list of strings"),
        ("[project]\ndependencies = ['a b']\n", "pyproject.toml: 'a b' is not a requirement"),
        ("[project]\nrequires-python = 3\n", "project.requires-python must be a string"),
        ("[project]\nrequires-python = '3.11'\n", "'3.11' is not a Python version"),
        ("[project]\nrequires-python = '<3.8'\n", "need Python 3.10 or newer"),
        ("[project]\ndynamic = ['dependencies']\n", "dependencies are dynamic, so only its build tool knows them"),
    ],
)
def test_bad_pyproject(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(EnvironmentSpecError) as refusal:
        read_pyproject(tmp_path, text)
    assert words in str(refusal.value)


def test_requirements_before_pyproject(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    warn_once.cache_clear()
    (tmp_path / "requirements.txt").write_text("six==1.16.0\n")
    for _ in range(2):
        found = read_pyproject(tmp_path, "[project]\nrequires-python = '>=3.11'\ndependencies = ['six>=1', 'tqdm']\n")
    assert (found.python, found.requirements) == (">=3.11", ("six==1.16.0",))
    assert found.source == "requirements.txt, pyproject.toml"
    assert caplog.messages == [
        "pyproject.toml: its dependencies are not read, because there is a requirements.txt: remove one of them"
    ]
    with pytest.raises(EnvironmentSpecError) as refusal:
        read_pyproject(tmp_path, "[project]\ndependencies = ['six<1']\n")
    assert "six==1.16.0 (requirements.txt) contradicts six<1 (pyproject.toml)" in str(refusal.value)
    read_pyproject(tmp_path, "[project]\ndynamic = ['dependencies']\n")
    assert len(caplog.messages) == 1


def test_file_of_the_mlproject_before_all_others(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("tqdm\n")
    (tmp_path / "pyproject.toml").write_text("[project\n")
    assert read_python_env(tmp_path, "dependencies: [six]\n").requirements == ("six",)


def test_dependencies_of_another_tool(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    warn_once.cache_clear()
    read_pyproject(tmp_path, "[tool.poetry.dependencies]\ntorch = '^2'\n")
    (message,) = caplog.messages
    assert "tool.poetry.dependencies is not read" in message


# --- conda's own files


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "conda.yaml: the file is empty"),
        ("- a", "must be a mapping, not a list"),
        ("a: [", "conda.yaml:2: not valid YAML"),
        ("a: !!python/name:os.system x", "not valid YAML"),
        ("name: x", "'dependencies' must be a list"),
        ("dependencies: python", "'dependencies' must be a list"),
        ("dependencies: [3.11]", "3.11 is neither a package nor"),
        ("dependencies: [{pip: six}]", "'pip:' must be a list of strings"),
        ("dependencies: [{pip: [1]}]", "'pip:' must be a list of strings"),
        ("dependencies: [{npm: [x]}]", "neither a package nor a 'pip:' list"),
        ("dependencies: []\nvariable: {A: 1}", "variable is not supported"),
        ("dependencies: [python=3.8]", "need Python 3.10 or newer"),
        ("dependencies: ['python=3.10|3.11']", "python=3.10|3.11"),
        ("dependencies: [{pip: ['a b']}]", "conda.yaml: 'a b' is not a requirement"),
    ],
)
def test_bad_conda_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    engine(tmp_path, monkeypatch, installed=False)
    with pytest.raises(EnvironmentSpecError) as refusal:
        read_conda(tmp_path, text + "\n")
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentSpecError, match=r"no\.yaml: cannot be read: No such file"):
        read_environment(tmp_path, tmp_path / "no.yaml", "conda", None)
    (tmp_path / "bin.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EnvironmentSpecError, match=r"bin\.yaml: not UTF-8"):
        read_environment(tmp_path, tmp_path / "bin.yaml", "python", None)


# --- python_env.yaml


@pytest.mark.parametrize(
    ("value", "python"),
    [('"3.10"', "==3.10.*"), ("3.11.7", "==3.11.7"), ('">=3.10, <3.13"', ">=3.10,<3.13"), ("null", None)],
)
def test_python_env_python(tmp_path: Path, value: str, python: str | None) -> None:
    assert read_python_env(tmp_path, f"python: {value}\n").python == python


def test_python_env_file(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("scikit-learn\n-c limits.txt\n")
    (tmp_path / "limits.txt").write_text("numpy<3\n")
    found = read_python_env(
        tmp_path, "python: 3.11.7\nbuild_dependencies: [pip==24.0]\ndependencies: ['-r requirements.txt', six]\n"
    )
    assert found.requirements == ("pip==24.0", "scikit-learn", "six")
    assert found.constraints == ("numpy<3",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("python: 3.10", "python must be in quotes"),
        ("python: latest", "'latest' is not a Python version"),
        ("python: '>=3.99'", "asks for Python >=3.99"),
        ("pyton: '3.11'", "unknown key pyton"),
        ("dependencies: six", "'dependencies' must be a list of strings"),
        ("build_dependencies: [3]", "'build_dependencies' must be a list of strings"),
    ],
)
def test_bad_python_env_file(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(EnvironmentSpecError, match=r"python_env\.yaml: ") as refusal:
        read_python_env(tmp_path, text + "\n")
    assert words in str(refusal.value)


# --- which file


def test_no_file_means_only_the_base(tmp_path: Path) -> None:
    assert read_environment(tmp_path, None, None, None) == EnvironmentSpec("uv", None, (), (), "none")


def test_local_manager_ignores_files(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("not a requirement !")
    assert read_environment(tmp_path, None, None, "local") == EnvironmentSpec("local", None, (), (), "local")


def test_unknown_manager(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentSpecError, match="'poetry' is not supported"):
        read_environment(tmp_path, None, None, "poetry")


# --- requirement lines

GOOD_LINES = [
    ("six # why", "six"),
    ("six==1.16.0 \\\n  --hash=sha256:aa \\\n  --hash sha256:bb\n", "six==1.16.0 --hash=sha256:aa --hash=sha256:bb"),
    ("\ufeffsix", "six"),
    ('a ; sys_platform == "linux"', 'a; sys_platform == "linux"'),
    ("a[x,y] ~= 1.0", "a[x,y]~=1.0"),
    ("a @ https://host/a-1.whl#sha256=ff", "a @ https://host/a-1.whl#sha256=ff"),
    ("https://host/a-1.whl", "https://host/a-1.whl"),
    ("git+https://host/a.git@main#egg=a", "git+https://host/a.git@main#egg=a"),
    ("git+ssh://git@host/a.git", "git+ssh://git@host/a.git"),
    ("-e git+https://host/a.git", "git+https://host/a.git"),
    ("git+https://${TOKEN}@host/a", "git+https://${TOKEN}@host/a"),
    ("-i https://host/simple", "--index-url https://host/simple"),
    ("--extra-index-url=https://oauth2accesstoken@host/s", "--extra-index-url https://oauth2accesstoken@host/s"),
    ("-fhttps://host/links", "--find-links https://host/links"),
    ("--find-links wheels", "--find-links ./wheels"),
    ("--no-binary=:all:", "--no-binary :all:"),
    ("--only-binary a,b", "--only-binary a,b"),
    ("--pre", "--pre"),
    (".", "./."),
    ("-e .", "./."),
    ("--editable=./pkg[x]", "./pkg[x]"),
    ("pkg/", "./pkg"),
    ("./pkg ; python_version > '3'", "./pkg ; python_version > '3'"),
    ("name[x] @ file:pkg", "name[x] @ ./pkg"),
    ("./my pkg", "./my pkg"),
    ("file:./my%20pkg", "./my pkg"),
    ("./wheels/a-1-py3-none-any.whl --hash=sha256:aa", "./wheels/a-1-py3-none-any.whl --hash=sha256:aa"),
]


@pytest.mark.parametrize(("text", "expected"), GOOD_LINES)
def test_requirement_line(tmp_path: Path, text: str, expected: str) -> None:
    for folder in ("pkg", "my pkg", "wheels"):
        (tmp_path / folder).mkdir()
    (tmp_path / "wheels/a-1-py3-none-any.whl").touch()
    assert read_requirements(tmp_path, text).requirements == (expected,)


def test_several_options_on_a_line(tmp_path: Path) -> None:
    lines = read_requirements(tmp_path, "--pre -i https://a --extra-index-url https://b\n").requirements
    assert lines == ("--pre", "--index-url https://a", "--extra-index-url https://b")


def test_included_files(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "deps/pkg").mkdir(parents=True)
    (project / "deps/more.txt").write_text("./pkg\n-r ../../outside.txt\n-c limits.txt\n")
    (project / "deps/limits.txt").write_text("numpy<3\n-r deeper.txt\n")
    (project / "deps/deeper.txt").write_text("scipy<2\n")
    (tmp_path / "outside.txt").write_text("six\n/" + str(tmp_path).lstrip("/") + "\n")
    found = read_requirements(project, "# comment \\\na\n\n-r deps/more.txt\nb\n")
    assert found.requirements == ("a", "./deps/pkg", "six", str(tmp_path), "b")
    assert found.constraints == ("numpy<3", "scipy<2")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("six\n\nnot a requirement", "requirements.txt:3: 'not a requirement' is not a requirement"),
        ("six=1", "requirements.txt:1: 'six=1' is not a requirement"),
        ("a \\\n b", "requirements.txt:1: "),
        ("-r no.txt", "requirements.txt:1: there is no no.txt"),
        ("-c no.txt", "there is no no.txt"),
        ("./nothing", "requirements.txt:1: there is no ./nothing"),
        ("-r requirements.txt", "requirements.txt: the file includes itself"),
        ("-r https://host/r.txt", "--requirement of a URL is not supported"),
        ("--require-hashes", "option --require-hashes is not supported here (known: -r, -c, -e,"),
        ("--trusted-host x", "option --trusted-host is not supported"),
        ("-z", "option -z is not supported"),
        ("--index-url", "option --index-url needs a value"),
        ("-i 'x", "No closing quotation"),
        ("six --global-option=x", "--global-option=x is not supported after a requirement"),
    ],
)
def test_bad_requirement_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(EnvironmentSpecError) as refusal:
        read_requirements(tmp_path, text)
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://user:hunter2@host/simple",
        "--extra-index-url=https://user:p@hunter2@host/simple",
        "-f https://u:hunter2@host/",
        "a @ https://user:hunter2@host/a.whl",
        "git+https://hunter2hunter2hunter2@host/a",
        "six  # ok\n-i https://:hunter2@host/simple",
    ],
)
def test_secrets_are_refused_and_not_repeated(tmp_path: Path, line: str) -> None:
    with pytest.raises(EnvironmentSpecError, match="the URL of host holds a password") as refusal:
        read_requirements(tmp_path, line)
    assert "hunter2" not in str(refusal.value)


def test_redaction() -> None:
    assert redact("GET https://u:secret@host/x git@host ssh://git@h") == "GET https://****@host/x git@host ssh://git@h"


def test_output_lines_are_cleaned() -> None:
    assert clean("\x1b[1mFetch\x1b[0m https://u:secret@host \r\n") == "Fetch https://****@host"


def test_json_round_trip(tmp_path: Path) -> None:
    found = read_requirements(tmp_path, "six\n--pre\n")
    assert EnvironmentSpec.from_json(json.loads(json.dumps(found.to_json()))) == found
    with pytest.raises(TypeError):
        EnvironmentSpec.from_json({**found.to_json(), "requirements": "six"})


# --- what the job gets besides


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("Foo_Bar[x]>=1", "foo-bar"),
        ('six; python_version < "3"', ""),
        ("--index-url https://host", ""),
        ("foo==1 --hash=sha256:aa", "foo"),
        ("git+https://host/mlflow/mlflow.git@master", "mlflow"),
        ("git+https://host/x#egg=Foo", "foo"),
        ("./wheels/mlflow-3.1-py3-none-any.whl", "mlflow"),
        ("my_pkg[x] @ ./pkg", "my-pkg"),
        ("./.", ""),
    ],
)
def test_requirement_name(line: str, name: str) -> None:
    assert requirement_name(line) == name


BASE = ("mlflow==3.9.0", "requests>=2.28", "pip")


@pytest.mark.parametrize(
    ("mine", "requirements", "constraints"),
    [
        ((), BASE, ()),
        (("six",), ("six", *BASE), ()),
        (("mlflow",), ("mlflow", *BASE[1:]), ("mlflow==3.9.0",)),
        (("mlflow>=3.8",), ("mlflow>=3.8", *BASE[1:]), ("mlflow==3.9.0",)),
        (("MLflow==2.20",), ("MLflow==2.20", *BASE[1:]), ()),
        (("mlflow-skinny",), ("mlflow-skinny", *BASE[1:]), ("mlflow-skinny==3.9.0",)),
        (("mlflow==3.8", "mlflow-skinny"), ("mlflow==3.8", "mlflow-skinny", *BASE[1:]), ()),
        (("git+https://host/mlflow",), ("git+https://host/mlflow", *BASE[1:]), ()),
        (("requests==2.30", "pip==24.*"), ("requests==2.30", "pip==24.*", BASE[0]), ()),
    ],
)
def test_the_users_word_wins(
    mine: tuple[str, ...], requirements: tuple[str, ...], constraints: tuple[str, ...]
) -> None:
    assert job_packages(spec(*mine), BASE) == (requirements, constraints)


def test_a_constraint_of_the_user_on_a_base_package() -> None:
    found = job_packages(spec(constraints=("mlflow==3.8.1", "numpy<3")), BASE)
    assert found == (("mlflow", *BASE[1:]), ("mlflow==3.8.1", "numpy<3"))


def test_our_own_package_is_left_to_the_caller() -> None:
    assert job_packages(spec("mlflow-pytorch-estimator==0.1"), ()) == ((), ())
    extras, _ = job_packages(spec("mlflow_pytorch_estimator[onnx]"), ())
    assert {"torch", "onnx", "onnxruntime", "onnxscript"} <= {requirement_name(line) for line in extras}
    assert not any("extra" in line for line in extras)


def test_default_base() -> None:
    base = default_base()
    assert base[0] == f"mlflow=={metadata.version('mlflow')}"
    assert {"psutil", "requests", "pip"} <= {requirement_name(line) for line in base}
    assert not {"torch", "pytest"} & {requirement_name(line) for line in base}


def test_a_development_mlflow_falls_back_to_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: "3.18.0.dev0")
    assert default_base()[0].startswith("mlflow<4,>=3")


# --- uv's variables, its words, our hashes


@pytest.mark.parametrize(
    ("given", "requirements", "expected"),
    [
        ({"PIP_INDEX_URL": "https://a"}, (), {"UV_DEFAULT_INDEX": "https://a"}),
        ({"PIP_INDEX_URL": "https://a"}, ("--index-url https://b",), {}),
        ({"PIP_INDEX_URL": "https://a", "UV_INDEX": "https://c"}, (), {"UV_INDEX": "https://c"}),
        (
            {"PIP_EXTRA_INDEX_URL": "https://a file:///b http://c"},
            (),
            {"UV_INDEX": "https://a http://c", "UV_INDEX_STRATEGY": "unsafe-best-match"},
        ),
        ({"PIP_EXTRA_INDEX_URL": "file:///b"}, (), {}),
        ({}, ("--extra-index-url https://x",), {"UV_INDEX_STRATEGY": "unsafe-best-match"}),
        ({"UV_INDEX_STRATEGY": "first-index"}, ("--extra-index-url https://x",), {"UV_INDEX_STRATEGY": "first-index"}),
        ({}, ("--pre",), {"UV_PRERELEASE": "allow"}),
        (
            {"VIRTUAL_ENV": "/v", "PYTHONPATH": "/p", "PYTHONHOME": "/h", "UV_PROJECT_ENVIRONMENT": "/e"},
            (),
            {},
        ),
        ({"UV_PYTHON": "3.9", "UV_PYTHON_DOWNLOADS": "never"}, (), {"UV_PYTHON_DOWNLOADS": "never"}),
    ],
)
def test_uv_environment(
    tmp_path: Path, given: dict[str, str], requirements: tuple[str, ...], expected: dict[str, str]
) -> None:
    given |= {"HOME": str(tmp_path)}
    found = uv_environment(given, requirements, tmp_path / "cache")
    always = {"HOME": str(tmp_path), "NO_COLOR": "1"}
    pip = {name: value for name, value in given.items() if name.startswith("PIP_")}
    assert found == always | pip | expected


def test_link_mode_follows_the_device(tmp_path: Path) -> None:
    found = uv_environment({"UV_CACHE_DIR": "/proc/uv"}, (), tmp_path)
    assert found["UV_LINK_MODE"] == "copy"


def test_reason_of_new_and_old_uv() -> None:
    new = "Using Python\nerror: No solution found\n  cause: Because a\n         and b\n\nhint: try c\n"
    assert reason(new) == "No solution found\n  cause: Because a\n  and b\n  hint: try c"
    old = "warning: x\n  × No solution found:\n  ╰─▶ Because a\n      and b\n"  # noqa: RUF001 - uv's own
    assert reason(old) == "No solution found:\n  Because a\n  and b"


def test_reason_without_stack_trace() -> None:
    trace = '   Traceback (most recent call last):\n     File "x", line 1\n       f()\n   ValueError: no\n'
    text = f"error: failed\n   [stderr]\n{trace}"
    assert reason(text) == "failed\n  [stderr]\n  ValueError: no"
    assert len(reason("error: x\n" + "line\n" * 99).splitlines()) == 15


def test_content_hash_sees_what_matters(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/a.py").write_text("A = 1")
    before = content_hash(tmp_path)
    (tmp_path / "pkg/__pycache__").mkdir()
    (tmp_path / "pkg/__pycache__/a.pyc").write_text("x")
    (tmp_path / "build").mkdir()
    (tmp_path / "build/x").write_text("x")
    assert content_hash(tmp_path) == before
    (tmp_path / "pkg/a.py").write_text("A = 2")
    changed = content_hash(tmp_path)
    (tmp_path / "pkg/a.py").rename(tmp_path / "pkg/b.py")
    assert len({before, changed, content_hash(tmp_path)}) == 3


def test_local_requirement_round_trip() -> None:
    parsed = LocalRequirement.parse("name[x] @ ./p ; python_version > '3'")
    assert parsed is not None
    assert parsed.line("file:///q") == "name[x] @ file:///q ; python_version > '3'"
    assert LocalRequirement.parse("six>=1; python_version > '3'") is None
