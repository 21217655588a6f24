"""Packages that a program lists and files beside a script -> one description, or one reason."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from mlflow_pytorch_estimator.environments import (
    EnvironmentSpec,
    PackageRequest,
    SourceNames,
    describe,
    framework_requirements,
    prepare,
    supported_versions,
)
from mlflow_pytorch_estimator.environments.description.framework import explain_framework, framework_python
from mlflow_pytorch_estimator.environments.description.notices import warn_once
from mlflow_pytorch_estimator.environments.description.pins import refuse_contradictions
from mlflow_pytorch_estimator.environments.description.requirements import standalone_lines
from mlflow_pytorch_estimator.errors import EnvironmentSpecError

NAMES = SourceNames("pip_packages", "conda_packages", "pip_requirements_file", "conda_file", "framework_version")
OUTSIDE = "is outside of the source directory"


def described(root: Path, **parts: Any) -> EnvironmentSpec:
    return describe(root, PackageRequest(**parts, names=NAMES))


def refusal(root: Path, **parts: Any) -> str:
    with pytest.raises(EnvironmentSpecError) as caught:
        described(root, **parts)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    warn_once.cache_clear()
    caplog.set_level(logging.WARNING)
    return caplog


# --- lists and files


def test_nothing_asked_for(tmp_path: Path) -> None:
    assert described(tmp_path) == EnvironmentSpec("uv", None, (), (), "none")


def test_all_parts_together(tmp_path: Path) -> None:
    (tmp_path / "deps").mkdir()
    (tmp_path / "deps/requirements.txt").write_text("tqdm\nsix\n-c limits.txt\n")
    (tmp_path / "deps/limits.txt").write_text("numpy<3\n")
    found = described(
        tmp_path,
        pip=("six", "--extra-index-url https://host/simple", "tqdm>=4"),
        conda=("python=3.11", "pip=24"),
        requirements_file=Path("deps/requirements.txt"),
        framework=("torch", "torchvision"),
    )
    assert found == EnvironmentSpec(
        "uv",
        "==3.11.*",
        ("pip==24.*", "tqdm", "six", "--extra-index-url https://host/simple", "tqdm>=4", "torch", "torchvision"),
        ("numpy<3",),
        "conda_packages, deps/requirements.txt, pip_packages, framework_version",
    )


def test_a_list_may_be_the_lines_of_a_file(tmp_path: Path) -> None:
    lines = tuple("# training\nsix # why\n\nscipy<2\n-r more.txt\n".splitlines(keepends=True))
    (tmp_path / "more.txt").write_text("tqdm\n")
    assert described(tmp_path, pip=lines).requirements == ("six", "scipy<2", "tqdm")


def test_the_same_said_twice_is_no_conflict(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("six==1.16.0\nsix==1.16\n-r again.txt\n")
    (tmp_path / "again.txt").write_text("six==1.16.0\n")
    found = described(tmp_path, pip=("six==1.16.0",), requirements_file=Path("requirements.txt"))
    assert found.requirements == ("six==1.16.0", "six==1.16")


@pytest.mark.parametrize("way", ["relative", "dotted", "absolute", "link"])
def test_ways_to_name_a_file(tmp_path: Path, way: str) -> None:
    root = tmp_path / "source"
    (root / "sub").mkdir(parents=True)
    (root / "r.txt").write_text("six\n")
    (tmp_path / "outside.txt").write_text("six\n")
    (root / "link.txt").symlink_to(tmp_path / "outside.txt")
    file = {"relative": "r.txt", "dotted": "sub/../r.txt", "absolute": str(root / "r.txt"), "link": "link.txt"}[way]
    assert described(root, requirements_file=Path(file)).requirements == ("six",)


@pytest.mark.parametrize("part", ["requirements_file", "conda_file"])
@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("../r.txt", OUTSIDE),
        ("/etc/hosts", OUTSIDE),
        ("no.txt", "no file 'no.txt'"),
        ("sub", "no file"),
        ("a\0", "no path"),
    ],
)
def test_file_that_is_not_in_the_source_directory(tmp_path: Path, part: str, file: str, words: str) -> None:
    root = tmp_path / "source"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "r.txt").write_text("six\n")
    said = refusal(root, **{part: Path(file)})
    assert words in said
    assert getattr(NAMES, part) in said


def test_mistake_in_a_list_names_the_list(tmp_path: Path) -> None:
    assert refusal(tmp_path, pip=("six", "a b")).startswith("pip_packages: 'a b' is not a requirement")
    secret = refusal(tmp_path, pip=("--index-url https://user:hunter2@host/simple",))
    assert secret.startswith("pip_packages: the URL of host holds a password")
    assert "hunter2" not in secret


def test_the_request_is_a_value() -> None:
    assert hash(PackageRequest(pip=("six",))) == hash(PackageRequest(pip=("six",)))


# --- conda


def test_conda_file(tmp_path: Path) -> None:
    (tmp_path / "env").mkdir()
    (tmp_path / "env/conda.yaml").write_text(
        "name: x\nchannels: [conda-forge]\ndependencies: [python=3.11, scikit-learn=1.4, {pip: [six, -r more.txt]}]\n"
    )
    (tmp_path / "env/more.txt").write_text("tqdm\n")
    found = described(tmp_path, conda_file=Path("env/conda.yaml"))
    assert found == EnvironmentSpec("uv", "==3.11.*", ("scikit-learn==1.4.*", "six", "tqdm"), (), "env/conda.yaml")


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ({"pip": ("six",)}, "pip_packages"),
        ({"conda": ("numpy",)}, "conda_packages"),
        ({"requirements_file": Path("r.txt")}, "pip_requirements_file"),
        ({"framework": ("torch==2.13.*",)}, "framework_version"),
        ({"pip": ("six",), "conda": ("numpy",)}, "pip_packages and conda_packages"),
    ],
)
def test_conda_file_stands_alone(tmp_path: Path, parts: dict[str, Any], named: str) -> None:
    (tmp_path / "conda.yaml").write_text("dependencies: [python]\n")
    assert f"conda_file 'conda.yaml' describes the whole environment: leave out {named}," in refusal(
        tmp_path, conda_file=Path("conda.yaml"), **parts
    )


@pytest.mark.parametrize(
    ("item", "line"),
    [
        ("scikit-learn", "scikit-learn"),
        ("scikit-learn=1.4", "scikit-learn==1.4.*"),
        ("numpy==1.26", "numpy==1.26"),
        ("numpy=1.26.4=py311h64a7726_0", "numpy==1.26.4"),
        ("pandas >= 2", "pandas>=2"),
        ("conda-forge::Pillow", "pillow"),
        ("defaults::pyyaml=6", "pyyaml==6.*"),
    ],
)
def test_conda_packages_that_pypi_has(tmp_path: Path, warnings: pytest.LogCaptureFixture, item: str, line: str) -> None:
    assert described(tmp_path, conda=(item, "tqdm")).requirements == (line, "tqdm")
    described(tmp_path, conda=(item, "tqdm"))
    said = "conda_packages: taken from PyPI, which has them as well as conda: "
    assert warnings.messages == [f"{said}{line}, tqdm"]


def test_conda_packages_that_only_conda_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAMBA_EXE", "CONDA_EXE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "rattler", None)  # as if it were not installed
    said = refusal(tmp_path, conda=("numpy", "pytorch=1.13", "cudatoolkit", "pytorch::numpy", "opencv", "numpy[x=1]"))
    assert "only conda has cudatoolkit, pytorch::numpy, opencv, numpy[x=1], and" in said
    assert "leave out cudatoolkit: PyPI's torch brings" in said
    (tmp_path / "micromamba").touch(0o755)
    found = described(
        tmp_path,
        conda=("numpy", "opencv"),
        channels=("conda-forge", "mine"),
        pip=("six",),
        framework=framework_requirements("1.13"),
    )
    assert found == EnvironmentSpec(
        "conda",
        "<3.11",
        ("six", "torch==1.13.*", "torchvision==0.14.*", "numpy<2"),
        (),
        "conda_packages, pip_packages, framework_version",
        conda=("python >=3.10,<3.11", "pip", "numpy", "opencv"),
        channels=("conda-forge", "mine"),
    )


def test_other_names_are_said(tmp_path: Path, warnings: pytest.LogCaptureFixture) -> None:
    assert described(tmp_path, conda=("pytorch=2.1", "numpy")).requirements == ("torch==2.1.*", "numpy")
    said = "conda_packages: taken from PyPI, which has them as well as conda: "
    assert warnings.messages == [f"{said}torch==2.1.* (conda's pytorch), numpy"]


def test_horovod_from_several_parts(tmp_path: Path) -> None:
    found = described(tmp_path, conda=("horovod",), pip=("horovod[pytorch]", "six"))
    assert (found.requirements, found.horovod) == (("six",), True)
    assert "conda_packages: horovod==0.19.* cannot be had" in refusal(tmp_path, conda=("horovod=0.19",))


def test_variables_of_a_conda_file(tmp_path: Path) -> None:
    (tmp_path / "conda.yaml").write_text("dependencies: [python]\nvariables: {A: '1'}\n")
    assert described(tmp_path, conda_file=Path("conda.yaml")).variables == (("A", "1"),)


# --- contradictions


@pytest.mark.parametrize(
    "lines",
    [
        ("six==1.16.0", "six==1.15.0"),
        ("Six==1.16", "six>=1.17"),
        ("six<1", "SIX==1.16"),
        ("six==1.16", "six==1.15.*"),
    ],
)
def test_contradiction_names_both_sources(tmp_path: Path, lines: tuple[str, str]) -> None:
    (tmp_path / "requirements.txt").write_text(f"{lines[0]}\n")
    said = refusal(tmp_path, pip=(lines[1],), requirements_file=Path("requirements.txt"))
    assert said == f"{lines[0]} (requirements.txt) contradicts {lines[1]} (pip_packages): change one of them"


@pytest.mark.parametrize(
    "lines",
    [
        ("six==1.16.0", "six==1.16"),
        ("six==1.16", "six>=1.15,<2"),
        ("torch==2.1+cu121", "torch==2.1"),
        ("torch==2.1", "torch==2.1+cu121"),
        ("six<1", "six>2"),
        ("six==1; python_version<'3.11'", "six==2; python_version>='3.11'"),
        ("six==2.0rc1", "six>=1"),
        ("six @ https://host/six-1.whl", "six==2"),
        ("./six", "six==2"),
    ],
)
def test_what_the_resolver_decides(lines: tuple[str, str]) -> None:
    for pair in (lines, lines[::-1]):
        refuse_contradictions((line, "list") for line in pair)
    assert lines[0] != lines[1]


def test_constraints_contradict_too(tmp_path: Path) -> None:
    (tmp_path / "limits.txt").write_text("six<1.10\n")
    assert "contradicts six<1.10" in refusal(tmp_path, pip=("six==1.16", "-c limits.txt"))


def test_pythons_that_exclude_each_other(tmp_path: Path) -> None:
    said = refusal(tmp_path, conda=("python=3.11",), python="3.12")
    assert said.startswith("Python ==3.11.* (conda_packages) and Python ==3.12.* (the Python version) exclude each")
    assert described(tmp_path, conda=("python=3.11",), python=">=3.10").python == "==3.11.*,>=3.10"
    assert described(tmp_path, conda=("python=3.11",), python="3.11").python == "==3.11.*"
    assert "need Python 3.10 or newer" in refusal(tmp_path, conda=("python=3.6.2",))
    assert "'latest' is not a Python version" in refusal(tmp_path, python="latest")


# --- the framework


@pytest.mark.parametrize(
    ("version", "lines"),
    [
        (None, ("torch", "torchvision")),
        ("2.15", ("torch==2.15.*", "torchvision==0.29.*")),
        ("2.14", ("torch==2.14.*", "torchvision==0.29.*")),
        ("2.13", ("torch==2.13.*", "torchvision==0.28.*")),
        ("2.13.1", ("torch==2.13.1", "torchvision==0.28.*")),
        ("2.3", ("torch==2.3.*", "torchvision==0.18.*")),
        ("2.2", ("torch==2.2.*", "torchvision==0.17.*", "numpy<2")),
        ("1.11.0", ("torch==1.11.0", "torchvision==0.12.*", "numpy<2")),
        ("2.99", ("torch==2.99.*", "torchvision")),
        ("3.0", ("torch==3.0.*", "torchvision")),
    ],
)
def test_framework_version(version: str | None, lines: tuple[str, ...]) -> None:
    assert framework_requirements(version) == lines


@pytest.mark.parametrize("version", ["latest", "2.x", "", "2", "2.13 ", "2.13rc1", ">=2", 2.1])
def test_not_a_framework_version(version: Any) -> None:
    with pytest.raises(EnvironmentSpecError, match=r"is not a version of PyTorch.*leave it out") as caught:
        framework_requirements(version)
    assert repr(version) in str(caught.value)


@pytest.mark.parametrize("version", ["1.0", "1.4", "1.6", "1.10.2", "0.4.1"])
def test_framework_version_that_no_python_of_jobs_can_have(version: str) -> None:
    with pytest.raises(EnvironmentSpecError, match=rf"PyTorch {version} has no build .* the oldest that has is 1\.11 "):
        framework_requirements(version)


@pytest.mark.parametrize("version", ["1.14", "1.14.0", "1.99"])
def test_framework_version_that_was_never_released(version: str) -> None:
    with pytest.raises(EnvironmentSpecError, match=rf"there is no PyTorch {version} \(known: 1\.11, .*, 1\.13, 2\.0, "):
        framework_requirements(version)


@pytest.mark.parametrize(
    ("requirements", "said"),
    [
        (("six", "torch==2.13.9"), "known versions of PyTorch 2.13: 2.13.0; others: 1.11, "),
        (("torch==2.12.7", "torchvision==0.27.*"), "known versions of PyTorch 2.12: 2.12.0, 2.12.1; others: 1.11, "),
        (("torch==2.99.*",), "known versions of PyTorch: 1.11, "),
        (("torch==2.13.0",), None),
        (("torch==2.13.*", "six==99"), None),
        (("torch>=2.99", "torchmetrics==2.99.1"), None),
    ],
)
def test_explanation_of_a_framework_that_cannot_be_found(requirements: tuple[str, ...], said: str | None) -> None:
    found = explain_framework(requirements)
    assert found == said if said is None else (found or "").startswith(said)
    assert said is None or (found or "").endswith("2.14, 2.15")


def test_supported_versions() -> None:
    versions = supported_versions()
    assert (versions[0], versions[-1]) == ("1.11", "2.15")
    assert [tuple(map(int, version.split("."))) for version in versions] == sorted(
        tuple(map(int, version.split("."))) for version in versions
    )
    for version in versions:
        assert framework_requirements(version)[0] == f"torch=={version}.*"


@pytest.mark.parametrize(
    ("version", "python"),
    [("1.13.1", "<3.11"), ("2.1", "<3.12"), ("2.5", "<3.13"), ("2.8", "<3.14"), ("2.9", None), ("2.15", ">=3.11")],
)
def test_framework_brings_a_python_that_it_has_builds_for(tmp_path: Path, version: str, python: str | None) -> None:
    assert described(tmp_path, framework=framework_requirements(version)).python == python
    assert framework_python(framework_requirements(None)) is None


def test_framework_and_python_that_exclude_each_other(tmp_path: Path) -> None:
    said = refusal(tmp_path, conda=("python=3.11",), framework=framework_requirements("1.13"))
    assert "Python ==3.11.* (conda_packages) and Python <3.11 (framework_version, torch==1.13.*)" in said


@pytest.mark.parametrize(
    ("pip", "version", "lines"),
    [
        (("torch==2.1",), None, ("torch==2.1", "torchvision")),
        (("Torch>=2", "torchvision @ https://host/tv.whl"), None, ("Torch>=2", "torchvision @ https://host/tv.whl")),
        (("torch>=2",), "2.13", ("torch>=2", "torch==2.13.*", "torchvision==0.28.*")),
        (("torch==2.13.1",), "2.13", ("torch==2.13.1", "torch==2.13.*", "torchvision==0.28.*")),
        (("torchvision>=0.1",), "2.13", ("torchvision>=0.1", "torch==2.13.*", "torchvision==0.28.*")),
        (("torchvision @ https://h/t.whl",), "2.13", ("torchvision @ https://h/t.whl", "torch==2.13.*")),
        (("git+https://h/torchvision",), "2.13", ("git+https://h/torchvision", "torch==2.13.*")),
        (("torch; python_version<'3'",), None, ('torch; python_version < "3"', "torch", "torchvision")),
    ],
)
def test_a_bare_framework_gives_way_and_a_version_does_not(
    tmp_path: Path, pip: tuple[str, ...], version: str | None, lines: tuple[str, ...]
) -> None:
    assert described(tmp_path, pip=pip, framework=framework_requirements(version)).requirements == lines


def test_framework_version_against_the_users_pin(tmp_path: Path) -> None:
    said = refusal(tmp_path, pip=("torch==2.1",), framework=framework_requirements("2.13"))
    assert said.startswith("torch==2.1 (pip_packages) contradicts torch==2.13.* (framework_version)")


# --- what the service used to inject


def test_the_old_sdk_is_left_out_with_one_warning(tmp_path: Path, warnings: pytest.LogCaptureFixture) -> None:
    old = ("azureml-defaults", "azureml_sdk[notebooks]==1.10", "azureml-core>=1", "azureml-mlflow")
    (tmp_path / "requirements.txt").write_text("azureml-defaults\n")
    for _ in range(2):
        found = described(tmp_path, pip=(*old, "six", "azureml-dataprep"), requirements_file=Path("requirements.txt"))
    assert found.requirements == ("six", "azureml-dataprep")
    assert len(warnings.messages) == 5
    assert warnings.messages[0].startswith("requirements.txt: azureml-defaults is left out: that SDK is out of support")


# --- requirements files as lists


def test_standalone_lines(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "r.txt").write_text("six\n./pkg[x]\n-f pkg\n-r more.txt\n")
    (tmp_path / "more.txt").write_text("tqdm\n")
    folder = tmp_path.resolve() / "pkg"
    assert standalone_lines(tmp_path / "r.txt") == ("six", f"{folder}[x]", f"--find-links {folder}", "tqdm")
    (tmp_path / "more.txt").write_text("-c limits.txt\n")
    (tmp_path / "limits.txt").write_text("numpy<3\n")
    with pytest.raises(EnvironmentSpecError, match=r"constraints .* write numpy<3 as a requirement"):
        standalone_lines(tmp_path / "r.txt")


# --- whatever is accepted

_PACKAGE = st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True)
_SPECIFIER = st.sampled_from(["", "==1.0", "==2.0", ">=1", "<3", "~=1.2", "!=1.5", "==1.*"])


@given(st.lists(st.tuples(_PACKAGE, _SPECIFIER), max_size=6), st.sampled_from([None, "2.13", "2.2"]))
def test_fuzzed_lists_keep_all_that_was_said(items: list[tuple[str, str]], version: str | None) -> None:
    pip = tuple(name + specifier for name, specifier in items)
    try:
        found = described(Path("/"), pip=pip, framework=framework_requirements(version))
    except EnvironmentSpecError as error:
        assert "contradicts" in str(error)  # noqa: PT017 - the only reason that such lists can give
        return
    said = {Requirement(line) for line in (*pip, *framework_requirements(version))}
    kept = {Requirement(line) for line in found.requirements}
    named = {Requirement(line).name for line in pip}
    assert kept <= said
    assert {item for item in said - kept if item.specifier or item.name not in named} == set()
    assert EnvironmentSpec.from_json(json.loads(json.dumps(found.to_json()))) == found


@given(st.text(max_size=40))
def test_fuzzed_lines_are_kept_or_refused_by_our_own_error(line: str) -> None:
    for parts in ({"pip": (line,)}, {"conda": (line,)}, {"python": line}):
        try:
            found = described(Path("/nowhere"), **parts)
        except EnvironmentSpecError:
            continue
        assert isinstance(found, EnvironmentSpec)


# --- the real thing


def test_what_is_described_can_be_built(tmp_path: Path) -> None:
    root = tmp_path / "source"
    root.mkdir()
    (root / "requirements.txt").write_text("six>=1.15\n")
    asked = described(root, pip=("six==1.16.0", "azureml-defaults"), requirements_file=Path("requirements.txt"))
    log = io.StringIO()
    ready = prepare(
        asked, root, tmp_path / "cache", log=log, cancelled=lambda: False, say=lambda _: None, base=("packaging",)
    )
    code = "import six; print(six.__version__)"
    assert subprocess.run([ready.python, "-c", code], capture_output=True, text=True, check=True).stdout == "1.16.0\n"
    assert "azureml" not in ready.freeze
