#!/bin/sh
# System packages that tests use, on Debian and Ubuntu, where they are missing. Without them the tests that need them
# skip and say so; nothing here fails.
PATH="$PATH:/usr/sbin:/sbin"

missing=""
need() { # PROGRAM PACKAGE
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need podman podman   # runs the images of tests/test_container*.py
need runc runc       # for podman where its crun does not know the machine's control groups
need newuidmap uidmap # for podman without root
need mpirun openmpi-bin     # for Horovod with MPI
need mpicxx libopenmpi-dev  # the same
need sbatch slurm-wlm       # a cluster of the tests' own, on the loopback interface
need munged munge           # the same
need slurmdbd slurmdbd      # the same, with accounting
need mariadbd mariadb-server # the same
need chromium chromium      # for JupyterLab in tests/test_notebook.py

[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
    echo "not installed:$missing (this is no Debian: some tests will skip)" >&2
    exit 0
fi
if [ "$(id -u)" = 0 ]; then
    root=""
elif sudo -n true 2>/dev/null; then
    root="sudo -n"
else
    echo "not installed:$missing (some tests will skip): sudo apt-get install --no-install-recommends$missing" >&2
    exit 0
fi
echo "installing$missing"
apt() {
    # shellcheck disable=SC2086 - without root it is no word
    $root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::http::Timeout=20 -o Acquire::Retries=1 \
        -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 "$@" 2>&1
}
# shellcheck disable=SC2086 - a list of words
said=$(apt update && apt install -y --no-install-recommends $missing) ||
    echo "cannot install$missing (some tests will skip): $(echo "$said" | tail -n 1)" >&2
exit 0
