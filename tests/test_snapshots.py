"""Source snapshots: what travels, where links lead, that contents are stored once, and that nothing half is trusted."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlflow_pytorch_estimator.errors import ProjectError
from mlflow_pytorch_estimator.snapshots import Snapshot, blobs, index, prune, restore, take
from mlflow_pytorch_estimator.snapshots.walk import walk

# the package's functions hide the modules of the same name
TAKE = sys.modules["mlflow_pytorch_estimator.snapshots.take"]
PRUNE = sys.modules["mlflow_pytorch_estimator.snapshots.prune"]
RESTORE = sys.modules["mlflow_pytorch_estimator.snapshots.restore"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "project"
    path.mkdir()
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "home" / "snapshots"


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust files at once; the clock of the file system ticks finer than these tests write."""
    monkeypatch.setattr(index, "SETTLED_NS", -(10**15))


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PRUNE, "GRACE_SECONDS", -1.0)


def fill(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}


def snapshot(folder: Path, store: Path, subdirectory: str = "") -> Path:
    """Take and restore; the working copy."""
    target = folder.parent / f"copy-{time.monotonic_ns()}"
    restore(store, take(folder, store, subdirectory).digest, target)
    return target


def stored(store: Path) -> int:
    """Bytes of contents in the store."""
    return sum(
        path.stat().st_size for kind in ("objects", "packs") for path in (store / kind).rglob("*") if path.is_file()
    )


def test_sources_travel_and_caches_do_not(folder: Path, store: Path) -> None:
    kept = ["train.py", "a/b/c.txt", ".env", "a/outputs/x", "a/mlruns/x", "conda.yaml", "täglich ☃", ".github/x"]
    left = [".git/HEAD", "a/.git/HEAD", "a/__pycache__/x.pyc", ".ipynb_checkpoints/x", ".mypy_cache/x", ".tox/x"]
    left += ["node_modules/x", "mlruns/0/x", "mlartifacts/x", "outputs/x", "mlflow.db", "mlflow.db-wal", ".hg/x"]
    left += [".gpu-cluster/jobs/x", ".pytest_cache/x", ".ruff_cache/x", ".svn/x", ".nox/x", "mlflow.db-shm"]
    fill(folder, *kept, *left)
    assert names(snapshot(folder, store)) == set(kept)


def test_old_results_stay_in_the_subdirectory_too(folder: Path, store: Path) -> None:
    fill(folder, "work/train.py", "work/outputs/x", "other/outputs/x", "outputs/x", "work/mlflow.db")
    assert names(snapshot(folder, store, "work")) == {"work/train.py", "other/outputs/x"}
    assert names(snapshot(folder, store)) == {"work/train.py", "work/outputs/x", "work/mlflow.db", "other/outputs/x"}


def test_contents_modes_times_and_empty_folders_travel(folder: Path, store: Path) -> None:
    data = bytes(range(256)) * 10_000
    (folder / "data").write_bytes(data)
    (folder / "empty.txt").touch()
    (folder / "run.sh").touch(0o755)
    (folder / "read-only").touch(0o400)
    (folder / "a/empty").mkdir(parents=True)
    os.utime(folder / "data", ns=(1_500_000_000_123_456_789,) * 2)
    target = snapshot(folder, store)
    assert (target / "data").read_bytes() == data
    assert (target / "data").stat().st_mtime_ns == 1_500_000_000_123_456_789
    assert (target / "empty.txt").read_bytes() == b""
    assert os.access(target / "run.sh", os.X_OK)
    assert stat.S_IMODE((target / "read-only").stat().st_mode) == 0o400
    assert (target / "a/empty").is_dir()
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    shutil.rmtree(target)
    assert not target.exists()


def test_any_file_name_travels(folder: Path, store: Path) -> None:
    odd = [b"not utf-8 \xff\xfe", b"two\nlines", b"tab\t", b" ", b"-rf", b"'\"$HOME`", b"\\", b"\x01", "ä☃".encode()]
    for name in odd:
        Path(os.fsdecode(bytes(folder) + b"/" + name)).write_bytes(name)
        Path(os.fsdecode(bytes(folder) + b"/d" + name)).mkdir()
        Path(os.fsdecode(bytes(folder) + b"/l" + name)).symlink_to(os.fsdecode(name))
    target = snapshot(folder, store)
    assert {path.name for path in target.iterdir()} == {path.name for path in folder.iterdir()}
    assert all(Path(os.fsdecode(bytes(target) + b"/" + name)).read_bytes() == name for name in odd)
    assert snapshot(folder, store).is_dir()


def test_what_a_job_writes_reaches_neither_project_nor_store(folder: Path, store: Path) -> None:
    fill(folder, "train.py")
    (folder / "large").write_bytes(bytes(10**6))
    first, second = snapshot(folder, store), snapshot(folder, store)
    for name in ("train.py", "large"):
        assert (first / name).stat().st_nlink == 1
        with (first / name).open("r+b") as handle:
            handle.write(b"scribbled")
        (folder / name).unlink()
    assert (second / "train.py").read_text() == "train.py"
    assert names(snapshot(folder, store)) == set()
    assert (second / "large").read_bytes() == bytes(10**6)


@pytest.mark.parametrize("name", ["venv", ".venv", "deep/env", "whatever"])
def test_virtual_environments_stay_by_any_name(folder: Path, store: Path, name: str) -> None:
    fill(folder, "train.py", f"{name}/pyvenv.cfg", f"{name}/lib/x.py")
    target = snapshot(folder, store)
    assert names(target) == {"train.py"}
    assert not (target / name).exists()


def test_a_folder_called_like_an_environment_travels(folder: Path, store: Path) -> None:
    fill(folder, "venv/notes.txt", "env/x.py")
    assert names(snapshot(folder, store)) == {"venv/notes.txt", "env/x.py"}


def test_sockets_pipes_and_devices_stay(folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder, "train.py")
    os.mkfifo(folder / "pipe")
    monkeypatch.chdir(folder)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        assert names(snapshot(folder, store)) == {"train.py"}


def test_links_inside_stay_links_inside(folder: Path, store: Path) -> None:
    fill(folder, "a/real", "b/other")
    (folder / "b/link").symlink_to("../a/real")
    (folder / "folder").symlink_to("a")
    (folder / "broken").symlink_to("missing")
    target = snapshot(folder, store)
    assert os.readlink(target / "b/link") == "../a/real"  # noqa: PTH115 - the text
    assert (target / "b/link").resolve() == target / "a/real"
    assert (target / "folder").resolve() == target / "a"
    assert os.readlink(target / "broken") == "missing"  # noqa: PTH115 - the text


def test_links_that_lead_out_go_on_leading_where_they_led(folder: Path, store: Path) -> None:
    fill(folder.parent, "data/x", "data/sub/y")
    fill(folder, "a/b/c")
    (folder / "up").symlink_to("../data")
    (folder / "a/b/up").symlink_to("../../../data/sub")
    (folder / "absolute").symlink_to(folder.parent / "data")
    (folder / "file").symlink_to("../data/x")
    target = snapshot(folder, store)
    assert (target / "up/x").read_text() == "data/x"
    assert (target / "a/b/up/y").read_text() == "data/sub/y"
    assert (target / "absolute/x").read_text() == "data/x"
    assert (target / "file").read_text() == "data/x"
    assert (target / "up").is_symlink()
    assert stored(store) < 100


def test_links_of_a_project_that_is_reached_through_a_link(tmp_path: Path, store: Path) -> None:
    fill(tmp_path, "real/data/x", "real/project/train.py")
    (tmp_path / "real/project/up").symlink_to("../data")
    (tmp_path / "shortcut").symlink_to("real/project")
    target = snapshot(tmp_path / "shortcut", store)
    assert not target.is_symlink()
    assert (target / "up/x").read_text() == "real/data/x"


def test_a_relative_project_path_is_fine(folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder.parent, "data/x")
    fill(folder, "train.py", "outputs/old")
    (folder / "up").symlink_to("../data")
    monkeypatch.chdir(folder)
    taken = take(Path(), store)
    monkeypatch.chdir("/")
    restore(store, taken.digest, folder.parent / "copy")
    assert (folder.parent / "copy/up/x").read_text() == "data/x"
    assert names(folder.parent / "copy") == {"train.py", "up"}


def test_a_ring_of_links_is_no_trap(folder: Path, store: Path) -> None:
    fill(folder, "a/x")
    (folder / "a/self").symlink_to(".")
    (folder / "a/top").symlink_to("..")
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to("one")
    assert names(snapshot(folder, store)) == {"a/x", "a/self", "a/top", "one", "two"}


@pytest.mark.parametrize("home", [".gpu-cluster", "cluster", "deep/cluster", ".", "link"])
def test_a_home_inside_of_the_project_is_not_copied_into_itself(folder: Path, home: str) -> None:
    fill(folder, "train.py", "deep/x.py")
    if home == "link":
        fill(folder, "behind/y")
        (folder / "link").symlink_to("behind")
    ours = ["jobs/old/source/train.py", "jobs/old/logs/rank_0.log", "envs/k/lib/x.py", "queue/1.py", "compute/c.py"]
    fill(folder / home, *ours)
    store = folder / home / "snapshots"
    target = folder.parent / "copy"
    restore(store, take(folder, store).digest, target)
    restore(store, take(folder, store).digest, folder.parent / "again")
    assert {name for name in names(target) if name.endswith((".py", ".log"))} == {"train.py", "deep/x.py"}
    assert names(target) == names(folder.parent / "again")


# ignore files


def ignored(folder: Path, store: Path) -> set[str]:
    return names(folder) - names(snapshot(folder, store))


def test_ignore_files_count_in_every_folder_and_both_kinds(folder: Path, store: Path) -> None:
    fill(folder, "a.log", "a/b.log", "a/c.tmp", "a/d.bin", "b/d.bin", "data/x", "data/big/y", "b/data/x")
    (folder / ".gitignore").write_text("*.log\n/data/\n")
    (folder / ".amlignore").write_text("*.tmp\n!/data/\ndata/big\n")
    (folder / "a/.gitignore").write_text("*.bin\n")
    (folder / "b/.gitignore").write_text("# nothing\n\n")
    assert ignored(folder, store) == {"a.log", "a/b.log", "a/c.tmp", "a/d.bin", "data/big/y"}


def test_a_deeper_file_overrides_and_an_ignored_folder_is_not_entered(folder: Path, store: Path) -> None:
    fill(folder, "keep/a.log", "a.log", "gone/b.txt", "gone/.gitignore")
    (folder / ".gitignore").write_text("*.log\ngone/\n!gone/b.txt\n")
    (folder / "keep/.amlignore").write_text("!a.log\n")
    (folder / "gone/.amlignore").write_text("!*\n")
    (folder / "gone").chmod(0)
    try:
        assert ignored(folder, store) == {"a.log", *(f"gone/{name}" for name in names(folder / "gone"))}
    finally:
        (folder / "gone").chmod(0o700)


def test_an_edited_ignore_file_counts_at_once(folder: Path, store: Path, settled: None) -> None:
    fill(folder, "a.log", "b.log")
    assert names(snapshot(folder, store)) == {"a.log", "b.log"}
    (folder / ".gitignore").write_text("a.log")
    assert names(snapshot(folder, store)) == {"b.log", ".gitignore"}
    (folder / ".gitignore").write_text("b.log")
    assert names(snapshot(folder, store)) == {"a.log", ".gitignore"}


_NAMES = ["a", "b", "ab", "a.b", "foo", "bar.py", "x y", "data", "[a]", "a*", "!a", "#a", "a-b", "a\\b", " s", "t "]
_PIECES = ["a", "b", "ab", "foo", "data", ".", "-", "!", "#", " ", "*", "**", "?", "/", "/", "/", "**/", "/**", "/**/"]
_PIECES += [
    "*.py",
    "[ab]",
    "[!a]",
    "[^b]",
    "[a-c]",
    "[]a]",
    "[a-]",
    "[-a]",
    "[--0]",
    "[z-a]",
    "[!z-a]",
    "[a-",
    "[\\]a]",
]
_PIECES += ["[[:alpha:]]", "[[:digit:][:punct:]]", "[[:nope:]]", "[[:", "[:]", "\\", "\\*", "\\["]


def draw_tree(drawn: random.Random, folder: Path, depth: int = 0) -> None:
    for name in drawn.sample(_NAMES, drawn.randint(2, 6)):
        if depth < 3 and drawn.random() < 0.45:
            (folder / name).mkdir()
            draw_tree(drawn, folder / name, depth + 1)
        else:
            (folder / name).touch()
    if depth == 0 or drawn.random() < 0.3:
        lines = ["".join(drawn.choices(_PIECES, k=drawn.randint(1, 5))) for _ in range(drawn.randint(1, 6))]
        prefixes, ends = ["", "", "!", "/", "!/"], ["", "", "", "/", "  ", "\\ ", "\r"]
        (folder / ".gitignore").write_text(
            "\n".join(drawn.choice(prefixes) + line + drawn.choice(ends) for line in lines), newline=""
        )


@pytest.mark.parametrize("seed", range(60))
def test_the_same_files_are_ignored_as_by_git(tmp_path: Path, seed: int) -> None:
    draw_tree(random.Random(seed), tmp_path)
    git = ["git", "-c", "core.excludesFile=/dev/null", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    listed = [*git, "ls-files", "-z", "--others", "--exclude-per-directory=.gitignore"]
    expected = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0")
    assert set(walk(tmp_path, tmp_path / "home").files) == set(expected) - {""}


# stored once, and what a submission costs


def test_identical_files_are_stored_once_over_snapshots_and_projects(tmp_path: Path, store: Path) -> None:
    large = random.Random(1).randbytes(10**6)
    for project in ("one", "two"):
        for number in range(200):
            fill(tmp_path / project, f"f{number}")
        for name in ("x", "y"):
            (tmp_path / project / name).write_bytes(large)
    first = take(tmp_path / "one", store)
    size = stored(store)
    assert size < len(large) + 200 * 120
    assert take(tmp_path / "two", store) == Snapshot(first.digest, 202, first.bytes, reused=True)
    (tmp_path / "two/new").write_text("new")
    other = take(tmp_path / "two", store)
    assert (other.digest != first.digest, other.reused, other.files) == (True, False, 203)
    assert stored(store) == size + 3


def test_large_files_that_differ_in_one_byte_are_told_apart(folder: Path, store: Path, old: None) -> None:
    (folder / "a").write_bytes(bytes(10**7))
    first = take(folder, store)
    for byte in (b"\1", b"\2"):
        with (folder / "a").open("r+b") as handle:
            handle.seek(5_000_001)
            handle.write(byte)
        restored = snapshot(folder, store) / "a"
        assert restored.read_bytes() == (folder / "a").read_bytes()
        prune(store, set())
    assert stored(store) == 0
    assert take(folder, store).digest != first.digest


def test_unchanged_files_are_not_opened(
    folder: Path, store: Path, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, "a", "b", "c/d")
    (folder / "link").symlink_to("a")
    opened: list[str] = []
    original = blobs._open

    def spying(top: Path, path: str) -> int | None:
        opened.append(path)
        return original(top, path)

    monkeypatch.setattr(blobs, "_open", spying)
    first = take(folder, store)
    assert sorted(opened) == ["a", "b", "c/d"]
    opened.clear()
    assert take(folder, store) == Snapshot(first.digest, first.files, first.bytes, reused=True)
    assert opened == []
    fill(folder, "b")
    assert take(folder, store).reused
    assert opened == ["b"]


def edit(path: Path) -> None:
    path.write_text("B")


def edit_and_reset_times(path: Path) -> None:
    stats = path.stat()
    path.write_text("B")
    os.utime(path, ns=(stats.st_atime_ns, stats.st_mtime_ns))


def replace(path: Path) -> None:
    path.with_name("new").write_text("B")
    path.with_name("new").replace(path)


@pytest.mark.parametrize("change", [edit, edit_and_reset_times, replace])
def test_a_change_of_the_same_size_is_seen(
    folder: Path, store: Path, settled: None, change: Callable[[Path], None]
) -> None:
    (folder / "a").write_text("A")
    take(folder, store)
    time.sleep(0.02)  # longer than a tick of the file system's clock
    change(folder / "a")
    assert (snapshot(folder, store) / "a").read_text() == "B"


def test_a_file_that_was_just_written_is_read_again(folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "a").write_text("A")
    (folder / "b").write_text("A")
    take(folder, store)
    # Two writes in one tick leave the same times, and this is how that looks.
    monkeypatch.setattr(index, "key_of", lambda stats: (0, 0, 0, 0, stats.st_mode))
    monkeypatch.setattr(TAKE, "key_of", lambda stats: (0, 0, 0, 0, stats.st_mode))
    monkeypatch.setattr(TAKE, "signature", lambda found: "same")
    take(folder, store)
    (folder / "a").write_text("B")
    assert (snapshot(folder, store) / "a").read_text() == "B"


def test_modes_and_links_that_changed_are_seen(folder: Path, store: Path, settled: None) -> None:
    fill(folder, "a")
    (folder / "link").symlink_to("a")
    (folder / "empty").mkdir()
    take(folder, store)
    (folder / "a").chmod(0o755)
    assert os.access(snapshot(folder, store) / "a", os.X_OK)
    (folder / "link").unlink()
    (folder / "link").symlink_to("b")
    assert os.readlink(snapshot(folder, store) / "link") == "b"  # noqa: PTH115 - the text
    (folder / "empty").rmdir()
    assert not (snapshot(folder, store) / "empty").exists()


def test_a_damaged_index_is_no_index(folder: Path, store: Path, settled: None) -> None:
    fill(folder, *(f"f{number}" for number in range(100)))
    taken = take(folder, store)
    (path,) = (store / "indexes").iterdir()
    whole = path.read_bytes()
    (folder / "f1").write_text("x")
    for text in (b"", b"{}", b"[]\n", b"nonsense", whole[: len(whole) // 2], whole[:-3], b"\xff\n" + whole):
        path.write_bytes(text)
        assert (snapshot(folder, store) / "f1").read_text() == "x", text
    (folder / "f1").write_text("f1")
    assert take(folder, store).digest == taken.digest


def test_takes_of_the_same_project_at_the_same_time_agree(folder: Path, store: Path) -> None:
    fill(folder, *(f"d{number % 7}/f{number}" for number in range(300)))
    (folder / "large").write_bytes(random.Random(1).randbytes(3 * 10**6))
    program = "import sys; from pathlib import Path; from mlflow_pytorch_estimator.snapshots import take\n"
    program += "for _ in range(3): print(take(Path(sys.argv[1]), Path(sys.argv[2])).digest)"
    command = [sys.executable, "-c", program, str(folder), str(store)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    digests = {line for process in running for line in process.communicate()[0].split()}
    assert [process.returncode for process in running] == [0] * 4
    assert digests == {take(folder, store).digest}
    assert list((store / "unfinished").iterdir()) == []
    assert names(snapshot(folder, store)) == names(folder)


# files that change, and files that cannot be read


def while_reading(monkeypatch: pytest.MonkeyPatch, path: Path, change: Callable[[], object]) -> None:
    """Change a file after it was opened, before it is read."""
    original = os.fstat
    pending = [True]

    def changing(descriptor: int) -> os.stat_result:
        stats = original(descriptor)
        if stats.st_ino == path.stat().st_ino and pending:
            pending.clear()
            change()
        return stats

    monkeypatch.setattr(os, "fstat", changing)


@pytest.mark.parametrize("size", [1_000, 5_000_000])
@pytest.mark.parametrize("change", ["grows", "shrinks", "empties"])
def test_a_file_that_changes_while_it_is_read_is_stored_as_it_was_read(
    folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch, size: int, change: str
) -> None:
    path = folder / "log"
    path.write_bytes(bytes(size))
    lengths = {"grows": size + 700, "shrinks": size // 2, "empties": 0}
    with monkeypatch.context() as patched:
        while_reading(patched, path, lambda: os.truncate(path, lengths[change]))
        taken = take(folder, store)
    restore(store, taken.digest, folder.parent / "copy")
    assert (folder.parent / "copy/log").read_bytes() in {bytes(length) for length in (size, lengths[change])}
    assert taken.bytes == (folder.parent / "copy/log").stat().st_size
    assert (snapshot(folder, store) / "log").stat().st_size == lengths[change]


def test_a_file_that_vanishes_is_left_out(folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder, "a", "b")
    original = TAKE.walk

    def vanishing(*arguments: Any) -> Any:
        found = original(*arguments)
        (folder / "a").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(TAKE, "walk", vanishing)
    assert names(snapshot(folder, store)) == {"b"}


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_cannot_be_read_is_named_with_the_remedy(
    folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    fill(folder, "a/secret")
    name, path = ("open", folder / "a/secret") if kind == "file" else ("listdir", folder / "a/")
    original = getattr(os, name)

    def refusing(where: Any, *arguments: Any) -> Any:
        if str(where).rstrip("/") == str(path).rstrip("/"):
            raise PermissionError(errno.EACCES, "Permission denied", str(where))
        return original(where, *arguments)

    monkeypatch.setattr(os, name, refusing)
    with pytest.raises(ProjectError, match=r"cannot read 'a/.*Permission denied.*\.amlignore") as caught:
        take(folder, store)
    assert len(str(caught.value).splitlines()) == 1


def test_a_project_that_is_not_there_is_one_line(tmp_path: Path, store: Path) -> None:
    with pytest.raises(ProjectError, match=r"missing.*No such file"):
        take(tmp_path / "missing", store)
    assert not store.exists()


# kills, full disks, damage


@pytest.mark.parametrize("size", [300, 400_000])
def test_a_full_disk_is_one_line_and_leaves_nothing_that_counts(
    folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    for number in range(100 if size < 1_000 else 3):
        (folder / f"f{number}").write_bytes(random.Random(number).randbytes(size))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
        with pytest.raises(ProjectError, match=r"No space left; free space there, set GPU_CLUSTER_HOME") as caught:
            take(folder, store)
    assert len(str(caught.value).splitlines()) == 1
    assert list((store / "unfinished").iterdir()) == []
    assert stored(store) == 0
    assert not take(folder, store).reused


def test_a_kill_at_any_moment_leaves_nothing_wrong(folder: Path, store: Path) -> None:
    fill(folder, *(f"d{number % 9}/f{number}" for number in range(400)))
    for number in range(4):
        (folder / f"large{number}").write_bytes(random.Random(number).randbytes(4 * 10**6))
    program = "import sys; from pathlib import Path; from mlflow_pytorch_estimator.snapshots import take\n"
    program += "print('ready', flush=True); take(Path(sys.argv[1]), Path(sys.argv[2]))"
    for attempt in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(folder), str(store)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.008 * attempt)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    target = snapshot(folder, store)
    assert subprocess.run(["diff", "-r", folder, target], check=False).returncode == 0
    prune(store, {take(folder, store).digest})
    assert list((store / "unfinished").iterdir()) == []
    assert subprocess.run(["diff", "-r", folder, snapshot(folder, store)], check=False).returncode == 0


def missing(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)


def flip_near_the_end(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-15] ^= 1
    path.write_bytes(data)


_DAMAGE = [
    ("packs", missing),
    ("packs", cut),
    ("packs", flip),
    ("packs", flip_near_the_end),
    ("objects", missing),
    ("objects", cut),
]
_DAMAGE += [("trees", missing), ("trees", cut), ("trees", flip)]


@pytest.mark.parametrize(("kind", "damage"), _DAMAGE)
def test_damage_is_found_and_the_next_submission_repairs_it(
    folder: Path, store: Path, settled: None, kind: str, damage: Callable[[Path], None]
) -> None:
    fill(folder, *(f"f{number}" for number in range(100)))
    (folder / "large").write_bytes(random.Random(1).randbytes(10**6))
    digest = take(folder, store).digest
    (path,) = (path for path in (store / kind).rglob("*") if path.is_file())
    damage(path)
    with pytest.raises(ProjectError, match=rf"{digest} is damaged or was removed.*submit the job again") as caught:
        restore(store, digest, folder.parent / "copy")
    assert len(str(caught.value).splitlines()) == 1
    assert {path.name for path in folder.parent.iterdir()} == {"project", "home"}
    assert subprocess.run(["diff", "-r", folder, snapshot(folder, store)], check=False).returncode == 0


def test_restore_refuses_what_is_there_and_what_never_was(folder: Path, store: Path) -> None:
    fill(folder, "a")
    digest = take(folder, store).digest
    (folder.parent / "copy").mkdir()
    with pytest.raises(ProjectError, match="exists already"):
        restore(store, digest, folder.parent / "copy")
    with pytest.raises(ProjectError, match="submit the job again"):
        restore(store, hashlib.sha256().hexdigest(), folder.parent / "other")
    with pytest.raises(ProjectError, match="No such file"):
        restore(store, digest, folder.parent / "no/such/folder")


@pytest.mark.parametrize("lacking", [(), ("ioctl",), ("ioctl", "copy_file_range")])
def test_large_files_are_copied_on_any_file_system(
    folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch, lacking: tuple[str, ...]
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.EOPNOTSUPP, "not here")

    for name in lacking:
        monkeypatch.setattr(fcntl if name == "ioctl" else os, name, refuse)
    (folder / "large").write_bytes(random.Random(1).randbytes(10**6 + 1))
    assert (snapshot(folder, store) / "large").read_bytes() == (folder / "large").read_bytes()


def test_a_file_system_that_says_it_copied_nothing_is_not_believed(
    folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
    (folder / "large").write_bytes(random.Random(1).randbytes(10**6 + 1))
    assert (snapshot(folder, store) / "large").read_bytes() == (folder / "large").read_bytes()


def test_restoring_needs_the_standard_library_only() -> None:
    program = "import sys; import mlflow_pytorch_estimator.snapshots.restore\n"
    program += "print([name for name in sys.modules if name.partition('.')[0] in ('mlflow', 'pathspec', 'yaml')])"
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert result.stdout == "[]\n"


# prune


def test_prune_keeps_what_is_needed_and_removes_the_rest(tmp_path: Path, store: Path, old: None) -> None:
    for project in ("one", "two"):
        fill(tmp_path / project, *(f"{project}{number}" for number in range(100)), "shared")
        (tmp_path / project / "large").write_bytes(random.Random(project).randbytes(10**6))
    (tmp_path / "two/shared-large").write_bytes((tmp_path / "one/large").read_bytes())
    one, two = take(tmp_path / "one", store), take(tmp_path / "two", store)
    prune(store, {one.digest, two.digest})
    whole = stored(store)
    prune(store, {two.digest})
    assert {path.name for path in (store / "trees").iterdir()} == {two.digest}
    restore(store, two.digest, tmp_path / "copy")
    assert subprocess.run(["diff", "-r", tmp_path / "two", tmp_path / "copy"], check=False).returncode == 0
    shutil.rmtree(tmp_path / "two")
    prune(store, set())
    assert stored(store) == 0 < whole
    assert len(list((store / "indexes").iterdir())) == 1
    assert not take(tmp_path / "one", store).reused


def test_prune_leaves_what_was_taken_lately(folder: Path, store: Path, settled: None) -> None:
    fill(folder, "a")
    digest = take(folder, store).digest
    prune(store, set())
    restore(store, digest, folder.parent / "copy")
    long_ago = time.time() - PRUNE.GRACE_SECONDS - 60
    os.utime(store / "trees" / digest, (long_ago, long_ago))
    assert take(folder, store).reused  # makes it young again
    prune(store, set())
    restore(store, digest, folder.parent / "again")
    os.utime(store / "trees" / digest, (long_ago, long_ago))
    prune(store, set())
    with pytest.raises(ProjectError, match="submit the job again"):
        restore(store, digest, folder.parent / "third")


def test_prune_waits_for_nobody_and_disturbs_nobody(
    folder: Path, store: Path, old: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, "a")
    take(folder, store)
    inside, go_on = threading.Event(), threading.Event()
    original = RESTORE._restore_file

    def slow(*arguments: Any) -> None:
        inside.set()
        assert go_on.wait(10)
        original(*arguments)

    monkeypatch.setattr(RESTORE, "_restore_file", slow)
    digest = take(folder, store).digest
    thread = threading.Thread(target=restore, args=(store, digest, folder.parent / "copy"))
    thread.start()
    assert inside.wait(10)
    prune(store, set())
    go_on.set()
    thread.join()
    assert (folder.parent / "copy/a").read_text() == "a"
    prune(store, set())
    assert stored(store) == 0


def test_prune_without_a_store_is_nothing(store: Path) -> None:
    prune(store, set())
    assert not store.exists()


def test_large_projects_are_warned_about_once(
    folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(8):
        (folder / f"data{number}").write_bytes(bytes(1_000_000 * (number + 1)))
    with caplog.at_level(logging.WARNING):
        take(folder, store)
        assert caplog.messages == []
        monkeypatch.setattr(TAKE, "WARNING_BYTES", 10**6)
        take(folder, store)
    (message,) = caplog.messages
    assert "36 MB" in message
    assert [f"data{number}" in message for number in range(8)] == [False] * 3 + [True] * 5
    assert ".amlignore" in message
    assert ".gitignore" in message
