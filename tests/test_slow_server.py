"""A tracking server that takes three seconds for each answer: it costs the submission, and nothing else."""

from __future__ import annotations

import time
from pathlib import Path

from conftest import Project, submit, wait_until
from gateway import Gateway
from mlflow.tracking import MlflowClient

SECONDS = 3.0
SCRIPT = (
    "import time\nbegan = time.monotonic()\nfor _ in range(20):\n    print('step', flush=True)\n    time.sleep(0.1)\n"
)


def test_a_server_that_answers_slowly_holds_up_no_job(through: Gateway, project: Project) -> None:
    project.script(f"{SCRIPT}print('took', time.monotonic() - began)\n")
    through.seconds = SECONDS
    running = submit(project)
    asked = len(through.asked)
    assert asked <= 8, through.asked  # each costs whoever submits three seconds
    wait_until(lambda: running.directory.outcome is not None, 60, "the end of the job")
    events = {str(event.phase): event.time for event in running.directory.events()}
    log = running.directory.rank_log(0).read_text().split()
    # At least five calls are about a job that runs: they would take longer.
    assert float(log[-1]) < 5 * SECONDS, "it is not held up by what is said about it"
    assert events["Finalizing"] - events["Running"] < 5 * SECONDS
    assert running.directory.outcome is not None
    wait_until(running.directory.delivered.exists, 150, "the delivery")
    through.seconds = 0.0
    client = MlflowClient()
    run = client.get_run(running.run_id)
    assert (run.info.status, run.data.tags["gpu_cluster.status"]) == ("FINISHED", "Completed")
    assert Path(client.download_artifacts(running.run_id, "logs/rank_0.log")).read_text().count("step") == 20
    began = time.monotonic()
    assert running.wait()
    assert time.monotonic() - began < 5 * SECONDS
