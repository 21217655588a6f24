"""The job directory: staging, settling, sweeping, and words that survive a crash."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlflow_pytorch_estimator import jobdir, locks, processes
from mlflow_pytorch_estimator.alljobs import sweep
from mlflow_pytorch_estimator.files import read_json, write_atomic
from mlflow_pytorch_estimator.jobdir import JobDir, Outcome
from mlflow_pytorch_estimator.spec import InterpreterSpec, JobSpec
from mlflow_pytorch_estimator.status import Phase

JOB = JobSpec("r1", "0", "täglich \udcff", "main", "echo '☃'", {"a": "b"}, InterpreterSpec("local"))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_staged_directory_is_private_alive_and_no_job_yet(home: Path) -> None:
    before = os.umask(0)
    try:
        staged, lock = JobDir.stage()
        staged.write_job(JOB)
        staged.enter(Phase.QUEUED)
        staged.conclude(Phase.FAILED, "x")
        staged.request_cancel()
        staged.write_job_id("local-1")
    finally:
        os.umask(before)
    assert staged.alive
    assert {mode(path) for path in (home / "jobs", staged.path, staged.logs)} == {0o700}
    assert {mode(path) for path in staged.path.iterdir() if path.is_file()} == {0o600}
    lock.close()
    assert not staged.alive


def test_settling_keeps_content_and_lock(home: Path) -> None:
    staged, lock = JobDir.stage()
    staged.write_job(JOB)
    settled = staged.settle("r1")
    assert settled.path == home / "jobs" / "r1" == JobDir.of_run("r1").path
    assert settled.job == JOB
    assert settled.alive
    assert not staged.path.exists()
    lock.close()
    assert not settled.alive


def test_a_directory_that_is_not_there_is_no_job(home: Path) -> None:
    none = JobDir.of_run("none")
    assert not none.exists
    assert not none.alive
    assert none.outcome is None
    assert none.events() == []
    assert none.job_id is None
    assert none.rank_logs() == []
    none.remove()


def _age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_stale_staging_directories_are_swept_and_no_others(home: Path) -> None:
    stale, stale_lock = JobDir.stage()
    stale_lock.close()
    alive, alive_lock = JobDir.stage()
    fresh, fresh_lock = JobDir.stage()
    fresh_lock.close()
    for made in (stale, alive):
        _age(made.path, 60)
    job, job_lock = JobDir.stage()
    job = job.settle("r1")
    job_lock.close()
    _age(job.path, 10_000_000)
    sweep()
    assert {path.name for path in (home / "jobs").iterdir()} == {alive.path.name, fresh.path.name, "r1"}
    alive_lock.close()


def test_a_killed_submitter_leaves_nothing_for_long(home: Path) -> None:
    script = (
        "import os, signal\nfrom mlflow_pytorch_estimator.jobdir import JobDir\n"
        "staged, lock = JobDir.stage()\n(staged.path / 'source').mkdir()\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    (left,) = (home / "jobs").iterdir()
    sweep()
    assert left.exists()  # somebody may just be about to lock it
    _age(left, 6)
    sweep()
    assert not left.exists()


def test_delivered_jobs_are_kept_for_a_month(home: Path) -> None:
    old, undelivered, new = (home / "jobs" / name for name in ("old", "undelivered", "new"))
    for path in (old, undelivered, new):
        path.mkdir(parents=True)
    JobDir(old).delivered.touch()
    JobDir(new).delivered.touch()
    day = 86_400
    sweep(time.time() + 29 * day)
    assert old.exists()
    _age(JobDir(old).delivered, 31 * day)
    sweep()
    assert {path.name for path in (home / "jobs").iterdir()} == {"undelivered", "new"}


def test_sweeping_a_home_that_is_not_there_is_fine(home: Path) -> None:
    sweep()
    assert not home.exists()


@pytest.mark.parametrize("name", [".DS_Store", "notes.txt", ".new-notes"])
def test_sweeping_passes_over_files_of_others(home: Path, name: str) -> None:
    (home / "jobs").mkdir(parents=True)
    stray = home / "jobs" / name
    stray.write_text("x")
    _age(stray, 60)
    stale, lock = JobDir.stage()
    lock.close()
    _age(stale.path, 60)
    sweep()
    assert not stale.path.exists()


def test_outcomes_come_back_whole(tmp_path: Path) -> None:
    directory = JobDir(tmp_path)
    assert directory.outcome is None
    details = {"rank": 3, "traceback": "täglich ☃\n\x00\udcff", "last_lines": ["a", "\u2028"], "signal": None}
    written = directory.conclude(Phase.FAILED, "rank 3 said 'täglich \udcff'\n☃", -9, failure=details)
    assert directory.outcome == written
    assert written.failure == details
    assert abs(written.time - time.time()) < 5
    assert directory.conclude(Phase.COMPLETED, "", 0) == directory.outcome
    assert directory.outcome == Outcome(Phase.COMPLETED, "", 0, directory.outcome.time)


def test_the_phase_is_final_only_when_the_run_says_so_too(tmp_path: Path) -> None:
    directory = JobDir(tmp_path)
    seen = [directory.phase]
    directory.enter(Phase.RUNNING)
    seen.append(directory.phase)
    directory.conclude(Phase.FAILED, "x", 1)
    seen.append(directory.phase)
    directory.delivered.touch()
    seen.append(directory.phase)
    assert seen == [Phase.PREPARING, Phase.RUNNING, Phase.RUNNING, Phase.FAILED]


def test_cancel_is_asked_for_once_and_seen_by_all(tmp_path: Path) -> None:
    assert not JobDir(tmp_path).cancel_requested
    JobDir(tmp_path).request_cancel()
    JobDir(tmp_path).request_cancel()
    assert JobDir(tmp_path).cancel_requested


def test_logs_are_listed_by_rank(tmp_path: Path) -> None:
    directory = JobDir(tmp_path)
    directory.logs.mkdir()
    for rank in (10, 2, 0, 1):
        directory.rank_log(rank).touch()
    directory.agent_log.touch()
    assert [log.name for log in directory.rank_logs()] == [f"rank_{rank}.log" for rank in (0, 1, 2, 10)]


def test_files_are_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    assert read_json(path) is None
    write_atomic(path, '{"a": "täglich \udcff"}')
    assert read_json(path) == {"a": "täglich \udcff"}
    script = (
        "import sys\nfrom pathlib import Path\nfrom mlflow_pytorch_estimator.files import write_atomic\n"
        "while True:\n    write_atomic(Path(sys.argv[1]), '{\"a\": \"' + 'x' * 100000 + '\"}')\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(path)]) as writer:
        deadline = time.monotonic() + 1.0
        seen = set()
        while time.monotonic() < deadline:
            seen.add(len(read_json(path)["a"]))  # type: ignore[index]  # it is there
        writer.kill()
    assert seen <= {len("täglich \udcff"), 100_000}
    assert 100_000 in seen


def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_atomic(path, "old")
    with pytest.raises(TypeError):
        write_atomic(path, 3)  # type: ignore[arg-type]  # that is the point
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["x"]


def test_a_recorded_process_is_found_and_a_reused_pid_is_not(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    assert processes.kill_recorded(path, 0) is False
    processes.record(path)
    assert processes.kill_recorded(path, 0) is True
    raw = read_json(path)
    assert raw is not None
    write_atomic(path, f'{{"pid": {raw["pid"]}, "start_time": {raw["start_time"] - 1}}}')
    assert processes.kill_recorded(path, 0) is False
    write_atomic(path, '{"pid": 4194304, "start_time": 1}')
    assert processes.kill_recorded(path, 0) is False
    assert processes.start_time(4194304) is None


def test_a_lock_moves_along_to_a_child_when_the_directory_is_renamed(home: Path) -> None:
    staged, lock = JobDir.stage()
    child = subprocess.Popen(["sleep", "60"], pass_fds=[lock.fd])
    settled = staged.settle("r2")
    lock.close()
    assert settled.alive
    child.kill()
    child.wait()
    assert locks.wait_until_free(settled.lock, 5)
    assert jobdir.home() == home


def test_on_a_full_disk_the_last_word_leaves_out_what_became_of_each_rank(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, lock = JobDir.stage()
    lock.close()
    texts: list[str] = []

    def full(path: Path, text: str) -> None:
        texts.append(text)
        if directory.reserve.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomic(path, text)

    monkeypatch.setattr(jobdir, "write_atomic", full)
    lives = [{"rank": rank, "node": "a", "attempt": 1, "start": 1.0, "end": 2.0, "exit_code": 1} for rank in range(999)]
    directory.conclude(Phase.FAILED, "rank 0 exited with status 1", 1, ranks=lives)
    assert len(texts[0]) > 64 * 1024 > 1024 > len(texts[1])
    assert directory.outcome is not None
    assert (directory.outcome.phase, directory.outcome.ranks) == (Phase.FAILED, None)
