"""`envs list|check|remove|prune`, and that they never take an environment from a job."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import companion
from wheelhouse import DAY, Job, LocalBench, envs, folder_of, module, used, works

from mlflow_pytorch_estimator.environments import ReadyEnvironment, cache
from mlflow_pytorch_estimator.environments.tending.disk import joined, usage
from mlflow_pytorch_estimator.environments.tending.quantities import parse_duration, parse_size, show_age, show_size
from mlflow_pytorch_estimator.environments.tending.survey import Survey, survey

NOBODY = 65534


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalBench:
    made = LocalBench(tmp_path, monkeypatch)
    made.index.wheel("tiny0")
    made.index.wheel("tiny1")
    made.index.wheel("torch", "2.13.0", size=300_000)
    return made


def add_wheel(bench: LocalBench, key: str, days_ago: float) -> Path:
    """A Horovod wheel as the builder stores one."""
    from mlflow_pytorch_estimator.horovod import wheels

    place = wheels.workplace(bench.cache / "wheels" / key)
    (place / "out").mkdir()
    (place / "out/horovod.whl").write_bytes(b"x" * 100_000)
    record: dict[str, object] = {"description": "Horovod 0.28.1 for torch 2.13.0"}
    wheels.store(place / "out/horovod.whl", bench.cache / "wheels" / key, record)
    place.rmdir()
    moment = time.time() - days_ago * DAY
    os.utime(bench.cache / "wheels" / key / "wheel.json", (moment, moment))
    return bench.cache / "wheels" / key


# --- list


def test_list(bench: LocalBench, tmp_path: Path) -> None:
    plain, torch, broken = bench.prepare("tiny0"), bench.prepare("tiny0", "torch"), bench.prepare("tiny1")
    used(plain, 3)
    used(torch, 0.1)
    used(broken, 1)
    broken.python.unlink()
    half, building = bench.cache / ("0" * 16), bench.cache / ("1" * 16)
    half.mkdir()
    building.mkdir()
    add_wheel(bench, "f" * 16, 2)
    job = Job(tmp_path)
    assert plain.claim(job.path)
    with cache.trying(building):
        listed = envs("list")
    lines = listed.stdout.splitlines()
    words = {line.split()[0]: line for line in lines if line}
    assert " ".join(lines[0].split()) == "KEY SIZE FREES PYTHON PACKAGES TORCH LAST USED STATE USED BY"
    version = ".".join(map(str, sys.version_info[:3]))
    assert words[torch.key].split()[3:] == [version, "2", "2.13.0", "2", "h", "ago", "ready", "-"]
    assert words[plain.key].split()[3:] == [version, "1", "-", "3", "d", "ago", "ready", job.path.name]
    assert words[broken.key].split()[4:] == ["1", "-", "1", "d", "ago", "damaged", "-"]
    assert words["0" * 16].split()[3:] == ["-", "-", "-", "just", "now", "half", "built", "-"]
    assert words["1" * 16].split()[3:] == ["-", "-", "-", "just", "now", "being", "built", "-"]
    keys = [line.split()[0] for line in lines if line[:16] in words and len(line.split()[0]) == 16]
    assert keys[2:] == [torch.key, broken.key, plain.key, "f" * 16]
    assert words["f" * 16].split(maxsplit=6)[5:] == ["ready", "0.28.1 for torch 2.13.0"]
    assert "5 environments, 1 Horovod wheel, chosen versions for 3 requests; " in lines[-1]


def test_list_for_scripts(bench: LocalBench) -> None:
    ready = bench.prepare("tiny0", "torch")
    raw = json.loads(envs("list", "--json").stdout)
    [found] = raw["environments"]
    assert raw["folder"] == str(bench.cache)
    assert (found["key"], found["state"], found["packages"], found["torch"]) == (ready.key, "ready", 2, "2.13.0")
    assert found["used_by"] == []
    assert abs(found["last_used"] - time.time()) < 60
    assert found["bytes"] == usage(folder_of(ready)).size == raw["bytes"]
    assert raw["requests"] == [path.stem for path in (bench.cache / "locks").glob("*.json")]


def test_list_counts_what_conda_has_installed(bench: LocalBench) -> None:
    ready = bench.prepare("tiny0")
    marker = folder_of(ready) / cache.MARKER
    freeze = (
        "# python 3.12.4\n# platform Linux\n# manager micromamba, uv 0.13.9\n"
        "# conda https://example.org/linux-64/pytorch-cpu-2.4.0-0.conda#0123\n"
        "# conda https://example.org/linux-64/pytorch-2.5.1-cpu_generic_py312_8.conda#0123\ntiny0==1.0\n"
    )
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "freeze": freeze}))
    [found] = json.loads(envs("list", "--json").stdout)["environments"]
    assert (found["python"], found["packages"], found["torch"]) == ("3.12.4", 3, "2.5.1")


def test_an_empty_cache(bench: LocalBench) -> None:
    listed = envs("list")
    assert (listed.exit_code, listed.stdout.count("\n")) == (0, 1)
    assert listed.stdout.startswith(f"{bench.cache}: 0 environments, ")
    for command in ("check", "prune"):
        assert envs(command).exit_code == 0


def test_sizes_count_what_uv_has_as_well_once(bench: LocalBench) -> None:
    one, two = bench.prepare("torch"), bench.prepare("torch", "tiny0")
    usages = [usage(folder_of(ready)) for ready in (one, two)]
    assert all(item.size > 300_000 > item.alone for item in usages)
    assert 300_000 < joined(usages).size < 600_000
    assert joined(usages).alone < 300_000
    shutil.rmtree(bench.uv_cache)
    usages = [usage(folder_of(ready)) for ready in (one, two)]
    assert all(item.alone < 300_000 for item in usages)  # the other has it as well
    assert 300_000 < joined(usages).alone < 600_000
    shutil.rmtree(folder_of(one))
    assert usage(folder_of(two)).alone > 300_000


def test_the_command_is_there() -> None:
    helped = companion("envs", "--help")
    assert helped.returncode == 0
    assert [line.split()[0] for line in helped.stdout.partition("Commands:\n")[2].splitlines()] == [
        "check",
        "list",
        "prune",
        "remove",
    ]


# --- check


def test_check_says_that_all_is_well(bench: LocalBench) -> None:
    one, two = bench.prepare("tiny0"), bench.prepare("tiny1")
    wheel = add_wheel(bench, "f" * 16, 0)
    (bench.cache / ("0" * 16)).mkdir()
    checked = envs("check")
    assert checked.exit_code == 0
    assert sorted(checked.stdout.splitlines()) == sorted(
        [
            "0000000000000000  half built: `envs prune` removes it",
            f"{one.key}  environment: as it was installed",
            f"{two.key}  environment: as it was installed",
            f"{wheel.name}  Horovod wheel: as it was installed",
        ]
    )
    assert envs("check", one.key).stdout == f"{one.key}  environment: as it was installed\n"
    unknown = envs("check", "nothing")
    assert unknown.exit_code == 2
    assert "nothing is no environment or wheel in" in unknown.stderr


def test_check_leaves_what_a_job_has(bench: LocalBench, tmp_path: Path) -> None:
    ready = bench.prepare("tiny0")
    job = Job(tmp_path)
    assert ready.claim(job.path)
    module(ready, "tiny0").write_text("")
    checked = envs("check")
    assert checked.exit_code == 1
    assert f"in use by run {job.path.name}: check again when that has ended" in checked.stdout
    assert bench.find("tiny0") is not None
    job.end()
    assert envs("check").exit_code == 1
    assert bench.find("tiny0") is None


def test_check_knows_what_was_added_and_what_has_gone(bench: LocalBench) -> None:
    ready = bench.prepare("tiny0", "tiny1")
    packages = module(ready, "tiny0").parent.parent
    shutil.rmtree(packages / "tiny1-1.0.dist-info")
    (packages / "other-2.0.dist-info").mkdir()
    (folder_of(ready) / "pyvenv.cfg").unlink()
    assert envs("check").stdout.splitlines() == [
        f"{ready.key}  environment: damaged",
        "    other-2.0: RECORD: No such file or directory",
        "    tiny1-1.0: its list of files has gone",
        "    pyvenv.cfg has gone, without which Python does not find the packages",
        "    the next job that wants it builds it again",
    ]


def test_check_of_a_list_of_files_that_is_garbage(bench: LocalBench) -> None:
    ready = bench.prepare("tiny0")
    [record] = folder_of(ready).glob("lib/python3*/site-packages/*.dist-info/RECORD")
    size = record.stat().st_size
    record.write_bytes(b"\xff" * size)
    assert "tiny0-1.0: RECORD is no list of files" in envs("check").stdout
    record.write_bytes(b"tiny0/__init__.py,sha256=x,many\n".ljust(size, b"\n"))
    assert "tiny0-1.0: tiny0/__init__.py is listed with the size 'many'" in envs("check").stdout


def test_check_finds_a_damaged_wheel(bench: LocalBench) -> None:
    folder = add_wheel(bench, "f" * 16, 0)
    (folder / "horovod.whl").write_bytes(b"y" * 100_000)
    checked = envs("check")
    assert checked.exit_code == 1
    assert checked.stdout.startswith(f"{folder.name}  Horovod wheel: damaged\n")


# --- remove


def test_remove(bench: LocalBench, tmp_path: Path) -> None:
    free, taken, built = bench.prepare("tiny0"), bench.prepare("tiny1"), bench.prepare("torch")
    wheel = add_wheel(bench, "f" * 16, 0)
    job = Job(tmp_path)
    assert taken.claim(job.path)
    with cache.trying(folder_of(built)):
        removed = envs("remove", taken.key, built.key, "0" * 16, "../bench", free.key, wheel.name)
    assert removed.exit_code == 1
    assert [line.partition(":")[0] for line in removed.stdout.splitlines()] == [
        f"removed {free.key}",
        f"removed {wheel.name}",
    ]
    assert [line.partition(": ")[0] for line in removed.stderr.splitlines()] == [
        f"{taken.key} is in use by run {job.path.name}",
        f"{built.key} is being built or removed by somebody else",
        f"{'0' * 16} is no environment or wheel in {bench.cache}",
        f"../bench is no environment or wheel in {bench.cache}",
    ]
    assert f"gpu-cluster status {job.path.name}`" in removed.stderr
    assert bench.entries() == sorted([taken.key, built.key, f"{taken.key}.jobs", "wheels"])
    assert [*bench.cache.glob(f"{free.key}*")] == []
    assert [*wheel.parent.iterdir()] == []
    works(taken, "tiny1")
    job.end()
    assert envs("remove", taken.key, built.key).exit_code == 0
    assert bench.entries() == ["wheels"]
    assert not bench.prepare("tiny0").reused


def test_remove_says_what_it_frees(bench: LocalBench) -> None:
    one, two = bench.prepare("torch"), bench.prepare("torch", "tiny0")
    assert "stay: uv's cache or other environments have them)" in envs("remove", one.key).stdout
    shutil.rmtree(bench.uv_cache)
    freed = usage(folder_of(two)).alone
    assert freed > 300_000
    assert envs("remove", two.key).stdout == f"removed {two.key}: {show_size(freed)} freed\n"


def test_other_users_entries_stay_and_the_rest_goes() -> None:
    """As another user, who may write to the folder but not to what root has built."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        root = Path(name)
        root.chmod(0o755)
        bench = LocalBench(root, patch)
        for package in ("tiny0", "tiny1"):
            bench.index.wheel(package)
        theirs, own = bench.prepare("tiny0"), bench.prepare("tiny1")
        for path in (bench.cache, *bench.cache.glob(f"{own.key}*"), *folder_of(own).rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        code = (
            "import os, sys; from mlflow_pytorch_estimator.environments.tending.commands import commands;"
            f" os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY}); commands(sys.argv[1:])"
        )
        for command in (["remove", theirs.key, own.key], ["prune", "--max-size", "0K"]):
            done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
            assert done.returncode == 1, done.stderr
            assert "cannot be removed: " in done.stderr
            assert done.stderr.splitlines()[0].endswith(": Permission denied")
        assert bench.entries() == [theirs.key]
        works(theirs, "tiny0")


@pytest.fixture
def read_only(bench: LocalBench) -> Iterator[ReadyEnvironment]:
    """An environment in a cache that cannot be written."""
    ready = bench.prepare("tiny0")
    for arguments in (["--bind", str(bench.cache)], ["-o", "remount,ro,bind"]):
        done = subprocess.run(["mount", *arguments, bench.cache], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount a file system here: {done.stderr.strip()}")
    yield ready
    subprocess.run(["umount", bench.cache], check=True)


def test_read_only_cache(bench: LocalBench, read_only: ReadyEnvironment) -> None:
    for command in (["remove", read_only.key], ["prune", "--max-size", "0K"], ["prune", "--older-than", "0d"]):
        done = envs(*command)
        assert done.exit_code == 1, done.output
        assert done.stderr.count("Read-only file system") == done.stderr.count("cannot be removed: ") >= 1
        assert done.exception is None or isinstance(done.exception, SystemExit)
    assert envs("list").exit_code == envs("check").exit_code == 0
    works(read_only, "tiny0")


# --- prune


def test_prune_by_age(bench: LocalBench, tmp_path: Path) -> None:
    old, fresh, held = bench.prepare("tiny0"), bench.prepare("tiny1"), bench.prepare("torch")
    job = Job(tmp_path)
    assert held.claim(job.path)
    old_wheel, fresh_wheel = add_wheel(bench, "a" * 16, 31), add_wheel(bench, "f" * 16, 29)
    for ready, days in ((old, 31), (fresh, 29), (held, 40)):
        used(ready, days)
    locks = sorted((bench.cache / "locks").glob("*.json"))
    os.utime(locks[0], (time.time() - 31 * DAY,) * 2)
    tried = envs("prune", "--older-than", "30d", "--dry-run")
    assert tried.exit_code == 0
    assert f"would remove {old.key}, environment, " in tried.stdout
    assert f"kept {held.key}, environment: is in use by run {job.path.name}: " in tried.stdout
    assert bench.find("tiny0") is not None
    used(old, 31)
    os.utime(locks[0], (time.time() - 31 * DAY,) * 2)
    pruned = envs("prune", "--older-than", "30d")
    assert (pruned.exit_code, pruned.stderr) == (0, "")
    lines = pruned.stdout.splitlines()
    assert {line.partition(",")[0] for line in lines[:-1]} == {
        f"kept {held.key}",
        f"removed {old.key}",
        f"removed {old_wheel.name}",
        f"removed {locks[0].stem}",
    }
    assert ", last used 31 d ago" in pruned.stdout
    assert f"kept {held.key}, environment: is in use by run {job.path.name}: " in pruned.stdout
    assert lines[-1].startswith("3 gone, ")
    assert bench.entries() == sorted([fresh.key, held.key, f"{held.key}.jobs", "wheels"])
    assert fresh_wheel.is_dir()
    assert sorted((bench.cache / "locks").glob("*.json")) == locks[1:]


def test_prune_to_a_size_takes_what_was_not_used_for_longest(bench: LocalBench, tmp_path: Path) -> None:
    bench.index.wheel("filler", size=2 << 20)
    requests = [("filler", "tiny0"), ("filler", "tiny1"), ("filler",), ("filler", "torch")]
    ready = [bench.prepare(*packages) for packages in requests]
    shutil.rmtree(bench.uv_cache)
    for number, item in enumerate(ready):  # no links: each has its own
        for path in folder_of(item).rglob("data.bin"):
            path.write_bytes(path.read_bytes()) if path.stat().st_nlink == 1 else _alone(path)
        used(item, number)
    add_wheel(bench, "f" * 16, 10 / 86_400)  # may just be on its way into an environment
    job = Job(tmp_path)
    assert ready[3].claim(job.path)
    pruned = envs("prune", "--max-size", "5M")
    assert pruned.exit_code == 0
    assert [line.split()[1] for line in pruned.stdout.splitlines()[:-1]] == [f"{ready[2].key},", f"{ready[1].key},"]
    assert set(bench.entries()) == {ready[0].key, ready[3].key, f"{ready[3].key}.jobs", "wheels"}
    again = envs("prune", "--max-size", "1M")
    assert "more than 1.0M are in use, or were not removed" in again.stderr
    assert set(bench.entries()) == {ready[3].key, f"{ready[3].key}.jobs", "wheels"}
    assert envs("prune", "--max-size", "1M").stdout.startswith("0 gone, ")


def _alone(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


def test_prune_removes_what_was_left_and_nothing_else(bench: LocalBench, tmp_path: Path) -> None:
    ready = bench.prepare("tiny0")
    [lock] = (bench.cache / "locks").glob("*.json")
    gone, building, wheel = "0" * 16, "1" * 16, "2" * 16
    half = bench.cache / ("3" * 16)
    rubbish = [
        bench.cache / f".resolving-{gone}",
        bench.cache / "wheels" / f"{wheel}.build",
        half,
    ]
    files = [
        bench.cache / f"{gone}.used",
        bench.cache / f"{gone}.lock",
        bench.cache / "wheels" / f"{wheel}.lock",
        bench.cache / "locks" / f"{gone}.json.lock",
        bench.cache / "locks" / f".{gone}.json.4711",
        bench.cache / "locks" / f"{'4' * 16}.json",
    ]
    kept = [
        bench.cache / f".resolving-{building}",
        bench.cache / "wheels" / f"{building}.build",
        bench.cache / building,
        bench.cache / "my notes",
        bench.cache / "wheels/sources",
        folder_of(ready),
    ]
    for path in (*rubbish, *kept):
        (path / "file").mkdir(parents=True)
    for path in files:
        path.write_text("{")
    (bench.cache / f"{gone}.jobs").mkdir()
    (bench.cache / f"{gone}.jobs/run").write_text("/a job/that has gone")
    with (
        cache.trying(bench.cache / building),
        cache.trying(bench.cache / "locks" / f"{building}.json"),
        cache.trying(bench.cache / "wheels" / building),
    ):
        tried = envs("prune", "--dry-run")
        assert all(path.exists() for path in (*rubbish, *files, *kept))
        pruned = envs("prune")
    assert pruned.exit_code == tried.exit_code == 0
    assert tried.stdout.count("would remove ") == pruned.stdout.count("removed ") == 5
    assert [path for path in (*rubbish, *files, bench.cache / f"{gone}.jobs") if path.exists()] == []
    assert all(path.exists() for path in (*kept, lock))
    assert "\n3 gone, " in envs("prune").stdout  # the build has ended without a word
    assert bench.find("tiny0") is not None


def test_prune_leaves_what_was_used_or_built_since_it_looked(
    bench: LocalBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, built = bench.prepare("tiny0"), bench.prepare("tiny1")
    used(wanted, 31)
    (folder_of(built) / cache.MARKER).unlink()

    def looked(cache_dir: Path) -> Survey:
        found = survey(cache_dir)
        assert bench.find("tiny0")
        bench.prepare("tiny1")
        return found

    monkeypatch.setattr("mlflow_pytorch_estimator.environments.tending.prune.survey", looked)
    lines = envs("prune", "--older-than", "30d").stdout.splitlines()
    assert f"kept {wanted.key}, environment: has just been used" in lines
    assert f"kept {built.key}, half built environment: has just been built" in lines
    assert bench.find("tiny0") is not None
    assert bench.find("tiny1") is not None


def test_prune_leaves_leases_of_jobs_that_wait_for_a_build(bench: LocalBench, tmp_path: Path) -> None:
    job = Job(tmp_path)
    bench.cache.mkdir()
    lease = bench.cache / f"{'0' * 16}.jobs" / job.path.name
    lease.parent.mkdir()
    lease.write_text(str(job.path))
    envs("prune")
    assert lease.exists()
    job.end()
    envs("prune")
    assert not lease.parent.exists()


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--older-than", "30", "'30' is not a duration; write 30d, 12h, 2w or 45m"),
        ("--older-than", "-1d", "'-1d' is not a duration"),
        ("--max-size", "50", "'50' is not a size; write 50G or 500M"),
        ("--max-size", "big", "'big' is not a size"),
    ],
)
def test_a_limit_that_cannot_be_read(bench: LocalBench, option: str, value: str, words: str) -> None:
    ready = bench.prepare("tiny0")
    refused = envs("prune", option, value)
    assert refused.exit_code == 2
    assert words in refused.stderr
    assert folder_of(ready).exists()


def test_quantities() -> None:
    assert [parse_duration(text) for text in ("45m", "12h", "30d", "2w", "1.5h")] == [
        2700,
        43200,
        2592000,
        1209600,
        5400,
    ]
    assert [parse_size(text) for text in ("500M", "50g", "1.5 GiB", "2TB")] == [
        500 << 20,
        50 << 30,
        3 << 29,
        2 << 40,
    ]
    assert [show_size(size) for size in (0, 999, 1000, 120 << 20, 6_276_399_104, 10**15)] == [
        "0B",
        "999B",
        "1.0K",
        "120M",
        "5.8G",
        "909T",
    ]
    assert [show_age(age) for age in (5, 300, 7200, 3 * DAY, 70 * DAY)] == [
        "just now",
        "5 min ago",
        "2 h ago",
        "3 d ago",
        "70 d ago",
    ]
