"""How ranks start, in the spellings of both generations of the original."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mlflow_pytorch_estimator.estimator.exceptions import TrainingException
from mlflow_pytorch_estimator.spec import Distribution

_BACKENDS = ("nccl", "gloo")


def count(name: str, value: object) -> int:
    """A whole number of at least 1, or TrainingException."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise TrainingException(f"{name} is {value!r}; it must be a whole number of at least 1")
    return value


@dataclass(frozen=True)
class Mpi:
    """Ranks that find each other through Horovod."""

    process_count_per_node: int = 1

    def __post_init__(self) -> None:
        count("process_count_per_node", self.process_count_per_node)

    def distribution(self, node_count: int) -> Distribution:
        """What the launcher reads."""
        return Distribution("horovod", self.process_count_per_node)


@dataclass(frozen=True)
class MpiConfiguration(Mpi):
    """``Mpi`` with the number of nodes beside it; the estimator's own ``node_count`` must not contradict it."""

    node_count: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        count("node_count", self.node_count)


@dataclass(frozen=True)
class _TorchBackend:
    process_count_per_node: int = 1

    def __post_init__(self) -> None:
        count("process_count_per_node", self.process_count_per_node)

    def distribution(self, node_count: int) -> Distribution:
        """What the launcher reads."""
        return Distribution("torch", self.process_count_per_node, type(self).__name__.lower())


class Gloo(_TorchBackend):
    """torch.distributed over Gloo: for CPUs."""


class Nccl(_TorchBackend):
    """torch.distributed over NCCL: for GPUs."""


@dataclass(frozen=True)
class PyTorchConfiguration:
    """torch.distributed; ``process_count`` is the total over all nodes, by default one on each."""

    communication_backend: str = "Nccl"
    process_count: int | None = None
    node_count: int = 1

    def __post_init__(self) -> None:
        count("node_count", self.node_count)
        backend = self.communication_backend
        if not isinstance(backend, str) or backend.lower() not in _BACKENDS:
            raise TrainingException(f"communication_backend is {backend!r}; it must be 'Nccl' or 'Gloo'")
        if self.process_count is not None and count("process_count", self.process_count) % self.node_count:
            raise TrainingException(
                f"process_count is the total of all nodes: {self.process_count} processes cannot be shared "
                f"equally by {self.node_count} nodes"
            )

    def distribution(self, node_count: int) -> Distribution:
        """What the launcher reads."""
        total = self.process_count or node_count
        if total % node_count:
            raise TrainingException(f"process_count={total} cannot be shared equally by node_count={node_count}")
        return Distribution("torch", total // node_count, self.communication_backend.lower())


AnyDistribution = Mpi | Gloo | Nccl | PyTorchConfiguration


def resolve(
    nodes: object, processes: object, backend: str | None, chosen: AnyDistribution | None
) -> tuple[int, Distribution]:
    """Number of nodes, and how the ranks start, from the four places where both can be said.

    What was given in two places must agree; a 1 is what nobody said.
    """
    node_count, per_node = count("node_count", nodes), count("process_count_per_node", processes)
    if backend is not None:
        if chosen is not None:
            raise TrainingException("distributed_backend and distributed_training are both given: leave out one")
        chosen = _from_backend(backend, per_node)
    if chosen is None:
        if node_count > 1 or per_node > 1:
            raise TrainingException(
                f"node_count={node_count} and process_count_per_node={per_node} need distributed_training: "
                "MpiConfiguration() or PyTorchConfiguration('Nccl')"
            )
        return 1, Distribution()
    if not isinstance(chosen, (Mpi, Gloo, Nccl, PyTorchConfiguration)):
        raise TrainingException(f"distributed_training is {chosen!r}; it must be such as MpiConfiguration()")
    node_count = _agreed("node_count", node_count, getattr(chosen, "node_count", 1), chosen)
    found = chosen.distribution(node_count)
    said = found.processes_per_node
    return node_count, replace(found, processes_per_node=_agreed("process_count_per_node", per_node, said, chosen))


def _agreed(name: str, outside: int, inside: int, chosen: AnyDistribution) -> int:
    if 1 not in {outside, inside} and outside != inside:
        raise TrainingException(f"{name}={outside} contradicts {chosen!r}, which says {inside}: give it in one place")
    return max(outside, inside)


def _from_backend(backend: object, processes: int) -> AnyDistribution:
    kinds: dict[str, type[Mpi | Gloo | Nccl]] = {"mpi": Mpi, "horovod": Mpi, "gloo": Gloo, "nccl": Nccl}
    kind = kinds.get(backend.lower()) if isinstance(backend, str) else None
    if kind is None:
        raise TrainingException(f"distributed_backend is {backend!r}; it must be one of: mpi, gloo, nccl")
    return kind(processes)
