"""Fetch a zip of images from a URL or a path, check it, and unpack it where nothing can escape."""

from __future__ import annotations

import hashlib
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import unquote, urlsplit

import requests

from birds import InputError
from birds.cache import cached_folder

CONNECT_AND_READ_SECONDS = (10, 60)
CHUNK = 1 << 20


def fetch_images(url: str) -> Path:
    """Return the unpacked folder of the zip at ``url``; ``#sha256=<hex>`` at its end is verified.

    The folder is cached under a hash of the URL (of a local file: of its path, size and time too).
    """
    location, _, fragment = url.partition("#")
    expected = _expected_hash(fragment)
    identity = url
    local = _local_path(location)
    if local is not None:
        if not local.is_file():
            raise InputError(f"data_url: there is no file {local}")
        info = local.stat()
        identity = f"{local.resolve()}#{expected}:{info.st_size}:{info.st_mtime_ns}"

    def build(folder: Path) -> None:
        with tempfile.TemporaryFile(dir=folder.parent) as archive:
            if local is None:
                _download(location, archive)
            else:
                with local.open("rb") as source:
                    shutil.copyfileobj(source, archive, CHUNK)
            _verify(archive, expected, shown(location))
            _unpack(archive, folder, shown(location))

    return cached_folder("zip-" + hashlib.sha256(identity.encode()).hexdigest()[:16], build)


def shown(url: str) -> str:
    """Return the URL without its query, user and password, which may hold a signature or a secret."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"}:
        return url
    return parts._replace(query="", fragment="", netloc=parts.netloc.rpartition("@")[2]).geturl()


def _local_path(location: str) -> Path | None:
    parts = urlsplit(location)
    if parts.scheme in {"http", "https"}:
        return None
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if "://" in location:
        raise InputError(f"data_url: {parts.scheme}:// is not supported: use http(s)://, file:// or a path")
    return Path(location).expanduser()


def _expected_hash(fragment: str) -> str:
    if not fragment:
        return ""
    kind, _, value = fragment.partition("=")
    if kind != "sha256" or len(value) != 64 or set(value.lower()) - set("0123456789abcdef"):
        raise InputError(f"data_url: #{fragment} is not understood: write #sha256=<64 hexadecimal digits>")
    return value.lower()


def _download(url: str, target: IO[bytes]) -> None:
    try:
        with requests.get(url, stream=True, timeout=CONNECT_AND_READ_SECONDS) as answer:
            if not answer.ok:
                raise InputError(f"data_url: {shown(url)} answered HTTP {answer.status_code}: check the URL")
            for chunk in answer.iter_content(CHUNK):
                target.write(chunk)
    except requests.RequestException as error:
        # The error's own text holds the whole URL, signature included.
        raise InputError(
            f"data_url: {shown(url)} cannot be fetched ({type(error).__name__}): check URL and network"
        ) from None


def _verify(archive: IO[bytes], expected: str, name: str) -> None:
    archive.seek(0)
    if expected:
        found = _digest(archive)
        if found != expected:
            raise InputError(f"data_url: {name} has sha256 {found}, not {expected}: a wrong or changed file")
    if not zipfile.is_zipfile(archive):
        raise InputError(f"data_url: {name} is not a zip file")


def _digest(archive: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := archive.read(CHUNK):
        digest.update(chunk)
    archive.seek(0)
    return digest.hexdigest()


def _unpack(archive: IO[bytes], folder: Path, name: str) -> None:
    try:
        with zipfile.ZipFile(archive) as bundle:
            members = bundle.infolist()
            for member in members:
                _refuse_escape(member, name)
            # zipfile never writes more than the declared size, so this bounds a zip bomb too.
            needed, free = sum(member.file_size for member in members), shutil.disk_usage(folder).free
            if needed > free:
                raise InputError(f"data_url: {name} needs {needed >> 20} MiB, {folder.parent} has {free >> 20}")
            bundle.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        # What zipfile raises: broken, cut short, an unknown method, a password.
        raise InputError(f"data_url: {name} is broken or encrypted ({error}): make the zip again") from error


def _refuse_escape(member: zipfile.ZipInfo, name: str) -> None:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    kind = stat.S_IFMT(member.external_attr >> 16)
    leaves = path.is_absolute() or ".." in path.parts
    if leaves or kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise InputError(f"data_url: {name} holds {member.filename!r}, which would leave its folder: refused")
