"""Conda, mamba, micromamba and py-rattler: which one, with which words, and what they leave behind."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conda_channel import HERE, PLACEHOLDER, Channel, private_caches, serving

from mlflow_pytorch_estimator.environments.prefix.conda_engine import (
    Engine,
    RattlerEngine,
    engine_environment,
    find,
    installed,
)
from mlflow_pytorch_estimator.environments.prefix.conda_meta import CondaPackage, packages
from mlflow_pytorch_estimator.environments.runner import Runner
from mlflow_pytorch_estimator.errors import EnvironmentBuildError

RATTLER = RattlerEngine("py-rattler", sys.executable)
# py-rattler comes with the tests; the programs are tried where there are any.
REAL = [*dict.fromkeys([RATTLER, found] if (found := find(os.environ)) else [RATTLER])]


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    with (tmp_path / "lock").open("w") as lock:
        yield Runner(io.StringIO(), lambda: False, lambda _: None, lock.fileno())


def program(folder: Path, name: str, body: str = "exit 0") -> Path:
    """An executable that notes its arguments, one a line, and then does ``body``."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {folder}/argv\nenv > {folder}/environ\n{body}\n")
    file.chmod(0o755)
    return file


# --- which one


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if py-rattler were not installed."""
    monkeypatch.setitem(sys.modules, "rattler", None)


@pytest.mark.usefixtures("no_library")
def test_no_engine(tmp_path: Path) -> None:
    assert find({"PATH": str(tmp_path)}) is None
    assert find({"PATH": str(tmp_path), "CONDA_EXE": str(tmp_path / "conda"), "MAMBA_EXE": ""}) is None
    with pytest.raises(
        EnvironmentBuildError, match=r"no conda is here .*pip install mlflow-pytorch-estimator\[conda\]"
    ):
        installed({"PATH": str(tmp_path)})


def test_the_library_comes_last(tmp_path: Path) -> None:
    code = """
import sys
from mlflow_pytorch_estimator.environments.prefix.conda_engine import find
print(find({"PATH": sys.argv[1]}).name, "rattler" in sys.modules)
"""

    def found() -> str:
        return subprocess.check_output([sys.executable, "-c", code, str(tmp_path)], text=True).strip()

    assert found() == "py-rattler False"
    program(tmp_path, "conda")
    assert found() == "conda False"


def test_order_of_preference(tmp_path: Path) -> None:
    for name in ("conda", "micromamba", "mamba"):
        file = program(tmp_path / "base/bin", name)
        (tmp_path / "base/conda-meta").mkdir(exist_ok=True)
        assert find({"PATH": str(file.parent)}) == Engine(name, str(file))


@pytest.mark.usefixtures("no_library")
def test_a_mamba_that_is_another_program(tmp_path: Path) -> None:
    file = program(tmp_path / "venv/bin", "mamba")
    assert find({"PATH": str(file.parent)}) is None
    assert find({"PATH": str(file.parent), "MAMBA_EXE": str(file)}) == Engine("mamba", str(file))


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize(
    ("variable", "name"), [("MAMBA_EXE", "micromamba"), ("MAMBA_EXE", "mamba"), ("CONDA_EXE", "conda")]
)
def test_variables_of_the_users_shell(tmp_path: Path, variable: str, name: str) -> None:
    file = program(tmp_path / "somewhere", name)
    other = program(tmp_path / "path", name)
    assert find({"PATH": str(other.parent), variable: str(file)}) == Engine(name, str(file))
    file.unlink()
    assert find({"PATH": str(tmp_path), variable: str(file)}) is None


# --- with which words


@pytest.mark.parametrize("name", ["mamba", "micromamba", "conda"])
def test_words_for_specifications(tmp_path: Path, runner: Runner, name: str) -> None:
    engine = Engine(name, str(program(tmp_path / "bin", name)))
    specs = ["python 3.11.*", "pip", "tool>=1.0,<2"]
    engine.create(tmp_path / "prefix", specs, ["conda-forge", "https://host/c"], runner, dict(os.environ))
    alone = ["--no-default-packages"] if name == "conda" else []
    assert (tmp_path / "bin/argv").read_text().splitlines() == [
        *("create", "--yes", "--quiet", "--prefix", str(tmp_path / "prefix"), *alone),
        *("--override-channels", "--channel", "conda-forge", "--channel", "https://host/c", *specs),
    ]


@pytest.mark.parametrize("name", ["mamba", "micromamba", "conda"])
def test_words_for_addresses(tmp_path: Path, runner: Runner, name: str) -> None:
    copy = f'for last; do :; done; cp "$last" {tmp_path}/list'
    engine = Engine(name, str(program(tmp_path / "bin", name, copy)))
    package = CondaPackage("https://host/a-1-0.conda", {"name": "a", "md5": "ff", "sha256": "ee"})
    engine.create_explicit(tmp_path / "prefix", [package], runner, dict(os.environ))
    *words, file = (tmp_path / "bin/argv").read_text().splitlines()
    alone = ["--no-default-packages"] if name == "conda" else []
    assert words == ["create", "--yes", "--quiet", "--prefix", str(tmp_path / "prefix"), *alone, "--file"]
    assert (tmp_path / "list").read_text() == "@EXPLICIT\nhttps://host/a-1-0.conda#ff\n"
    assert not Path(file).exists()


def test_environment_of_an_engine(tmp_path: Path, runner: Runner) -> None:
    given = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": "/p",
        "PYTHONHOME": "/h",
        "CONDA_PREFIX": "/c",
        "VIRTUAL_ENV": "/v",
    }
    kept = {"CONDA_PKGS_DIRS": "/pkgs", "MAMBA_ROOT_PREFIX": "/m", "HTTPS_PROXY": "p"}
    found = engine_environment(given | kept)
    assert kept.items() <= found.items()
    assert set(found) == {"PATH", *kept, "NO_COLOR", "CONDA_NUMBER_CHANNEL_NOTICES"}
    Engine("conda", str(program(tmp_path / "bin", "conda"))).create(tmp_path / "p", ["a"], ["c"], runner, given)
    assert "PYTHONPATH" not in (tmp_path / "bin/environ").read_text()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "Solving: failed\n\nSomeError: not available:\n\n  - nosuch\n\nTo search for alternate channels, go\n",
            "conda: SomeError: not available:\n  - nosuch",
        ),
        (
            "warning  libmamba x\nerror    libmamba Could not solve\n    └─ nosuch does not exist\n",
            "conda: error    libmamba Could not solve\n  └─ nosuch does not exist",
        ),
        ("one\ntwo\nthree\nfour\n", "conda: two\n  three\n  four"),
        ("", "conda: conda ended with 3"),
    ],
)
def test_reason_of_a_failure(tmp_path: Path, runner: Runner, said: str, reason: str) -> None:
    (tmp_path / "said").write_text(said)
    engine = Engine("conda", str(program(tmp_path / "bin", "conda", f"cat {tmp_path}/said; exit 3")))
    with pytest.raises(EnvironmentBuildError) as caught:
        engine.create(tmp_path / "prefix", ["nosuch"], ["c"], runner, dict(os.environ))
    assert str(caught.value) == reason


def test_a_long_reason_is_cut(tmp_path: Path, runner: Runner) -> None:
    body = "echo SomeError: x; seq 100; exit 1"
    engine = Engine("conda", str(program(tmp_path / "bin", "conda", body)))
    with pytest.raises(EnvironmentBuildError) as caught:
        engine.create(tmp_path / "prefix", ["a"], ["c"], runner, dict(os.environ))
    assert len(str(caught.value).splitlines()) == 16


# --- what they leave behind


def record(prefix: Path, name: str, depends: tuple[str, ...] = (), url: str | None = None, md5: str = "") -> None:
    (prefix / "conda-meta").mkdir(parents=True, exist_ok=True)
    content = {"name": name, "depends": depends, "url": url or f"https://host/{name}-1-0.conda", "md5": md5}
    (prefix / f"conda-meta/{name}-1-0.json").write_text(json.dumps(content))


def test_addresses_come_after_what_they_need(tmp_path: Path) -> None:
    record(tmp_path, "a", ("z >=1", "python[version='>3']", "__glibc >=2.17"), md5="ff")
    record(tmp_path, "z", ("middle<2",))
    record(tmp_path, "middle", ("z",))  # a circle
    record(tmp_path, "python", ("pip",))
    record(tmp_path, "pip", ("python",))
    (tmp_path / "conda-meta/history").touch()
    names = [found.facts["name"] for found in packages(tmp_path)]
    assert names == ["middle", "z", "pip", "python", "a"]
    assert packages(tmp_path)[-1].line == "https://host/a-1-0.conda#ff"


@pytest.mark.parametrize("url", ["https://user:hunter2@host/c/a.conda", "https://host/t/hunter2/c/a.conda"])
def test_addresses_hold_no_secret(tmp_path: Path, url: str) -> None:
    record(tmp_path, "a", url=url)
    assert [found.line for found in packages(tmp_path)] == ["https://host/c/a.conda"]


def test_a_prefix_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentBuildError, match="conda installed nothing into"):
        packages(tmp_path)
    record(tmp_path, "a")
    (tmp_path / "conda-meta/b-1-0.json").write_text("{")
    with pytest.raises(EnvironmentBuildError, match="cannot read what conda installed"):
        packages(tmp_path)


# --- the real thing


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[Channel]:
    """Served, because conda does not check local files."""
    with serving(tmp_path / "channel") as channel:
        channel.python()
        channel.add("pip", "24.0", ("python",), {"share/pip": "pip"})
        for version in ("1.2", "2.0"):
            files = {"bin/tool": f"#!/bin/sh\necho tool {version} {PLACEHOLDER}\n"}
            channel.add("tool", version, ("a-library >=1",), files)
        channel.add("a-library", "1.0", (), {"lib/a-library": "x"})
        channel.module("arrays")
        yield channel


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, **private_caches(tmp_path)}


def files(prefix: Path) -> set[str]:
    return {str(path.relative_to(prefix)) for path in prefix.rglob("*")}


@pytest.mark.parametrize("engine", REAL, ids=lambda engine: engine.name)
def test_real_environment_and_its_copy(
    tmp_path: Path, runner: Runner, channel: Channel, environ: dict[str, str], engine: Engine
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    engine.create(first, ["python >=3.10", "pip", "tool=1", "arrays"], [channel.url], runner, environ)
    assert subprocess.check_output([first / "bin/tool"], text=True) == f"tool 1.2 {first}\n"
    subprocess.run([first / "bin/python", "-B", "-c", "import arrays"], check=True)  # no bytecode: files are compared
    found = packages(first)
    names = ["a-library", "python", "arrays", "pip", "tool"]
    assert [package.facts["name"] for package in found] == names
    (tmp_path / "rattler").rename(tmp_path / "gone")  # nothing is at hand, as on another machine
    engine.create_explicit(second, found, runner, environ)
    assert packages(second) == found
    assert files(second) == files(first)
    assert subprocess.check_output([second / "bin/tool"], text=True) == f"tool 1.2 {second}\n"


@pytest.mark.parametrize("engine", REAL, ids=lambda engine: engine.name)
def test_real_refusals(
    tmp_path: Path, runner: Runner, channel: Channel, environ: dict[str, str], engine: Engine
) -> None:
    with pytest.raises(EnvironmentBuildError, match="nosuch"):
        engine.create(tmp_path / "first", ["python", "nosuch>=3"], [channel.url], runner, environ)
    tool = f"{channel.url}/{HERE}/tool-1.2-0.tar.bz2"
    damaged = CondaPackage(tool, {"name": "tool", "version": "1.2", "build": "0", "md5": "0" * 32})
    with pytest.raises(EnvironmentBuildError):
        engine.create_explicit(tmp_path / "second", [damaged], runner, environ)
    assert not (tmp_path / "first/bin").exists()
    assert not (tmp_path / "second/bin").exists()


def test_same_name_from_another_channel(
    tmp_path: Path, runner: Runner, channel: Channel, environ: dict[str, str]
) -> None:
    """py-rattler's cache goes by name, version and build."""
    RATTLER.create(tmp_path / "first", ["tool=2"], [channel.url], runner, environ)
    with serving(tmp_path / "other") as other:
        other.add("tool", "2.0", (), {"bin/tool": "#!/bin/sh\necho another tool\n"})
        RATTLER.create(tmp_path / "second", ["tool"], [other.url], runner, environ)
        RATTLER.create_explicit(tmp_path / "third", packages(tmp_path / "first"), runner, environ)
        RATTLER.create_explicit(tmp_path / "fourth", packages(tmp_path / "second"), runner, environ)
    said = [subprocess.check_output([tmp_path / name / "bin/tool"], text=True) for name in ("third", "fourth")]
    assert said == [f"tool 2.0 {tmp_path / 'third'}\n", "another tool\n"]


def test_scripts_after_linking_are_run(
    tmp_path: Path, runner: Runner, channel: Channel, environ: dict[str, str]
) -> None:
    script = 'echo "$PREFIX" > "$PREFIX/linked"\n'
    channel.add("scripted", "1.0", (), {"bin/.scripted-post-link.sh": f"#!/bin/bash\n{script}"})
    RATTLER.create(tmp_path / "first", ["scripted"], [channel.url], runner, environ)
    assert (tmp_path / "first/linked").read_text() == f"{tmp_path / 'first'}\n"


def test_channel_that_is_a_name(tmp_path: Path, runner: Runner, channel: Channel, environ: dict[str, str]) -> None:
    Channel(channel.folder / "mine").add("other", "1.0", (), {"share/other": "x"})
    RATTLER.create(tmp_path / "first", ["other"], ["mine"], runner, environ | {"CONDA_CHANNEL_ALIAS": channel.url})
    assert packages(tmp_path / "first")[0].url == f"{channel.url}/mine/{HERE}/other-1.0-0.tar.bz2"


def test_channels_whose_names_stand_for_others() -> None:
    module = "mlflow_pytorch_estimator.environments.prefix.rattler_create"
    code = f"from {module} import known_names; print(*known_names(['mine', 'defaults', 'pkgs/r']))"
    said = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert said == ["mine", "main", "r", "r"]


@pytest.mark.parametrize(("priority", "version"), [("strict", "1.0"), ("disabled", "3.0")])
def test_first_channel_wins(
    tmp_path: Path, runner: Runner, channel: Channel, environ: dict[str, str], priority: str, version: str
) -> None:
    channel.add("both", "1.0", (), {"share/both": "x"})
    with serving(tmp_path / "other") as other:
        other.add("both", "3.0", (), {"share/both": "x"})
        settings = environ | {"CONDA_CHANNEL_PRIORITY": priority}
        RATTLER.create(tmp_path / "first", ["both"], [channel.url, other.url], runner, settings)
    assert [package.facts["version"] for package in packages(tmp_path / "first")] == [version]


def test_ends_in_good_order(tmp_path: Path, runner: Runner, channel: Channel, environ: dict[str, str]) -> None:
    """An interpreter that takes itself apart around py-rattler's threads crashes one time in five."""
    for number in range(20):
        RATTLER.create(tmp_path / str(number), ["a-library"], [channel.url], runner, environ)
        assert (tmp_path / str(number) / "lib/a-library").read_text() == "x"
