"""Two ranks with our Horovod train as one process does, and all operations of Horovod do what they say."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from horovod_checks import CHECKS
from horovod_ranks import Proof, prove

from mlflow_pytorch_estimator.launchers import rendezvous

NAMES = [check.__name__ for check in CHECKS]
ALONE = ("starting_again", "elastic_run")
"""Each needs ranks of its own: they meet more than once."""


@pytest.fixture(scope="module")
def proof(horovod_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Proof:
    return prove(horovod_python, tmp_path_factory.mktemp("ranks"), [name for name in NAMES if name not in ALONE])


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ALONE])
def test_two_ranks(proof: Proof, name: str) -> None:
    assert proof.reason(name) == ""


@pytest.mark.parametrize("name", ALONE)
def test_two_ranks_that_meet_again(horovod_python: Path, tmp_path: Path, name: str) -> None:
    assert prove(horovod_python, tmp_path, [name]).reason(name) == ""


def test_ranks_that_did_not_get_so_far_are_told(horovod_python: Path, tmp_path: Path) -> None:
    """Else a program that ends early would pass for a proof."""
    found = prove(horovod_python, tmp_path, ["nothing_of_that_name"])
    assert "rank 1 did not get so far" in found.reason("training")


def test_every_scope_is_forgotten_when_its_ranks_have_met(horovod_python: Path, tmp_path: Path) -> None:
    """Rank 0 is through with all its scopes before rank 1 says that it is: what ``starting_again`` meets by chance."""
    server = rendezvous.serve(str(horovod_python), "127.0.0.1", {"n": 2}, tmp_path / "log", os.environ, ())
    try:
        address = server.address(lambda: False)
        assert address is not None

        def ask(method: str, key: str) -> int:
            url = f"http://{address.host}:{address.port}/{key}"
            request = urllib.request.Request(url, b"somewhere" if method == "PUT" else None, method=method)
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own server
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                with error:
                    return error.code

        keys = ("local_n/0", "local_n/1", "cross_0/0", "cross_1/0")
        assert [ask("PUT", key) for key in keys] == [200] * 4
        assert ask("DELETE", "local_n/0") == 200
        assert ask("DELETE", "cross_0/0") == 200
        assert [ask("GET", key) for key in keys] == [200, 200, 404, 200]
        assert ask("DELETE", "local_n/1") == 200
        assert [ask("GET", key) for key in keys] == [404, 404, 404, 200]
        assert ask("DELETE", "cross_1/0") == 200
        assert ask("GET", "cross_1/0") == 404
    finally:
        server.process.send_signal(1)
        server.process.wait(20)
