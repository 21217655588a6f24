"""The launch for each kind of distribution."""

from __future__ import annotations

from collections.abc import Sequence

from mlflow_pytorch_estimator.launchers import horovod, mpirun, ports, rendezvous, single, torchrun
from mlflow_pytorch_estimator.launchers.base import Address, Keeping, Meeting, RankCommand
from mlflow_pytorch_estimator.launchers.elastic import ElasticHorovod
from mlflow_pytorch_estimator.launchers.launch import Commands, Ground, Launch
from mlflow_pytorch_estimator.nodes.events import Ended


class Single(Launch):
    """One process."""

    def begin(self) -> Commands:
        """It."""
        return [(0, single.launch(self.ground.job, self.ground.layout.nodes[0]))]


class Torchrun(Launch):
    """A launcher of torch's on every node; with a least number of nodes, others may be lost and come back."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        host = ground.layout.nodes[0].address
        self._address = Address(host, ports.reserve(host))
        self._away: set[str] = set()

    def begin(self) -> Commands:
        """One for each node."""
        return [(number, self._on(number)) for number in range(len(self.ground.layout.nodes))]

    def more(self, fresh: Sequence[Ended], present: Sequence[str]) -> Commands:
        """One for a node that has come back."""
        self._away |= {event.node for event in fresh if event.rank is None}
        back = [
            number for number, node in enumerate(self.ground.layout.nodes) if node.node in self._away & set(present)
        ]
        self._away -= set(present)
        return [(number, self._on(number)) for number in back]

    def failed(self, ended: Sequence[Ended]) -> bool:
        """A launcher says it; a lost node is a failure where all are needed, or too few are left."""
        if any(event.exit_code for event in ended if event.launcher):
            return True
        least = self.ground.job.distribution.min_nodes
        lost = any(event.rank is None for event in ended)
        return lost and (least is None or len(self.ground.layout.nodes) - len(self._away) < least)

    def _on(self, number: int) -> tuple[RankCommand, ...]:
        ground, records = self.ground, self.ground.records(number)
        records.mkdir(parents=True, exist_ok=True)
        meeting = f"{ground.job.run_id}-{ground.attempt}"
        keeping = Keeping(ground.directory.logs, records)
        return torchrun.launch(ground.job, ground.layout, number, Meeting(meeting, self._address), keeping)


class Mpirun(Launch):
    """Open MPI's launcher."""

    def begin(self) -> Commands:
        """It starts all ranks."""
        records = self.ground.records(0)
        records.mkdir(parents=True, exist_ok=True)
        return [(0, mpirun.launch(self.ground.job, self.ground.layout, Keeping(self.ground.directory.logs, records)))]

    def failed(self, ended: Sequence[Ended]) -> bool:
        """The launcher says it, and a rank says why."""
        return any(event.exit_code for event in ended)


class Horovod(Launch):
    """Horovod's contract, and its rendezvous server on this node."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._server: rendezvous.Server | None = None

    def begin(self) -> Commands | None:
        """All ranks, once the server listens."""
        ground, layout = self.ground, self.ground.layout
        slots = {node.node: layout.ranks_per_node for node in layout.nodes}
        log = ground.directory.logs / "rendezvous.log"
        python = ground.job.interpreter.python or "python"
        self._server = rendezvous.serve(python, layout.nodes[0].address, slots, log, ground.environ, ground.inherited)
        address = self._server.address(ground.canceled)
        if address is None:
            return None
        return [(number, horovod.launch(ground.job, layout, number, address)) for number in range(len(layout.nodes))]

    def arrived(self) -> set[int]:
        """Those that the server knows."""
        return self._server.arrived() if self._server is not None else set()

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.close()


def launch(ground: Ground) -> Launch:
    """The launch for the job's distribution."""
    distribution = ground.job.distribution
    if distribution.kind == "torch":
        return Torchrun(ground)
    if distribution.kind == "mpirun":
        return Mpirun(ground)
    if distribution.kind == "horovod" and distribution.min_nodes is not None:
        return ElasticHorovod(ground)
    if distribution.kind == "horovod" and ground.layout.world_size > 1:
        return Horovod(ground)
    return Single(ground)
