"""The reason of a failure, found in logs as programs really leave them."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from mlflow_pytorch_estimator.failure import describe_exit, last_traceback, report, tail


def logged(folder: Path, script: str) -> str:
    """What a script leaves in its log, from the interpreter itself."""
    path = folder / "script.py"
    path.write_text(script, encoding="utf-8")
    return subprocess.run([sys.executable, path], stderr=subprocess.PIPE, text=True, check=False).stderr


def reason(folder: Path, text: str | bytes, exit_code: int = 1) -> str:
    log = folder / "rank_0.log"
    log.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(report(0, "here", exit_code, tail(log))["reason"])


FIRST = "Traceback (most recent call last):"

# Script -> first and last line of the traceback.
REAL = {
    "plain": ("def f():\n    raise ValueError('no luck')\nf()\n", FIRST, "ValueError: no luck"),
    "no message": ("raise KeyboardInterrupt\n", FIRST, "KeyboardInterrupt"),
    "dotted": ("import subprocess\nsubprocess.run(['false'], check=True)\n", FIRST, "subprocess.CalledProcessError: "),
    "assertion": ("assert [] == [1], 'two\\nlines'\n", FIRST, "AssertionError: two"),
    "deep": ("def f():\n    f()\nf()\n", FIRST, "RecursionError: maximum recursion depth exceeded"),
    "unicode": ("raise ValueError('täglich ☃')\n", FIRST, "ValueError: täglich ☃"),
    "module missing": ("import no_such_module_of_ours\n", FIRST, "ModuleNotFoundError: No module named"),
    "evaluated": ("exec('def f(:')\n", FIRST, "SyntaxError: invalid syntax"),
}


@pytest.mark.parametrize("kind", REAL)
def test_tracebacks_of_the_interpreter(tmp_path: Path, kind: str) -> None:
    script, first, last = REAL[kind]
    noise = "epoch 1\nepoch 2\n"
    found = last_traceback(noise + logged(tmp_path, script) + "shutting down\nbye\n").splitlines()
    assert found[0] == first
    assert found[-1].startswith(last)
    assert reason(tmp_path, logged(tmp_path, script)).startswith(f"rank 0 exited with status 1 ({last}")


@pytest.mark.parametrize("how", ["raise KeyError('b') from error", "raise KeyError('b')"])
def test_a_chain_is_one_traceback(tmp_path: Path, how: str) -> None:
    text = logged(tmp_path, f"try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    {how}\n")
    found = last_traceback(text + "\nafterwards\n")
    assert found == text.strip()
    assert found.count(FIRST) == 2


def test_a_long_chain_is_one_traceback(tmp_path: Path) -> None:
    script = (
        "def f(n):\n    try:\n        if n:\n            f(n - 1)\n        else:\n            1 / 0\n"
        "    except Exception as e:\n        raise ValueError(n) from e\nf(4)\n"
    )
    text = logged(tmp_path, script)
    assert last_traceback(text) == text.strip()
    assert last_traceback(text).count(FIRST) == 6


def test_of_two_tracebacks_the_last_counts(tmp_path: Path) -> None:
    one, two = logged(tmp_path, "raise ValueError(1)\n"), logged(tmp_path, "raise KeyError(2)\n")
    assert last_traceback(f"{one}retrying\n{two}") == two.strip()
    assert last_traceback(one + two) == two.strip()
    assert reason(tmp_path, one + two).endswith("(KeyError: 2)")


def test_a_traceback_without_its_end_is_kept(tmp_path: Path) -> None:
    text = f'{FIRST}\n  File "x.py", line 1, in <module>\n    f()\n'
    assert last_traceback(text) == text.rstrip("\n")
    assert reason(tmp_path, text) == "rank 0 exited with status 1"


TORCH = (
    f'{FIRST}\n  File "train.py", line 7, in <module>\n    model.load_state_dict(state)\n'
    "RuntimeError: Error(s) in loading state_dict for Net:\n"
    '\tMissing key(s) in state_dict: "a.weight".\n'
    "\tsize mismatch for b.weight: copying a param with shape torch.Size([2]) from checkpoint.\n"
)


def test_messages_of_several_lines_give_their_first(tmp_path: Path) -> None:
    assert reason(tmp_path, TORCH).endswith("(RuntimeError: Error(s) in loading state_dict for Net:)")


CUDA = (
    f'{FIRST}\n  File "train.py", line 7, in <module>\n    loss.item()\n'
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
    "CUDA kernel errors might be asynchronously reported at some other API call.\n"
    "For debugging consider passing CUDA_LAUNCH_BLOCKING=1\n"
)


def test_torchs_own_errors_are_found(tmp_path: Path) -> None:
    expected = "(torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.)"
    assert reason(tmp_path, CUDA).endswith(expected)
    assert reason(tmp_path, CUDA.replace("\n", "\r\n")).endswith(expected)


def test_an_indented_traceback_is_found(tmp_path: Path) -> None:
    text = "".join(f"    {line}\n" for line in TORCH.splitlines()[:4])
    assert last_traceback(f"worker said:\n{text}done\n").strip().startswith(FIRST)
    assert "RuntimeError: Error(s)" in reason(tmp_path, f"worker said:\n{text}done\n")


def test_a_progress_bar_before_the_traceback_does_not_hide_it(tmp_path: Path) -> None:
    assert "OutOfMemoryError" in reason(tmp_path, f"  0%|   | 0/9\r 10%|#  | 1/9\r{CUDA}")


@pytest.mark.parametrize("left", [" 80%|####      | 4/5 [00:01<00:00]", "epoch 3 ... ", "continue? [rank0]: "])
def test_an_unfinished_line_before_the_traceback_does_not_hide_it(tmp_path: Path, left: str) -> None:
    script = f"import sys\nsys.stderr.write({left!r})\nsys.stderr.flush()\nraise ValueError('loss is nan')\n"
    text = logged(tmp_path, script)
    assert text.startswith(f"{left}{FIRST}")
    assert reason(tmp_path, text) == "rank 0 exited with status 1 (ValueError: loss is nan)"
    assert last_traceback(text) == text.removeprefix(left.replace("[rank0]: ", "")).removeprefix("[rank0]: ").strip()


def test_ranks_that_torch_prefixes_are_found(tmp_path: Path) -> None:
    text = "".join(f"[rank0]: {line}\n" for line in CUDA.splitlines())
    assert "torch.OutOfMemoryError: CUDA out of memory." in reason(tmp_path, f"start\n{text}")


def test_a_syntax_error_of_the_script_is_found(tmp_path: Path) -> None:
    text = logged(tmp_path, "print('a')\ndef f(:\n    pass\n")
    assert reason(tmp_path, f"noise\n{text}") == "rank 0 exited with status 1 (SyntaxError: invalid syntax)"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with Python 3.11")
def test_an_exception_group_is_found(tmp_path: Path) -> None:
    text = logged(tmp_path, "raise ExceptionGroup('several', [ValueError(1), KeyError('b')])\n")
    assert "ExceptionGroup: several (2 sub-exceptions)" in reason(tmp_path, text)
    assert "ExceptionGroup: several (2 sub-exceptions)" in reason(tmp_path, f"80%|###{text}")
    assert last_traceback(f"80%|###{text}") == last_traceback(text)


@pytest.mark.parametrize("text", ["", "\n", "all fine\n", "Traceback\n", "the Traceback (most recent call last): is\n"])
def test_no_traceback_is_no_traceback(tmp_path: Path, text: str) -> None:
    assert last_traceback(text) == ""
    assert reason(tmp_path, text, 3) == "rank 0 exited with status 3"


def test_a_missing_log_is_no_reason_to_fail(tmp_path: Path) -> None:
    found = report(2, "here", -11, tail(tmp_path / "none.log"))
    assert found == {
        "rank": 2,
        "node": "here",
        "exit_code": None,
        "signal": "SIGSEGV",
        "out_of_memory": False,
        "reason": "rank 2 was killed by SIGSEGV",
        "traceback": "",
        "last_lines": [],
    }


def test_junk_around_a_traceback_does_not_matter(tmp_path: Path) -> None:
    draw = random.Random(3)
    for _ in range(20):
        junk = draw.randbytes(draw.randint(0, 5000))
        found = reason(tmp_path, junk + b"\n" + CUDA.encode() + draw.randbytes(500).replace(b"Trace", b""))
        assert "torch.OutOfMemoryError: CUDA" in found


def test_only_the_end_of_a_huge_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "rank_0.log"
    with log.open("wb") as handle:
        handle.truncate(4 << 30)  # sparse
        handle.seek(0, 2)
        handle.write(b"\n" + CUDA.encode())
    found = report(0, "here", 1, tail(log))
    assert "OutOfMemoryError" in found["reason"]
    assert sum(map(len, found["last_lines"])) < 1 << 20
    assert len(tail(log, 10)) == 10


def test_long_things_are_cut(tmp_path: Path) -> None:
    frames = "".join(f'  File "x.py", line {number}, in f\n    f()\n' for number in range(1000))
    found = f"{FIRST}\n{frames}ValueError: {'x' * 10_000}\n"
    assert len(last_traceback(found).splitlines()) == 200
    assert last_traceback(found).splitlines()[-1].startswith("ValueError: xxx")
    assert len(reason(tmp_path, found)) < 600


def test_the_last_lines_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "rank_0.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    assert report(0, "n", 1, tail(log))["last_lines"] == [f"line {number}" for number in range(80, 100)]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (1, "exited with status 1"),
        (2, "exited with status 2"),
        (126, "exited with status 126"),
        (127, "exited with status 127 (command not found)"),
        (128, "exited with status 128"),
        (130, "exited with status 130 (SIGINT)"),
        (137, "exited with status 137 (SIGKILL)"),
        (139, "exited with status 139 (SIGSEGV)"),
        (143, "exited with status 143 (SIGTERM)"),
        (255, "exited with status 255"),
        (-9, "was killed by SIGKILL"),
        (-15, "was killed by SIGTERM"),
        (-11, "was killed by SIGSEGV"),
        (-64, "was killed by SIGRTMAX"),
        (-50, "was killed by signal 50"),
    ],
)
def test_exits_are_described(code: int, text: str) -> None:
    assert describe_exit(code) == text


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        ("usage: a.py [-h]\na.py: error: unrecognized arguments: --x\n", 2, " (unrecognized arguments: --x)"),
        ("[rank0]: a.py: error: no lr\n", 2, " (no lr)"),
        ("a.py: error: no lr\n", 3, ""),
        ("a.py: error: no lr\nmore\n", 2, ""),
        ("", 2, ""),
    ],
)
def test_a_script_that_refuses_its_arguments_is_quoted(text: str, code: int, reason: str) -> None:
    assert report(0, "a", code, text)["reason"] == f"rank 0 exited with status {code}{reason}"
