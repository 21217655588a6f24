"""Create a conda prefix with py-rattler: a program of its own, for where no conda is installed.

It is run by file and not as a module of the package, so that it starts with nothing but py-rattler in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rattler
from rattler import exceptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# What conda calls so is called otherwise where all channels are; py-rattler would look for channels of these names.
_OTHERWISE = {"defaults": ("main", "r"), "pkgs/main": ("main",), "pkgs/r": ("r",)}
_REFUSALS = (
    exceptions.CacheDirError,
    exceptions.DetectVirtualPackageError,
    exceptions.FetchRepoDataError,
    exceptions.GatewayError,
    exceptions.InstallerError,
    exceptions.InvalidChannelError,
    exceptions.InvalidMatchSpecError,
    exceptions.InvalidUrlError,
    exceptions.IoError,
    exceptions.SolverError,
    exceptions.TransactionError,
    OSError,
)


async def solved(specs: Iterable[str], channels: Iterable[str]) -> list[rattler.RepoDataRecord]:
    """Return the packages that fulfil the match specifications on this machine."""
    cache = os.environ.get("RATTLER_CACHE_DIR")
    overrides = rattler.VirtualPackageOverrides.from_env()
    any_channel = os.environ.get("CONDA_CHANNEL_PRIORITY") == "disabled"
    return await rattler.solve(
        [*map(_channel, known_names(channels))],
        [rattler.MatchSpec(spec) for spec in specs],
        gateway=rattler.Gateway(Path(cache, "repodata") if cache else None, client=rattler.Client.default_client()),
        virtual_packages=rattler.VirtualPackage.detect(overrides),
        channel_priority=rattler.ChannelPriority.Disabled if any_channel else rattler.ChannelPriority.Strict,
    )


def known(packages: Iterable[dict[str, Any]]) -> list[rattler.RepoDataRecord]:
    """Return the packages of a lock, as if an index of their channel had been read."""
    indexes: dict[tuple[str, str], dict[str, Any]] = defaultdict(lambda: {"packages": {}, "packages.conda": {}})
    for package in packages:
        folder, _, file = package["url"].rpartition("/")
        channel, _, subdir = folder.rpartition("/")
        name, version, build = file.removesuffix(".conda").removesuffix(".tar.bz2").rsplit("-", 2)
        told = {"name": name, "version": version, "build": build, "build_number": 0, "subdir": subdir, "depends": []}
        kind = "packages.conda" if file.endswith(".conda") else "packages"
        indexes[channel, subdir][kind][file] = told | package["facts"]
    found: list[rattler.RepoDataRecord] = []
    for (channel, subdir), index in indexes.items():
        with os.fdopen(os.memfd_create("repodata"), "w", encoding="utf-8") as file:
            json.dump({"info": {"subdir": subdir}, **index}, file)
            file.flush()
            read = rattler.RepoData.from_path(f"/proc/self/fd/{file.fileno()}")
        found += read.into_repo_data(_channel(channel))
    return found


async def _create(arguments: argparse.Namespace) -> None:
    if arguments.lock:
        records = known(json.loads(Path(arguments.lock).read_bytes()))
    else:
        records = await solved(arguments.specs, arguments.channel)
    print(f"installing {len(records)} packages", flush=True)
    # As conda does: packages that are not complete without their script would be broken otherwise.
    client = rattler.Client.default_client()
    await rattler.install(records, arguments.prefix, show_progress=False, execute_link_scripts=True, client=client)


def known_names(channels: Iterable[str]) -> list[str]:
    """Return channels under the names that py-rattler knows."""
    return [name for channel in channels for name in _OTHERWISE.get(channel, (channel,))]


def _channel(name: str) -> rattler.Channel:
    alias = os.environ.get("CONDA_CHANNEL_ALIAS")
    return rattler.Channel(name, rattler.ChannelConfig(f"{alias.rstrip('/')}/") if alias else None)


def main(argv: Sequence[str]) -> int:
    """``--prefix FOLDER (--lock FILE | --channel NAME... SPEC...)``; returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--lock")
    parser.add_argument("--channel", action="append", default=[])
    parser.add_argument("specs", nargs="*")
    try:
        asyncio.run(_create(parser.parse_args(argv)))
    except _REFUSALS as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # py-rattler's threads now and then crash an interpreter that takes itself apart around them
