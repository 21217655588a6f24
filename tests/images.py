"""A small image and a registry for tests with a real podman; its fixtures are in conftest."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

_IMAGE = f"localhost/gpu-cluster-tests:{uuid.uuid4().hex}"
_PROGRAMS = ("bash", "cat", "env", "id", "ls", "sleep", "stat", "true")
# For machines where a container may not raise limits, or where crun does not know the control groups.
_CAREFUL = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
"""


def podman(*words: str) -> str:
    done = subprocess.run(["podman", *words], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def containers_of(run_id: str) -> list[str]:
    return [name for name in podman("ps", "--all", "--format", "{{.Names}}").split() if run_id in name]


def _small_root(tar: Path) -> None:
    """Some programs of this machine with their libraries, and a `python` that is this one where it is mounted."""
    files = {f"bin/{name}": Path(found) for name in _PROGRAMS if (found := shutil.which(name))}
    for program in list(files.values()):
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        files |= {word.lstrip("/"): Path(word) for word in listed.split() if word.startswith("/")}
    shim = tar.with_name("python")
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n', encoding="utf-8")
    shim.chmod(0o755)
    files |= {"bin/sh": files["bin/bash"], "bin/python": shim}
    with tarfile.open(tar, "w", dereference=True) as archive:
        for folder in ("tmp", "proc", "sys", "dev", "etc", "usr"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            archive.addfile(entry)
        for name, path in files.items():
            archive.add(path, name)


def _works(settings: Path | None) -> str:
    """What podman complains of when it runs the image with these settings; empty when nothing."""
    environ = {**os.environ, **({"CONTAINERS_CONF": str(settings)} if settings else {})}
    argv = ["podman", "run", "--rm", "--network=host", "--pull=never", _IMAGE, "true"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120, env=environ)
    return "" if done.returncode == 0 else done.stderr.strip() or "podman does not run"


@pytest.fixture(scope="session")
def small_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the image, as a tar file."""
    folder = tmp_path_factory.mktemp("image")
    _small_root(folder / "root.tar")
    return folder / "root.tar"


@pytest.fixture(scope="session")
def podman_settings(tmp_path_factory: pytest.TempPathFactory, small_root: Path) -> Iterator[Path | None]:
    """Builds the image; the settings that podman needs on this machine."""
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed: make test-system, or apt-get install podman")
    podman("import", "--quiet", str(small_root), _IMAGE)
    careful = tmp_path_factory.mktemp("settings") / "containers.conf"
    careful.write_text(_CAREFUL, encoding="utf-8")
    problem = _works(None)
    if problem and (again := _works(careful)):
        pytest.skip(f"podman runs no container here: {problem}; with careful settings: {again}")
    yield careful if problem else None
    podman("rmi", "--force", _IMAGE)


@pytest.fixture
def image(podman_settings: Path | None, monkeypatch: pytest.MonkeyPatch) -> str:
    if podman_settings is not None:
        monkeypatch.setenv("CONTAINERS_CONF", str(podman_settings))
    return _IMAGE


@dataclass
class Registry:
    """A registry on this machine with one image, of which this machine has nothing yet."""

    image: str
    image_id: str
    requests: list[str] = field(default_factory=list)
    """Paths, as they were asked for."""
    released: threading.Event = field(default_factory=threading.Event)
    """Layers are not sent before it is set."""


@pytest.fixture
def registry(image: str, small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    layout = tmp_path / "layout"
    image_id = _save_new_image(small_root, layout)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Images) as server:
        address = f"127.0.0.1:{server.server_address[1]}"
        made = Registry(f"{address}/small:1", image_id)
        made.released.set()
        server.layout, server.registry = layout, made  # type: ignore[attr-defined]  # for the handlers
        settings = tmp_path / "registries.conf"
        settings.write_text(f'[[registry]]\nlocation = "{address}"\ninsecure = true\n', encoding="utf-8")
        monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(settings))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield made
        finally:
            made.released.set()
            server.shutdown()
            thread.join()
            subprocess.run(["podman", "rmi", "--force", made.image], capture_output=True, check=False, timeout=120)


def _save_new_image(root: Path, layout: Path) -> str:
    """An image with a layer that nobody has seen, as an OCI layout; its id. podman forgets it again."""
    name = f"localhost/gpu-cluster-tests:{uuid.uuid4().hex}"
    tar = layout.with_suffix(".tar")
    shutil.copyfile(root, tar)
    with tarfile.open(tar, "a") as archive:
        archive.addfile(tarfile.TarInfo(uuid.uuid4().hex))
    podman("import", "--quiet", str(tar), name)
    image_id = podman("image", "inspect", "--format", "{{.Id}}", name)
    podman("save", "--quiet", "--format", "oci-dir", "--output", str(layout), name)
    podman("rmi", name)
    return image_id


class _Images(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        registry, layout = self.server.registry, self.server.layout  # type: ignore[attr-defined]
        registry.requests.append(self.path)
        manifest = json.loads((layout / "index.json").read_text(encoding="utf-8"))["manifests"][0]
        kind, content = "application/octet-stream", b"{}"
        if "/manifests/" in self.path:
            kind, content = manifest["mediaType"], self._blob(layout, manifest["digest"])
        elif "/blobs/" in self.path:
            registry.released.wait(60)
            content = self._blob(layout, self.path.rpartition("/")[2])
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815 - the library's name

    @staticmethod
    def _blob(layout: Path, digest: str) -> bytes:
        return (layout / "blobs" / digest.replace(":", "/")).read_bytes()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        return
