# make demo   train, export, prove and register a model on this machine
# make test   everything that CI checks
PYTHON ?= python3
UV = .venv/bin/uv
OLDEST = 'mlflow==3.8.*' 'sqlalchemy<2.1' 'fastapi<0.120' 'starlette<0.49'

# Bytecode is written although the caller's shell may say otherwise: without it every `import mlflow` costs seconds.
unexport PYTHONDONTWRITEBYTECODE
unexport VIRTUAL_ENV

.PHONY: demo test check audit docs test-system test-oldest test-extended test-horovod-matrix test-chaos clean

demo: .venv/installed
	.venv/bin/mlflow run . -b gpu-cluster

test: check docs test-system test-oldest
	.venv-test/bin/python tests/horovod_built.py
	.venv-test/bin/python -m pytest -n 2 --dist loadfile -m "not extended" --durations=25

check: .venv-test/installed
	.venv-test/bin/ruff check .
	.venv-test/bin/ruff format --check .
	.venv-test/bin/mypy

# Known vulnerabilities of what the package brings along. It asks the advisory database, so it is no part of `test`.
audit: .venv/installed
	$(UV) tool run pip-audit --progress-spinner off --path $(wildcard .venv/lib/python3*/site-packages)

# The documentation as a site in site/; a link that leads nowhere is an error.
docs: .venv-test/installed
	.venv-test/bin/zensical build --strict --clean

# What tests need of the system (podman); where it cannot be installed, those tests skip.
test-system:
	@sh tests/setup/debian.sh

# The lower end of the supported range of MLflow, with packages of its time (MLflow 3.8 does not bound them, and
# fails with today's); `make test` runs everything on the upper end.
test-oldest: .venv-oldest/installed
	.venv-oldest/bin/python -m pytest -q -n 2 --dist loadfile tests/test_runs.py tests/test_models.py tests/test_workspace.py \
		tests/test_recording_store.py tests/test_registration.py tests/test_run_files.py \
		tests/test_cli.py tests/test_datasets.py tests/test_showing.py

# The other halves of the pairs of which `make test` runs one, see tests/extended.py: a quarter of an hour.
test-extended: .venv-test/installed
	.venv-test/bin/python tests/horovod_built.py
	.venv-test/bin/python -m pytest -n 2 --dist loadfile -m extended

# Horovod on old and new PyTorch: half an hour and 20 GB of downloads. VERSIONS="1.13 2.4" names some of them.
test-horovod-matrix: .venv-test/installed
	.venv-test/bin/python tests/horovod_matrix.py $(VERSIONS)

# A hundred seeded jobs of which a random process is killed: half an hour. PYTHON_OF_RANKS has torch and Horovod.
test-chaos: .venv-test/installed
	.venv-test/bin/python tests/chaos.py --python $(PYTHON_OF_RANKS) --seeds 0 100

.venv/installed: setup.cfg pyproject.toml $(shell find mlflow_pytorch_estimator -name '*.py')
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(UV) || { $(PYTHON) -m venv .venv && .venv/bin/python -m pip install --quiet --disable-pip-version-check uv; } || { echo "cannot create .venv (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@$(UV) pip install --quiet --python .venv/bin/python --reinstall-package mlflow-pytorch-estimator .
	@touch $@

.venv-test/installed: .venv/installed
	@$(UV) venv --quiet --clear --python .venv/bin/python .venv-test
	@$(UV) pip install --quiet --python .venv-test/bin/python -e '.[dev,onnx]' torchvision pillow matplotlib
	@touch $@

.venv-oldest/installed: .venv/installed
	@$(UV) venv --quiet --clear --python .venv/bin/python .venv-oldest
	@$(UV) pip install --quiet --python .venv-oldest/bin/python -e '.[dev,onnx]' torchvision $(OLDEST)
	@touch $@

clean:
	rm -rf site .cache .venv .venv-test .venv-oldest build *.egg-info
