"""Which variables are secret, and that their values are replaced in every form we write."""

from __future__ import annotations

import json

import pytest

from mlflow_pytorch_estimator.secretvalues import Concealer, without_password

VALUE = "s3cr3t-v4lue"


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "PGPASSWD", "AWS_SECRET_ACCESS_KEY", "api_key", "My_Credential", "TOKEN"],
)
def test_variables_named_like_secrets_are_secret(name: str) -> None:
    assert Concealer.from_environ({name: VALUE}).values == {VALUE: name}


@pytest.mark.parametrize("name", ["HOME", "MLFLOW_TRACKING_URI", "USER", "PATH", ""])
def test_others_are_not(name: str) -> None:
    assert Concealer.from_environ({name: VALUE}).values == {}


@pytest.mark.parametrize("value", ["", "1", "true", "1234567", "/etc/ssl/key.pem", "./key.pem", "~/key.pem"])
def test_switches_counts_and_paths_are_no_secrets(value: str) -> None:
    assert Concealer.from_environ({"TOKEN": value}).values == {}


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", VALUE)
    assert Concealer.from_environ().conceal(f"a{VALUE}b{VALUE}") == "a<HF_TOKEN>b<HF_TOKEN>"


def test_longer_values_go_first() -> None:
    environ = {"A_TOKEN": "abcdefgh", "B_TOKEN": "abcdefghij", "C_TOKEN": "xxabcdefghijxx"}
    text = Concealer.from_environ(environ).conceal("abcdefgh abcdefghij xxabcdefghijxx")
    assert text == "<A_TOKEN> <B_TOKEN> <C_TOKEN>"


def test_nothing_secret_changes_nothing() -> None:
    assert Concealer({}).conceal("text") == "text"


@pytest.mark.parametrize("value", ['quote"quote', "back\\slash", "line\nbreak", "a tab\ta tab"])
def test_values_are_concealed_inside_json_too(value: str) -> None:
    text = json.dumps({"last_lines": [f"token {value} was refused"]}, ensure_ascii=False)
    concealed = Concealer.from_environ({"HF_TOKEN": value}).conceal(text)
    assert json.loads(concealed) == {"last_lines": ["token <HF_TOKEN> was refused"]}


@pytest.mark.parametrize(
    ("uri", "bare"),
    [
        ("https://me:pw@example.org/x", "https://example.org/x"),
        ("http://token@example.org", "http://example.org"),
        ("git+https://me:pw@example.org/x.git#a", "git+https://example.org/x.git#a"),
        ("https://example.org/x", "https://example.org/x"),
        ("https://example.org/a@b", "https://example.org/a@b"),
        ("git@example.org:me/x.git", "git@example.org:me/x.git"),
        (
            "cannot reach https://me:pw@a.org/ and https://you:pw@b.org/",
            "cannot reach https://a.org/ and https://b.org/",
        ),
        ("/local/path@2", "/local/path@2"),
    ],
)
def test_passwords_leave_uris(uri: str, bare: str) -> None:
    assert without_password(uri) == bare
