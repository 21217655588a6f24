"""A conda channel of hand-made packages on loopback, whose Python is the one that runs the tests."""

from __future__ import annotations

import bz2
import hashlib
import http.server
import io
import json
import os
import platform
import sys
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

HERE = {"x86_64": "linux-64", "aarch64": "linux-aarch64"}.get(platform.machine(), "linux-64")
PLACEHOLDER = "/a_prefix_that_is_replaced_placeholder"
SITE = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
_EPOCH = 1_700_000_000
_NOARCH_PYTHON = '{"noarch": {"type": "python", "entry_points": []}, "package_metadata_version": 1}'
_PROGRAMS = ("mamba", "micromamba", "conda")


class Channel:
    """A folder of packages and its index, served; ``held`` answers wait for as long as it is set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.asked: list[str] = []
        """The paths that were asked for."""
        self.held = ""
        """Answers to paths that hold this text wait."""
        self._changes = 0
        for subdir in (HERE, "noarch"):
            (folder / subdir).mkdir(parents=True)
            self._index(subdir, {})

    def add(
        self,
        name: str,
        version: str = "1.0",
        depends: Sequence[str] = (),
        files: Mapping[str, str | Path] | None = None,
        *,
        noarch: str | None = None,
    ) -> str:
        """Add a package of texts and links; returns its address."""
        subdir, files = "noarch" if noarch else HERE, files or {}
        index: dict[str, object] = {"name": name, "version": version, "build": "0", "build_number": 0}
        index |= {"subdir": subdir, "depends": [*depends]} | ({"noarch": noarch} if noarch else {})
        data = _archive({**files, **_info(index, files)})
        sums = {"md5": hashlib.md5(data).hexdigest(), "sha256": hashlib.sha256(data).hexdigest()}  # noqa: S324 - conda's
        file = f"{name}-{version}-0.tar.bz2"
        (self.folder / subdir / file).write_bytes(data)
        self._index(subdir, {file: {**index, **sums, "size": len(data)}})
        return f"{self.url}/{subdir}/{file}"

    def python(self) -> None:
        """Add an old Python, which cannot run, and this one: a link with its own ``site-packages``, as in a venv."""
        base = Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
        self.add("python", "3.9.1", (), {"bin/python": "#!/bin/sh\nexit 9\n"})
        home = f"home = {base.parent}\ninclude-system-site-packages = false\nversion = {platform.python_version()}\n"
        files: dict[str, str | Path] = {"bin/python": base, "pyvenv.cfg": home, f"{SITE}/README.txt": "packages\n"}
        self.add("python", platform.python_version(), (), files)

    def module(self, name: str, version: str = "1.0", depends: Sequence[str] = ("python",)) -> None:
        """Add a package of pure Python with one module, as conda-build makes it from what pip has installed."""
        info = f"{name}-{version}.dist-info"
        files: dict[str, str | Path] = {
            f"{name}.py": f"VERSION = {version!r}\nWHENCE = 'conda'\n",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            f"{info}/INSTALLER": "conda\n",
            f"{info}/direct_url.json": '{"dir_info": {}, "url": "file:///home/conda/feedstock_root/work"}',
        }
        # The hashes are those of before conda-build, which nobody has told the list.
        files[f"{info}/RECORD"] = "".join(f"{path},sha256=x,999\n" for path in files) + f"{info}/RECORD,,\n"
        files = {f"site-packages/{path}": content for path, content in files.items()}
        self.add(name, version, depends, files, noarch="python")

    def _index(self, subdir: str, packages: Mapping[str, object]) -> None:
        file = self.folder / subdir / "repodata.json"
        known = json.loads(file.read_bytes())["packages"] if file.exists() else {}
        content = {"info": {"subdir": subdir}, "packages": {**known, **packages}, "packages.conda": {}}
        file.write_text(json.dumps(content))
        # A server tells whole seconds, and a client believes it.
        self._changes += 1
        os.utime(file, (_EPOCH + self._changes, _EPOCH + self._changes))


@contextmanager
def serving(folder: Path) -> Iterator[Channel]:
    """A new channel, for as long as it is served."""
    channel = Channel(folder)
    released = threading.Event()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            channel.asked.append(self.path)
            while channel.held and channel.held in self.path and not released.wait(0.05):
                pass
            super().do_GET()

        def log_message(self, *_: object) -> None:
            return

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            return  # a client that was killed

    with Server(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        channel.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield channel
        finally:
            released.set()
            server.shutdown()
            thread.join()


def without_programs(path: str) -> str:
    """A ``PATH`` on which no conda is: what is left is py-rattler."""
    return os.pathsep.join(
        p for p in path.split(os.pathsep) if not any((Path(p) / name).exists() for name in _PROGRAMS)
    )


def private_caches(folder: Path) -> dict[str, str]:
    """Variables for caches of a test's own: another test's channel has packages of the same names."""
    return {
        "NO_PROXY": "127.0.0.1",
        "CONDA_PKGS_DIRS": str(folder / "pkgs"),
        "MAMBA_ROOT_PREFIX": str(folder / "mamba"),
        "RATTLER_CACHE_DIR": str(folder / "rattler"),
    }


def _info(index: Mapping[str, object], files: Mapping[str, str | Path]) -> dict[str, str]:
    paths = [_path(name, content) for name, content in files.items()]
    return {
        "info/index.json": json.dumps(index),
        "info/paths.json": json.dumps({"paths": paths, "paths_version": 1}),
        "info/files": "".join(f"{name}\n" for name in files),
        **({"info/link.json": _NOARCH_PYTHON} if index.get("noarch") == "python" else {}),
    }


def _path(name: str, content: str | Path) -> dict[str, object]:
    if isinstance(content, Path):
        return {"_path": name, "path_type": "softlink", "sha256": hashlib.sha256(b"").hexdigest(), "size_in_bytes": 0}
    raw = content.encode()
    item = {"_path": name, "path_type": "hardlink", "sha256": hashlib.sha256(raw).hexdigest()}
    rewritten = {"prefix_placeholder": PLACEHOLDER, "file_mode": "text"} if PLACEHOLDER in content else {}
    return {**item, "size_in_bytes": len(raw), **rewritten}


def _archive(contents: Mapping[str, str | Path]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as writer:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, Path):
                entry.type, entry.linkname = tarfile.SYMTYPE, str(content)
                writer.addfile(entry)
            else:
                entry.size, entry.mode = len(content.encode()), 0o755 if name.startswith("bin/") else 0o644
                writer.addfile(entry, io.BytesIO(content.encode()))
    return bz2.compress(archive.getvalue())
