"""``RunDetails`` in real notebooks: JupyterLab in Chromium, and nbconvert."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import notebooks
from conftest import wait_until
from mlflow.tracking import MlflowClient

SCRIPT = """\
import os, time
rank = os.environ["RANK"]
print(f"<b>rank {rank} begins</b>", flush=True)
if rank == "0":
    from mlflow_pytorch_estimator import Run
    for step in range(30):
        Run.get_context().log("loss", 1 / (step + 1))
for line in range(10**6):
    print(f"rank {rank} line {line}", flush=True)
    time.sleep(0.1)
"""
SUBMIT = """\
import threading, time
from mlflow_pytorch_estimator import Environment, Experiment, PyTorchConfiguration, ScriptRunConfig, Workspace
from mlflow_pytorch_estimator.widgets import RunDetails
python = Environment("python")
python.python.user_managed_dependencies = True
ranks = {ranks}
job = ScriptRunConfig({folder!r}, "train.py", environment=python, distributed_job_config=ranks)
run = Experiment(Workspace(), "birds").submit(job)
"""
THREADS = "print(sum(thread.name.startswith('RunDetails') for thread in threading.enumerate()), 'threads')"


def test_a_run_in_jupyterlab(store: MlflowClient, folder: Path, tmp_path: Path) -> None:
    (folder / "train.py").write_text(SCRIPT)
    cells = [
        SUBMIT.format(ranks='PyTorchConfiguration("Gloo", process_count=2)', folder=str(folder)),
        "RunDetails(run).show()",
        f"time.sleep(2); {THREADS}",
        "time.sleep(600)",
    ]
    notebooks.browser()
    with notebooks.lab(tmp_path / "lab") as address, notebooks.page() as page:
        notebooks.write(tmp_path / "lab/work/birds.ipynb", cells)
        notebook = notebooks.Notebook.opened(page, address.format("birds.ipynb"))
        notebook.execute(0)
        widget = notebook.cell(1)
        notebook.execute(1)
        widget.get_by_text("Running", exact=True).wait_for()
        widget.locator("svg polyline").wait_for()
        _the_log_of_rank_one_goes_on(notebook)
        # What it refreshes does not take the place of what other cells say.
        assert notebook.execute(2).inner_text().strip() == "2 threads"
        _a_reexecuted_cell_has_one_watch(notebook)
        _an_interrupt_ends_it(notebook)
        notebook.execute(1)
        _canceled_by_a_second_click(notebook)
        assert notebook.execute(2).inner_text().strip() == "0 threads"
        notebook.execute(1)  # once more, now that it has ended
        widget.get_by_text("Canceled", exact=True).wait_for()
        widget.locator("svg polyline").wait_for()
        assert not widget.locator("button", has_text="Cancel").is_visible()
        assert notebook.execute(2).inner_text().strip() == "0 threads"
    assert [run.info.status for run in store.search_runs([store.get_experiment_by_name("birds").experiment_id])] == [
        "KILLED"
    ]


def _the_log_of_rank_one_goes_on(notebook: notebooks.Notebook) -> None:
    widget = notebook.cell(1)
    widget.locator("select").select_option("logs/rank_1.log")
    log = widget.locator("pre", has_text="<b>rank 1 begins</b>")
    log.wait_for()
    before = log.inner_text()
    wait_until(lambda: widget.locator("pre").first.inner_text().count("line") > before.count("line"), 30, "more lines")
    assert "rank 0" not in widget.locator("pre").first.inner_text()


def _a_reexecuted_cell_has_one_watch(notebook: notebooks.Notebook) -> None:
    notebook.execute(1)
    notebook.cell(1).locator("svg polyline").wait_for()
    assert notebook.cell(1).locator(".gpu-cluster-run").count() == 1
    assert notebook.execute(2).inner_text().strip() == "2 threads"


def _an_interrupt_ends_it(notebook: notebooks.Notebook) -> None:
    notebook.execute(3, wait=False)
    notebook.page.wait_for_selector("#jp-main-statusbar >> text=/ipykernel.*Busy/")
    notebook.page.get_by_title("Interrupt the kernel").first.click()
    notebook.cell(1).get_by_text("the kernel was interrupted").wait_for()
    assert notebook.execute(2).inner_text().strip() == "0 threads"


def _canceled_by_a_second_click(notebook: notebooks.Notebook) -> None:
    widget = notebook.cell(1)
    widget.locator("button", has_text="Cancel the run").dblclick()  # by mistake
    again = widget.locator("button", has_text="Click again to cancel it")
    again.wait_for()
    widget.get_by_text("Running", exact=True).wait_for()
    notebook.page.wait_for_timeout(600)
    assert widget.get_by_text("Running", exact=True).is_visible()
    again.click()
    widget.get_by_text("Canceling", exact=True).or_(widget.get_by_text("Canceled", exact=True)).wait_for()
    widget.get_by_text("Canceled", exact=True).wait_for()
    assert not widget.locator("button", has_text="Cancel").is_visible()


def test_an_exported_notebook_has_the_picture(store: MlflowClient, folder: Path, tmp_path: Path) -> None:
    (folder / "train.py").write_text("from mlflow_pytorch_estimator import Run\nRun.get_context().log('loss', 0.25)\n")
    # The picture is drawn first, and anew when the run has ended in a later cell.
    cells = [SUBMIT.format(ranks=None, folder=str(folder)), "RunDetails(run).show()", "run.wait_for_completion()"]
    cells += ["while any(each.name.startswith('RunDetails') for each in threading.enumerate()): time.sleep(0.1)"]
    notebooks.write(tmp_path / "birds.ipynb", cells)
    command = ["jupyter", "nbconvert", "--to", "html", "--execute", "--allow-errors", "birds.ipynb"]
    environ = notebooks.environment(tmp_path / "jupyter")
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "birds.html").read_text(encoding="utf-8")
    assert "Traceback" not in page
    assert page.count('class="gpu-cluster-run"') == 1
    assert "background:#2e8540" in page  # Completed
    assert "0.25</strong></div><svg" in page
    assert "widget-view+json" not in page
