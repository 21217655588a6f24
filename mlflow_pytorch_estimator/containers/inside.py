"""What happens in a container before and around the rank's command, in plain shell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

LIBRARY = "GPU_CLUSTER_LIBRARY"
"""Variable: the folder with this package, put before the image's own ``PYTHONPATH``."""
RENAMED = "GPU_CLUSTER_INSIDE"
"""Variable, and prefix of variables: what is set for the command alone, not for the client that starts it."""
_OF_THE_CLIENT = frozenset({"HOME", "LD_LIBRARY_PATH", "LD_PRELOAD", "PATH", "TMPDIR"})
_PREFIXES_OF_THE_CLIENT = ("CONTAINER", "DOCKER_", "XDG_")

# bash where the image has it: only with job control does the command get a process group of its own.
_BOOT = 'exec "$(command -v bash || command -v sh)" -c "$@"'
# What the shell itself says (`[1]+  Done`) must not reach the log: only the command has the container's standard error.
# The first process of a container ignores signals that it has no handler for, so the command must not be the first.
_SCRIPT = """\
export PYTHONPATH="$GPU_CLUSTER_LIBRARY${PYTHONPATH:+:$PYTHONPATH}"
for name in $GPU_CLUSTER_INSIDE; do
  eval "export $name=\\"\\$GPU_CLUSTER_INSIDE_$name\\"; unset GPU_CLUSTER_INSIDE_$name"
done
if [ "$1" = bash ] && [ -z "$BASH_VERSION" ]; then shift; set -- sh "$@"; fi
child= ended=
end() {
  ended=1
  [ -z "$child" ] || kill -s TERM -- "-$child" 2>/dev/null || kill -s TERM "$child" 2>/dev/null
}
trap end TERM
exec 3>&2 2>/dev/null
[ -z "$BASH_VERSION" ] || set -m
"$@" 2>&3 3>&- &
child=$!
[ -z "$BASH_VERSION" ] || set +m
[ -z "$ended" ] || end
while :; do
  wait "$child"
  status=$?
  kill -0 "$child" 2>/dev/null || break
done
if [ "$status" != 0 ] && ! python -c 'import mlflow' >/dev/null 2>&1; then
  echo "gpu-cluster: the image has no \\`python\\` that can import mlflow; scripts that use it need it there" >&3
fi
exit "$status"
"""


def enter(argv: Sequence[str]) -> tuple[str, ...]:
    """The command of the container: it passes SIGTERM on to all of ``argv`` and ends as that ends."""
    return ("sh", "-c", _BOOT, "sh", _SCRIPT, "gpu-cluster", *argv)


def is_of_the_client(name: str) -> bool:
    """Whether a variable changes what docker or podman itself does."""
    return name in _OF_THE_CLIENT or name.startswith(_PREFIXES_OF_THE_CLIENT)


def renamed(variables: Mapping[str, str]) -> dict[str, str]:
    """The user's variables for a container, under other names where they would change what the client does."""
    clashing = sorted(filter(is_of_the_client, variables))
    plain = {name: value for name, value in variables.items() if name not in clashing}
    if not clashing:
        return plain
    return {**plain, RENAMED: " ".join(clashing), **{f"{RENAMED}_{name}": variables[name] for name in clashing}}
