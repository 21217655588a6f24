"""The documents of the estimator API against the code: every name, every row, every block."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from mlflow.tracking import MlflowClient

import mlflow_pytorch_estimator as package
from mlflow_pytorch_estimator import (
    AmlCompute,
    ComputeTarget,
    CondaDependencies,
    DataInput,
    Environment,
    Experiment,
    Gloo,
    Model,
    Mpi,
    MpiConfiguration,
    Nccl,
    PyTorch,
    PyTorchConfiguration,
    Run,
    ScriptRunConfig,
    Workspace,
    errors,
)
from mlflow_pytorch_estimator.errors import GpuClusterError
from mlflow_pytorch_estimator.estimator import exceptions
from mlflow_pytorch_estimator.estimator.compute.status import AmlComputeStatus
from mlflow_pytorch_estimator.status import Phase
from mlflow_pytorch_estimator.widgets import RunDetails

GUIDE, MIGRATION = ROOT / "docs/estimator.md", ROOT / "docs/migration.md"
EXAMPLES = ROOT / "examples/migration"

# Heading of a table -> our classes that it is about, and the public names of the original.
CLASSES: dict[str, tuple[type, ...]] = {
    "PyTorch": (PyTorch,),
    "Distribution": (Mpi, MpiConfiguration, Gloo, Nccl, PyTorchConfiguration),
    "Run": (Run,),
    "Experiment": (Experiment,),
    "Workspace": (Workspace,),
    "Model": (Model,),
    "Environment": (Environment,),
    "CondaDependencies": (CondaDependencies,),
    "RunConfiguration": (),
    "ScriptRunConfig": (ScriptRunConfig,),
    "ComputeTarget": (ComputeTarget,),
    "AmlCompute": (AmlCompute,),
    "AmlComputeStatus": (AmlComputeStatus,),
    "Others": (DataInput, RunDetails),
}
ORIGINAL = {
    "PyTorch": """PyTorch FRAMEWORK_NAME DEFAULT_VERSION get_supported_versions source_directory run_config
        conda_dependencies framework_version custom_docker_base_image conda_dependencies_file_path
        pip_requirements_file_path _enable_optimized_mode _disable_validation _show_lint_warnings
        _show_package_warnings""",
    "Distribution": """Mpi Gloo Nccl ParameterServer MpiConfiguration PyTorchConfiguration TensorflowConfiguration
        ParallelTaskConfiguration AZ_BATCHAI_PYTORCH_INIT_METHOD AZ_BATCHAI_TASK_INDEX""",
    "Run": """Run get_context get_submitted_run log log_list log_row log_table log_image log_confusion_matrix
        log_accuracy_table log_residuals log_predictions get_metrics get_status status get_detailed_status
        wait_for_completion get_details get_details_with_logs get_all_logs get_file_names download_file download_files
        upload_file upload_files upload_folder register_model tag set_tags remove_tags get_tags tags add_properties
        get_properties properties child_run create_children submit_child get_children parent start complete fail
        cancel flush clean take_snapshot restore_snapshot get_snapshot_id get_environment get_secret get_secrets get
        list list_by_compute add_type_provider get_portal_url id name display_name description type number experiment
        input_datasets output_datasets""",
    "Experiment": """Experiment submit start_logging get_runs list archive reactivate delete tag set_tags remove_tags
        refresh from_directory get_docs_url name id archived_time workspace workspace_object tags""",
    "Workspace": """Workspace from_config get create list setup write_config get_details delete update name
        subscription_id resource_group location tags sku compute_targets experiments models environments datastores
        datasets webservices images get_default_compute_target get_run get_mlflow_tracking_uri get_default_datastore
        set_default_datastore get_default_keyvault list_keys sync_keys get_connection set_connection list_connections
        delete_connection add_private_endpoint delete_private_endpoint_connection private_endpoints discovery_url
        service_context linked_services diagnose_workspace update_dependencies DEFAULT_CPU_CLUSTER_NAME
        DEFAULT_GPU_CLUSTER_NAME DEFAULT_CPU_CLUSTER_CONFIGURATION DEFAULT_GPU_CLUSTER_CONFIGURATION""",
    "Model": """Model register list get_model_path download update add_tags remove_tags add_properties
        update_tags_properties delete deploy package profile serialize deserialize name version id tags properties
        description run_id run created_time model_framework model_framework_version url workspace Framework
        get_sas_urls print_configuration datasets add_dataset_references sample_input_dataset sample_output_dataset
        resource_configuration mime_type created_by experiment_name parent_id unpack""",
    "Environment": """Environment get list register build build_local clone from_conda_specification
        from_pip_requirements from_existing_conda_environment from_docker_image from_dockerfile
        from_docker_build_context save_to_directory load_from_directory label get_image_details add_private_pip_wheel
        name version environment_variables python docker spark r databricks inferencing_stack_version""",
    "CondaDependencies": """CondaDependencies create add_conda_package remove_conda_package add_pip_package
        remove_pip_package add_channel remove_channel set_pip_requirements set_pip_option set_pip_index_url
        set_python_version serialize_to_string save save_to_file conda_packages pip_packages pip_options
        conda_channels remove_pip_option get_python_version as_dict merge_requirements
        get_default_number_of_packages add_tensorflow_pip_package add_tensorflow_conda_package add_cntk_package""",
    "RunConfiguration": """RunConfiguration script arguments target framework communicator max_run_duration_seconds
        node_count priority environment history spark docker hdi tensorflow mpi pytorch paralleltask data_references
        data datacaches output_data source_directory_data_store amlcompute kubernetescompute credential_passthrough
        command environment_variables services save load""",
    "ScriptRunConfig": """ScriptRunConfig source_directory script arguments run_config compute_target environment
        distributed_job_config resume_from max_run_duration_seconds command docker_runtime_config""",
    "ComputeTarget": """ComputeTarget create attach list wait_for_completion refresh_state get_status get_active_runs
        delete detach serialize deserialize name type workspace tags description created_on modified_on id location
        cluster_location cluster_resource_id provisioning_state provisioning_errors DsvmCompute RemoteCompute
        HDInsightCompute BatchCompute AksCompute DatabricksCompute AdlaCompute DataFactoryCompute KubernetesCompute
        ComputeInstance SynapseCompute KustoCompute""",
    "AmlCompute": """AmlCompute provisioning_configuration vm_size vm_priority min_nodes max_nodes
        idle_seconds_before_scaledown admin_username admin_user_password admin_user_ssh_key vnet_resourcegroup_name
        vnet_name subnet_name tags description remote_login_port_public_access identity_type identity_id location
        enable_node_public_ip wait_for_completion get_status update list_nodes get_active_runs add_identity
        remove_identity supported_vmsizes list_usages list_quotas update_quotas scale_settings status subnet_id""",
    "AmlComputeStatus": """allocation_state allocation_state_transition_time creation_time current_node_count
        target_node_count errors modified_time node_state_counts provisioning_state scale_settings vm_priority vm_size
        serialize""",
    "Others": """HyperDriveConfig HyperDriveRun RunDetails Dataset Datastore DataReference DataPath
        OutputFileDatasetConfig Estimator TensorFlow Keras SKLearn Chainer ContainerRegistry DockerConfiguration""",
}
# Public on instances only, or on the class that a target really is.
ON_INSTANCES = {
    "Run": {"files"},
    "Workspace": {"name", "home", "stores"},
    "Environment": {"name", "version", "environment_variables", "python", "docker"},
    "ComputeTarget": {
        *("name", "workspace", "type", "get_status", "wait_for_completion", "serialize"),
        *("provisioning_state", "provisioning_errors"),
    },
    "AmlCompute": {"min_nodes", "max_nodes"},
    "AmlComputeStatus": set(AmlComputeStatus.__dataclass_fields__),
}


@cache
def section(heading: str) -> str:
    """The text of one table."""
    full = GUIDE.read_text(encoding="utf-8").partition("\n## The full table\n")[2]
    return re.split(r"\n##+ ", full.partition(f"\n### {heading}\n")[2])[0]


@cache
def rows(heading: str) -> dict[str, str]:
    """Original name -> what the row says that it is here."""
    found = {}
    for line in section(heading).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("| `") else []
        for name in re.findall(r"`(\w+)`", cells[0]) if cells else ():
            assert name not in found, f"{heading}.{name} has two rows"
            found[name] = cells[1]
    return found


def names_of(kind: type) -> set[str]:
    """The public attributes of a class."""
    return {name for name in dir(kind) if not name.startswith("_")}


def python_blocks() -> Iterator[str]:
    for document in (GUIDE, MIGRATION, ROOT / "README.md"):
        yield from re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("heading", ORIGINAL)
def test_every_name_of_the_original_has_a_row(heading: str) -> None:
    assert set(ORIGINAL[heading].split()) - set(rows(heading)) == set()
    assert set(rows(heading)) - set(ORIGINAL[heading].split()) == set()
    assert [name for name, here in rows(heading).items() if not here] == []


@pytest.mark.parametrize("heading", [heading for heading, classes in CLASSES.items() if classes])
def test_every_public_attribute_is_named(heading: str) -> None:
    tables = [heading, "ComputeTarget"] if heading == "AmlCompute" else [heading]  # what it inherits has its rows there
    known = {name for table in tables for name in re.findall(r"`(\w+)`", section(table))}
    for kind in CLASSES[heading]:
        assert names_of(kind) - known == set(), kind
    assert ON_INSTANCES.get(heading, set()) - known == set()


@pytest.mark.parametrize("heading", [heading for heading, classes in CLASSES.items() if classes])
def test_a_row_says_not_here_if_and_only_if_it_is_not_here(heading: str) -> None:
    parameters: dict[str, Any] = {
        "AmlCompute": AmlCompute.provisioning_configuration,
        "ScriptRunConfig": ScriptRunConfig,
    }
    ours = set(package.__all__) | ON_INSTANCES.get(heading, set())
    ours |= {name for kind in CLASSES[heading] for name in (kind.__name__, *names_of(kind))}
    ours |= set(inspect.signature(parameters[heading]).parameters) if heading in parameters else set()
    claimed = {name for name, here in rows(heading).items() if not here.startswith("not here")}
    assert claimed == ours & set(rows(heading))


def test_what_is_said_to_raise_raises() -> None:
    said: set[tuple[str, str]] = set()
    refusing: set[tuple[str, str]] = set()
    for heading, classes in CLASSES.items():
        if heading != "ScriptRunConfig":  # its parameters; the next test
            said |= {(heading, name) for name, here in rows(heading).items() if here.startswith("raises:")}
        refusing |= {(heading, name) for kind in classes for name in names_of(kind) if _never_returns(kind, name)}
    assert said == refusing


def _never_returns(kind: type, name: str) -> bool:
    member = getattr(kind, name)
    return inspect.isfunction(member) and inspect.signature(member).return_annotation == "NoReturn"


def test_refused_parameters_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    estimator: dict[str, Any] = {"compute_target": "local", "entry_script": "train.py", "user_managed": True}
    script: dict[str, Any] = {"script": "train.py"}
    text = GUIDE.read_text(encoding="utf-8")
    refused = re.findall(r"^\| `(\w+)` \| `None` \| refused", text, re.MULTILINE)
    assert len(refused) == 3
    for name in refused:
        of_estimator = name in inspect.signature(PyTorch).parameters
        kind: Any = PyTorch if of_estimator else ScriptRunConfig
        with pytest.raises(GpuClusterError, match=name):
            kind(tmp_path, **(estimator if of_estimator else script), **{name: object()})


@pytest.mark.parametrize("kind", [PyTorch, ScriptRunConfig])
def test_every_parameter_has_its_default(kind: type) -> None:
    text = GUIDE.read_text(encoding="utf-8").partition("\n## The full table\n")[0]
    part = text.partition("\n## ScriptRunConfig\n")[0 if kind is PyTorch else 2]
    table = dict(re.findall(r"^\| `(\w+)` \| `?([^`|]+?)`?(?:: [^|]*)? \| ", part, re.MULTILINE))
    for name, parameter in inspect.signature(kind).parameters.items():
        said = {"30 days": "2592000"}.get(table[name], table[name])
        assert said == str(parameter.default), name


def test_every_public_name_of_the_package_is_named() -> None:
    known = set(re.findall(r"`(?:errors\.)?(\w+)`", GUIDE.read_text(encoding="utf-8")))
    assert set(package.__all__) - known == set()


def test_every_error_has_a_row() -> None:
    table = GUIDE.read_text(encoding="utf-8").partition("\n## Errors\n")[2].partition("\n## ")[0]
    said = set(re.findall(r"`(?:errors\.)?(\w+)`", "".join(re.findall(r"^\|.*? \|", table, re.MULTILINE))))
    assert said <= {*vars(errors), *vars(exceptions)}
    assert {name for name, kind in vars(exceptions).items() if _is_own(kind)} <= said


def _is_own(kind: object) -> bool:
    return isinstance(kind, type) and kind.__module__ == exceptions.__name__


def test_every_status_has_a_row() -> None:
    said: dict[str, str] = {}
    for names, theirs in re.findall(
        r"^\| ((?:`[A-Z]\w+`(?:, )?)+) \| .* \| ([A-Z, ]+) \|$", section_of_runs(), re.MULTILINE
    ):
        found, meant = re.findall(r"\w+", names), theirs.split(", ")
        said |= zip(found, meant * (len(found) if len(meant) == 1 else 1), strict=True)
    assert said == {str(phase): phase.mlflow_status for phase in Phase}


def section_of_runs() -> str:
    return GUIDE.read_text(encoding="utf-8").partition("\n## Run\n")[2].partition("\n## ")[0]


def test_python_blocks_import_what_exists() -> None:
    blocks = list(python_blocks())
    assert blocks
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_first_lines_are_the_examples() -> None:
    example = (ROOT / "examples/estimator/train_with_estimator.py").read_text(encoding="utf-8")

    def calls(text: str) -> set[str]:
        nodes = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
        return {ast.unparse(node.func) for node in nodes}

    first = next(python_blocks())
    assert calls(first.replace('Experiment(workspace, name="pytorch-birds").submit', "experiment.submit")) <= calls(
        example
    )
    estimator = next(
        node
        for node in ast.walk(ast.parse(first))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "PyTorch"
    )
    folder = ast.literal_eval(estimator.args[0])
    options = {str(item.arg): item.value for item in estimator.keywords}
    assert (ROOT / folder / ast.literal_eval(options["entry_script"])).is_file()


def test_links_lead_somewhere() -> None:
    for document in (GUIDE, MIGRATION):
        text = document.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)", text):
            assert (document.parent / target).exists(), target
        for name, anchor in re.findall(r"\]\(([\w.]*)#([\w-]+)\)", text):
            headings = re.findall(r"^##+ (.+)$", (document.parent / (name or document.name)).read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs


@cache
def differences() -> dict[str, tuple[str, str]]:
    """Path -> the block of the migration page before and after."""
    found = {}
    for path, body in re.findall(
        r"```diff\n--- a/\S+\n\+\+\+ b/(\S+)\n(.*?)```", MIGRATION.read_text(encoding="utf-8"), re.DOTALL
    ):
        lines = body.splitlines()
        changed = [line for line in lines if line[:1] in {"+", "-"}]
        assert all(re.match(r"[+-](from|import) ", line) for line in changed), changed
        before, after = ("\n".join(line[1:] for line in lines if line[:1] != sign) for sign in "+-")
        found[path] = before, after
    return found


def test_the_migration_page_changes_imports_only() -> None:
    assert set(differences()) == {
        str(path.relative_to(ROOT)) for path in [EXAMPLES / "submit.py", EXAMPLES / "training/train_sides.py"]
    }
    for path, (before, after) in differences().items():
        moved = (ROOT / path).read_text(encoding="utf-8")
        assert moved.count(after) == 1
        old = moved.replace(after, before)
        assert "azureml" in old
        assert "azureml" not in moved
        assert _imported(old, "azureml") == _imported(moved, "mlflow_pytorch_estimator") != set()


def _imported(text: str, source: str) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    return {alias.name for node in nodes if str(node.module).startswith(source) for alias in node.names}


def test_the_moved_scripts_run(store: MlflowClient, tmp_path: Path) -> None:
    moved = runpy.run_path(str(EXAMPLES / "submit.py"))
    (tmp_path / ".azureml").mkdir()
    (tmp_path / ".azureml/config.json").write_text(
        '{"subscription_id": "0000", "resource_group": "group", "workspace_name": "my-workspace"}'
    )
    workspace = Workspace.from_config()
    assert (workspace.name, workspace.get_mlflow_tracking_uri()) == ("my-workspace", f"sqlite:///{tmp_path}/mlflow.db")
    target = moved["find_or_create"](workspace, "gpu-cluster")
    assert (target.name, target.scale_settings.maximum_node_count) == ("gpu-cluster", 4)
    assert moved["find_or_create"](workspace, "gpu-cluster").created_on == target.created_on
    job = moved["describe"](target).describe()
    assert job.source.words == ("python", "train_sides.py", "--num_epochs", "3", "--output_dir", "./outputs")

    # The same script with the interpreter that is there, because building its environment takes long.
    estimator = PyTorch(
        EXAMPLES / "training", compute_target=target, entry_script="train_sides.py", user_managed=True,
        script_params={"--num_epochs": 3, "--output_dir": "./outputs"},
    )  # fmt: skip
    run = Experiment(workspace, name="moved").submit(estimator)
    details = run.wait_for_completion()
    said = (
        GUIDE.read_text(encoding="utf-8").partition("`get_details()` has the keys")[2].partition("`logFiles` maps")[0]
    )
    assert list(details) == re.findall(r"`(\w+)`", said)
    metrics = run.get_metrics()
    assert metrics["lr"] == 0.5
    assert len(metrics["best_val_acc"]) == 3
    model = run.register_model(model_name="pt-dnn", model_path="outputs/")
    assert (model.name, model.id, model.version) == ("pt-dnn", "pt-dnn:1", 1)
    for name in run.get_file_names():
        if name.startswith("outputs/model"):
            run.download_file(name)
    assert (tmp_path / "model.pt").stat().st_size > 1000


def test_the_moved_training_script_runs_alone(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "GPU_CLUSTER"))}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "training/train_sides.py"), "--num_epochs", "1"],
        cwd=tmp_path, env=environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "best_val_acc = " in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
