"""What ranks prove about the Horovod of their interpreter, and one process to compare their training with.

    python horovod_checks.py FOLDER [NAME ...]   in each rank: FOLDER/rank_<number>.json, name -> "" or the reason
    python horovod_checks.py FOLDER alone        without Horovod: FOLDER/alone.json, type -> weights

Stands on the standard library, torch and Horovod: it runs in environments that have neither pytest nor this project.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1]) if __name__ == "__main__" else Path()
ROWS, STEPS = 16, 24
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
"""How far two ranks may be from one process after ``STEPS`` steps, absolutely: weights are around 1."""
SUMMED = ("int32", "int64", "float16", "float32", "float64")
CARRIED = ("uint8", "int8", "int16", *SUMMED)
"""Types of tensors that Horovod takes for arithmetic, and those that it moves."""


# One network, trained by one process or by many.


def network(torch: Any, seed: int, dtype: str = "float32") -> Any:
    torch.manual_seed(seed)
    layers = torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2)
    return torch.nn.Sequential(*layers).to(getattr(torch, dtype))


def descent(torch: Any, model: Any) -> Any:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def train(torch: Any, model: Any, optimizer: Any, rank: int = 0, size: int = 1) -> None:
    """Every ``size``-th row of each batch is this rank's, all together are the batch of one process."""
    dtype = next(model.parameters()).dtype
    drawn = torch.Generator().manual_seed(7)
    for _ in range(STEPS):
        inputs = torch.randn(ROWS, 6, generator=drawn).to(dtype)
        targets = torch.stack((inputs.sum(1).sin(), inputs[:, 0] * inputs[:, 1]), 1)
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(inputs[rank::size]), targets[rank::size]).backward()
        optimizer.step()


def weights(model: Any) -> list[float]:
    return [float(value) for parameter in model.parameters() for value in parameter.detach().flatten()]


def farthest(ours: list[float], theirs: list[float]) -> float:
    assert len(ours) == len(theirs)
    return max(abs(one - other) for one, other in zip(ours, theirs, strict=True))


def alone() -> dict[str, list[float]]:
    import torch

    found = {}
    for dtype in TOLERANCE:
        model = network(torch, 0, dtype)
        train(torch, model, descent(torch, model))
        found[dtype] = weights(model)
    return found


# The checks: each raises where something is not as it should be, on every rank.


def _trained(torch: Any, hvd: Any, dtype: str, **options: Any) -> list[float]:
    """Each rank starts from other weights; the broadcast gives all those of rank 0, the ones of the single process."""
    model = network(torch, hvd.rank(), dtype)
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    optimizer = hvd.DistributedOptimizer(descent(torch, model), model.named_parameters(), **options)
    train(torch, model, optimizer, hvd.rank(), hvd.size())
    return weights(model)


def training(torch: Any, hvd: Any) -> None:
    joined = json.loads((FOLDER / "alone.json").read_text())
    for dtype, tolerance in TOLERANCE.items():
        ours = _trained(torch, hvd, dtype)
        assert all(other == ours for other in hvd.allgather_object(ours)), dtype
        assert max(map(abs, ours)) > 0.1
        assert farthest(ours, joined[dtype]) < tolerance, (dtype, farthest(ours, joined[dtype]))
    untrained = weights(network(torch, 0, "float64"))
    assert farthest(untrained, joined["float64"]) > 0.1  # else the comparison says nothing


def training_with_compression(torch: Any, hvd: Any) -> None:
    joined = json.loads((FOLDER / "alone.json").read_text())["float32"]
    ours = _trained(torch, hvd, "float32", compression=hvd.Compression.fp16)
    assert all(other == ours for other in hvd.allgather_object(ours))
    distance = farthest(ours, joined)
    # Half precision has 11 bits: close, and not as close as without.
    assert TOLERANCE["float32"] < distance < 0.02, distance


def compression(torch: Any, hvd: Any) -> None:
    mine = torch.tensor([1.0 + 2.0**-12, 0.1, 3.0]) * (hvd.rank() + 1)
    averaged = hvd.allreduce(mine, op=hvd.Average, compression=hvd.Compression.fp16)
    halves = [(torch.tensor([1.0 + 2.0**-12, 0.1, 3.0]) * (rank + 1)).half().float() for rank in range(hvd.size())]
    assert averaged.dtype == torch.float32
    assert torch.allclose(averaged, sum(halves) / hvd.size(), rtol=2**-10, atol=0)
    exact = hvd.allreduce(mine, op=hvd.Average)
    assert exact[0] != averaged[0]


def allreduce(torch: Any, hvd: Any) -> None:
    count = hvd.size() * (hvd.size() + 1) // 2
    for name in SUMMED:
        mine = (torch.arange(6).reshape(2, 3) * (hvd.rank() + 1)).to(getattr(torch, name))
        summed = hvd.allreduce(mine, op=hvd.Sum)
        assert summed.dtype == mine.dtype, name
        assert summed.tolist() == [[count * (3 * row + column) for column in range(3)] for row in range(2)], name
    mine = torch.full((1000,), hvd.rank() + 1.0)
    assert torch.equal(hvd.allreduce(mine), torch.full((1000,), count / hvd.size()))
    assert mine[0] == hvd.rank() + 1
    hvd.allreduce_(mine, op=hvd.Sum)
    assert mine[0] == count
    for op, wanted in ((hvd.Min, 1), (hvd.Max, hvd.size()), (hvd.Product, 2 if hvd.size() == 2 else None)):
        assert wanted is None or hvd.allreduce(torch.tensor([hvd.rank() + 1.0]), op=op).item() == wanted
    scaled = hvd.allreduce(torch.ones(3), op=hvd.Sum, prescale_factor=0.5, postscale_factor=4)
    assert scaled.tolist() == [2.0 * hvd.size()] * 3


def many_at_once(torch: Any, hvd: Any) -> None:
    """Operations meet by their names, not by their order, and are fused."""
    order = range(50) if hvd.rank() else reversed(range(50))
    handles = {number: hvd.allreduce_async(torch.full((number + 1,), 1.0), name=f"t{number}") for number in order}
    for number, handle in handles.items():
        assert hvd.synchronize(handle).tolist() == [1.0] * (number + 1)
    first, second = hvd.grouped_allreduce([torch.ones(2), torch.ones(3) * hvd.rank()], op=hvd.Sum)
    assert first.tolist() == [hvd.size()] * 2
    assert second.tolist() == [sum(range(hvd.size()))] * 3


def gradients(torch: Any, hvd: Any) -> None:
    """Operations are differentiable."""
    mine = torch.tensor([hvd.rank() + 1.0], requires_grad=True)
    hvd.allreduce(mine * mine, op=hvd.Sum).backward()
    assert mine.grad.item() == hvd.size() * 2.0 * (hvd.rank() + 1)


def allgather(torch: Any, hvd: Any) -> None:
    """Of parts that differ in length."""
    gathered = hvd.allgather(torch.full((hvd.rank() + 1, 2), float(hvd.rank())))
    assert gathered.tolist() == [[float(rank)] * 2 for rank in range(hvd.size()) for _ in range(rank + 1)]
    for name in CARRIED:
        mine = torch.tensor([hvd.rank()]).to(getattr(torch, name))
        assert torch.equal(hvd.allgather(mine), torch.arange(hvd.size()).to(mine.dtype)), name
    assert hvd.allgather_object({"rank": hvd.rank()}) == [{"rank": rank} for rank in range(hvd.size())]


def scattering(torch: Any, hvd: Any) -> None:
    exchanged = hvd.alltoall(torch.arange(hvd.size()) + 10 * hvd.rank())
    assert exchanged.tolist() == [10 * rank + hvd.rank() for rank in range(hvd.size())]
    part = hvd.reducescatter(torch.arange(2.0 * hvd.size()), op=hvd.Sum)
    assert part.tolist() == [hvd.size() * (2.0 * hvd.rank() + index) for index in range(2)]


def broadcast(torch: Any, hvd: Any) -> None:
    for root in range(hvd.size()):
        for name in CARRIED:
            mine = torch.tensor([hvd.rank(), 1]).to(getattr(torch, name))
            assert torch.equal(hvd.broadcast(mine, root_rank=root), torch.tensor([root, 1]).to(mine.dtype)), name
        assert hvd.broadcast_object({"from": hvd.rank()}, root_rank=root) == {"from": root}
    model = network(torch, hvd.rank())
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    assert weights(model) == weights(network(torch, 0))


def optimizer_state(torch: Any, hvd: Any) -> None:
    """Only rank 0 has taken steps; after the broadcast all go on as it would."""
    for make in (descent, lambda torch, model: torch.optim.Adam(model.parameters(), lr=0.01)):
        model = network(torch, 0)
        optimizer = make(torch, model)
        for group in optimizer.param_groups:
            group["lr"] = 0.02 if hvd.rank() == 0 else 0.5
        if hvd.rank() == 0:
            train(torch, model, optimizer)
        hvd.broadcast_parameters(model.state_dict(), root_rank=0)
        hvd.broadcast_optimizer_state(optimizer, root_rank=0)
        assert [group["lr"] for group in optimizer.param_groups] == [0.02]
        train(torch, model, optimizer)
        ours = weights(model)
        assert all(other == ours for other in hvd.allgather_object(ours))


def process_sets(torch: Any, hvd: Any) -> None:
    """Some of the ranks by themselves."""
    sets = [hvd.ProcessSet([rank]) for rank in range(hvd.size())]
    hvd.shutdown()
    hvd.init(process_sets=sets)
    own, other = sets[hvd.rank()], sets[(hvd.rank() + 1) % hvd.size()]
    assert (own.size(), own.rank(), own.included(), other.included()) == (1, 0, True, False)
    assert hvd.allreduce(torch.tensor([hvd.rank() + 5.0]), op=hvd.Sum, process_set=own).item() == hvd.rank() + 5
    assert hvd.allreduce(torch.ones(1), op=hvd.Sum).item() == hvd.size()


def ranks_that_run_out_of_data(torch: Any, hvd: Any) -> None:
    for step in range(3 + 2 * hvd.rank()):
        present = hvd.size() if step < 3 else hvd.size() - 1
        assert hvd.allreduce(torch.ones(1), op=hvd.Sum, name=f"step {step}").item() == present
    assert hvd.join() == hvd.size() - 1


def elastic_state(torch: Any, hvd: Any) -> None:
    model = network(torch, hvd.rank())
    optimizer = descent(torch, model)
    state = hvd.elastic.TorchState(model=model, optimizer=optimizer, epoch=hvd.rank(), batch=0)
    state.sync()
    assert weights(model) == weights(network(torch, 0))
    assert state.epoch == 0
    train(torch, model, optimizer)
    state.epoch, committed = 3, weights(model)
    state.commit()
    train(torch, model, optimizer)
    state.epoch = 4
    after = weights(model)
    assert after != committed
    state.restore()
    assert (state.epoch, weights(model)) == (3, committed)
    train(torch, model, optimizer)  # the optimizer's momentum has come back too
    assert weights(model) == after


def starting_again(torch: Any, hvd: Any) -> None:
    for time in range(10):
        hvd.shutdown()
        hvd.init()
        assert hvd.allreduce(torch.tensor([1.0 + time]), op=hvd.Sum).item() == hvd.size() * (1.0 + time)


def elastic_run(torch: Any, hvd: Any) -> None:
    """One rank fails in the middle: all go back to the last commit, meet again, and end where they would have."""
    from horovod.common.exceptions import HorovodInternalError

    model = network(torch, hvd.rank())
    optimizer = hvd.DistributedOptimizer(descent(torch, model), model.named_parameters())
    state = hvd.elastic.TorchState(model=model, optimizer=optimizer, round=0)
    failed: list[int] = []
    begun: list[int] = []

    @hvd.elastic.run  # type: ignore[untyped-decorator]  # Horovod has no types
    def rounds(state: Any) -> None:
        begun.append(state.round)
        while state.round < 4:
            if state.round == 2 and hvd.rank() == 1 and not failed:
                failed.append(state.round)
                raise HorovodInternalError("a node has gone")
            train(torch, state.model, state.optimizer, hvd.rank(), hvd.size())
            state.round += 1
            state.commit()

    rounds(state)
    assert begun == [0, 2], begun
    undisturbed = network(torch, 0)
    single = descent(torch, undisturbed)
    for _ in range(4):
        train(torch, undisturbed, single)
    ours = weights(model)
    assert all(other == ours for other in hvd.allgather_object(ours))
    assert farthest(ours, weights(undisturbed)) < 4 * TOLERANCE["float32"]


CHECKS = (
    *(training, training_with_compression, compression, allreduce, many_at_once, gradients, allgather, scattering),
    *(broadcast, optimizer_state, process_sets, ranks_that_run_out_of_data, elastic_state, starting_again, elastic_run),
)


def main(names: list[str]) -> None:
    if names == ["alone"]:
        (FOLDER / "alone.json").write_text(json.dumps(alone()))
        return
    import horovod.torch as hvd
    import torch

    hvd.init()
    result = {}
    for check in CHECKS:
        if not names or check.__name__ in names:
            rank = hvd.rank()
            try:
                check(torch, hvd)
                result[check.__name__] = ""
            except Exception:  # noqa: BLE001 - a failure is the answer
                result[check.__name__] = traceback.format_exc()
            (FOLDER / f"rank_{rank}.json").write_text(json.dumps(result))
            if result[check.__name__]:
                sys.exit(1)  # the other ranks may be anywhere


if __name__ == "__main__":
    main(sys.argv[2:])
