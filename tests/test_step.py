"""One update: that of the whole batch, whatever pieces it is taken in; and what is done when memory or numbers fail."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from maskwright.batches import Batch
from maskwright.devices import InnerPrecision
from maskwright.errors import UserError
from maskwright.models.conventions import Conventions
from maskwright.models.stock import StockMaskRCNN, StockSpec
from maskwright.models.whole import Part, part, permutation, totals
from maskwright.settings import TrainSettings
from maskwright.step import LOSSES, MOST_OVERFLOWS, NotFiniteError, Stepper, out_of_memory, pieces_of

CPU_SHORT = "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."


class Toy(nn.Module):
    """A network whose losses are means over objects, of which photos have different numbers."""

    def __init__(self, whole=True):
        super().__init__()
        torch.manual_seed(3)
        self.weight = nn.Parameter(torch.randn(4))
        self.whole = self.states_sums = whole
        self.room, self.seen, self.drawn = 10**6, [], []

    def losses(self, images, targets):
        self.seen.append(len(images))
        if len(images) > self.room:
            raise RuntimeError(CPU_SHORT)
        chosen = [permutation(9, i, images.device)[:3] for i in range(len(images))]
        if torch.is_grad_enabled():
            self.drawn += [tuple(c.tolist()) for c in chosen]
        terms = [((t["boxes"] * self.weight).sum(1) - float(c[0])) ** 2 for t, c in zip(targets, chosen, strict=True)]
        sums = {"sum": torch.cat(terms).sum(), "count": torch.tensor(float(sum(len(t) for t in terms)))}
        if self.whole:
            sums = totals(sums)
        # Not a mean of means: the ratio is taken last, and once more through a curve.
        mean = (sums["sum"] / sums["count"]).sqrt()
        return {name: mean * (i + 1) for i, name in enumerate(LOSSES)} | {"box_accuracy": torch.tensor(0.5)}


def batch_of(counts, poison=()):
    generator = torch.Generator().manual_seed(1)
    targets = [{"boxes": torch.rand(n, 4, generator=generator)} for n in counts]
    for i in poison:
        targets[i]["boxes"][:] = math.nan
    number = len(counts)
    return Batch(
        images=torch.zeros(number, 3, 32, 32, dtype=torch.uint8),
        targets=targets,
        photos=tuple(range(10, 10 + number)),
        objects=tuple((i,) for i in range(number)),
        seeds=tuple(range(100, 100 + number)),
    )


def stepper(network, micro=100, batch=4, said=None, **settings):
    fabric = Fabric(accelerator="cpu", devices=1)
    optimiser = torch.optim.SGD([{"params": list(network.parameters()), "share": 0.5}], lr=1.0)
    model, optimiser = fabric.setup(network, optimiser)
    model.mark_forward_method("losses")
    values = TrainSettings(**({"batch_size": batch, "seed": 0, "clip_norm": 1e6, "precision": "32"} | settings))
    return Stepper(fabric, model, optimiser, values, (said if said is not None else []).append, micro)


def with_adamw(network, precision):
    """Return a stepper with the optimiser of most plans."""
    plugins = InnerPrecision("16-mixed", "cpu") if precision == "16" else None
    fabric = Fabric(accelerator="cpu", devices=1, plugins=plugins)
    parts = [{"params": list(network.parameters()), "share": 1.0}]
    model, optimiser = fabric.setup(network, torch.optim.AdamW(parts, lr=0.0, fused=True))
    model.mark_forward_method("losses")
    values = TrainSettings(batch_size=2, seed=0, clip_norm=1.0, precision=precision)
    return Stepper(fabric, model, optimiser, values, [].append, 2)


@pytest.mark.parametrize("micro", [1, 2, 3])
def test_pieces_give_the_update_of_the_whole_batch(micro):
    whole, pieces = Toy(), Toy()
    batch = batch_of((1, 7, 2, 5))
    one = stepper(whole).take(batch, 0, 0.1)
    other = stepper(pieces, micro).take(batch, 0, 0.1)
    assert whole.seen == [4]
    assert max(pieces.seen) <= micro
    assert pieces.drawn == whole.drawn  # random choices are the photo's
    assert other.losses == pytest.approx(one.losses, rel=1e-6)
    assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-5)
    torch.testing.assert_close(pieces.weight, whole.weight, rtol=1e-6, atol=1e-7)


def test_pieces_give_a_stock_network_the_update_of_the_whole_batch():
    def start():
        torch.manual_seed(0)
        sizes = {"channels": 32, "head_channels": 32, "rois_per_photo": 24, "proposals_per_photo": 50}
        spec = StockSpec(2, backbone="resnet10t", conventions=Conventions(norm="still"), **sizes)
        return StockMaskRCNN(spec).train()

    generator = torch.Generator().manual_seed(1)
    batch = batch_of((1, 3, 1))
    batch = replace(batch, images=torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=generator))
    for target in batch.targets:
        corner = torch.randint(0, 20, (len(target["boxes"]), 2), generator=generator)
        target["boxes"] = torch.cat([corner, corner + 36], 1).float()
        target["labels"] = torch.arange(len(corner)) % 2 + 1
        target["masks"] = torch.zeros(len(corner), 64, 64, dtype=torch.uint8)
        for mask, (x, y) in zip(target["masks"], corner.tolist(), strict=True):
            mask[y : y + 36, x : x + 20] = 1
    whole, pieces = start(), start()
    one = stepper(whole, batch=3).take(batch, 0, 1e-3)
    other = stepper(pieces, 1, batch=3).take(batch, 0, 1e-3)
    assert other.losses == pytest.approx(one.losses, rel=1e-4, abs=1e-6)
    assert other.losses["mask"] > 0
    assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-4)
    for (name, ours), theirs in zip(pieces.named_parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6, msg=name)


def test_a_network_that_knows_nothing_of_parts_is_weighed_by_photos():
    network = Toy(whole=False)
    taken = stepper(network, 2, batch=3).take(batch_of((1, 7, 3)), 0, 0.1)
    assert network.seen == [1, 2]  # each piece once: there is nothing to be known first
    first, second = in_parts(batch_of((1, 7, 3)), 2)
    assert taken.losses == pytest.approx({k: float(first[k] + 2 * second[k]) / 3 for k in first}, rel=1e-6)


def in_parts(batch, number):
    """Return the losses of a batch's pieces, each by itself."""
    found = []
    for piece in pieces_of(batch, number):
        with part(Part(piece.seeds)):
            losses = Toy(whole=False).losses(piece.images, piece.targets)
        found.append({name: value.detach() for name, value in losses.items()})
    return found


class Meeting:
    """Stands for Fabric in one of two processes, which are threads here; gradients stay with each."""

    device, world_size = torch.device("cpu"), 2
    autocast = staticmethod(nullcontext)

    def __init__(self, rank, said, barrier):
        self.global_rank, self.said, self.barrier = rank, said, barrier

    def all_reduce(self, tensor, reduce_op):
        assert reduce_op == "sum"
        self.said[self.global_rank] = tensor.clone()
        self.barrier.wait(5)
        both = self.said[0] + self.said[1]
        self.barrier.wait(5)
        return both

    def to_device(self, given):
        return given

    def backward(self, total):
        total.backward()

    def no_backward_sync(self, model):
        return nullcontext()

    def clip_gradients(self, model, optimiser, max_norm, error_if_nonfinite):
        return nn.utils.clip_grad_norm_(model.module.parameters(), max_norm, error_if_nonfinite=error_if_nonfinite)


def in_two(work):
    """Return what two processes return that train together, given a Fabric each."""
    said, barrier = [None, None], threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        return tuple(pool.map(work, [Meeting(rank, said, barrier) for rank in (0, 1)]))


def joined(fabric, network, batch, micro=100):
    """Return a process's stepper, and what it says."""
    said, model = [], SimpleNamespace(losses=network.losses, module=network)
    optimiser = torch.optim.SGD([{"params": list(network.parameters()), "share": 1.0}], lr=0.1)
    values = TrainSettings(batch_size=batch, seed=0, clip_norm=1e6, precision="32")
    return Stepper(fabric, model, optimiser, values, said.append, micro), said


@pytest.mark.parametrize("whole", [True, False])
def test_processes_with_unequal_shares_count_by_their_photos(whole):
    batch, said, barrier = batch_of((1, 7, 3)), [None, None], threading.Barrier(2)
    values = TrainSettings(batch_size=3, seed=0, clip_norm=1.0, precision="32")

    networks = Toy(whole), Toy(whole)

    def work(rank, share):
        network = networks[rank]
        model = SimpleNamespace(losses=network.losses, module=network)
        optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
        one = Stepper(Meeting(rank, said, barrier), model, optimiser, values, print, 3)
        return {k: float(v) for k, v in one._gradient(share, 0).items()}, network.weight.grad

    with ThreadPoolExecutor(2) as pool:
        (ours, one), (theirs, other) = pool.map(work, (0, 1), pieces_of(batch, 2))
    alone = Toy(whole)
    expected = stepper(alone, 3 if whole else 2, batch=3)._gradient(batch, 0)  # in pieces of 1 and 2 photos
    assert ours == theirs == pytest.approx({k: float(v) for k, v in expected.items()}, rel=1e-5)
    torch.testing.assert_close((one + other) / 2, alone.weight.grad, rtol=1e-5, atol=1e-6)  # processes take the mean


@pytest.mark.parametrize("whole", [True, False])
def test_where_one_process_has_no_memory_left_all_take_smaller_pieces(whole):
    batch = batch_of((1, 7, 3, 2))
    shares = list(pieces_of(batch, 2))

    networks = Toy(whole), Toy(whole)
    networks[1].room = 1

    def work(fabric):
        network = networks[fabric.global_rank]
        one, said = joined(fabric, network, 4)
        return one.take(shares[fabric.global_rank], 6, 0.1).losses, one.micro_batch, said, network.seen

    (ours, micro, said, seen), (theirs, other, told, _) = in_two(work)
    assert (micro, other) == (1, 1)
    assert seen[0] == 2
    assert set(seen[1:]) == {1}
    assert said[0].startswith("out of memory at step 7 (another process has no memory left): from now on photos are")
    assert told[0].startswith(f"out of memory at step 7 ({CPU_SHORT}): from now on photos are taken 1 at a time")
    assert len(said) == len(told) == 1
    alone = stepper(Toy(whole), 4 if whole else 1)._gradient(batch, 6)
    assert ours == theirs == pytest.approx({name: float(value) for name, value in alone.items()}, rel=1e-5)


@pytest.mark.parametrize("whole", [True, False])
def test_a_loss_of_one_process_that_is_not_finite_is_an_error_in_all(monkeypatch, whole):
    shares, found, barrier = list(pieces_of(batch_of((1, 7, 2, 5), poison=[2]), 2)), {}, threading.Barrier(2)

    def gather(every, own):
        found[own[0][0]] = own  # by the share's first photo
        barrier.wait(5)
        every[:] = [found[photo] for photo in sorted(found)]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)

    networks, before = (Toy(whole), Toy(whole)), Toy(whole).weight

    def work(fabric):
        one, _ = joined(fabric, networks[fabric.global_rank], 4)
        with pytest.raises(NotFiniteError) as caught:
            one.take(shares[fabric.global_rank], 0, 0.1)
        return caught.value

    ours, theirs = in_two(work)
    assert all(torch.equal(network.weight, before) for network in networks)
    assert ours.bad == (LOSSES if whole else ("another process's",))  # the whole batch's losses are everyone's
    assert theirs.bad == LOSSES
    assert ours.photos == theirs.photos == ((12, LOSSES, (2,)),)


def test_an_update_is_a_gradient_step_at_each_groups_share_of_the_rate():
    network = Toy()
    before = network.weight.detach().clone()
    one = stepper(network)
    taken = one.take(batch_of((2, 2)), 0, 0.1)
    moved = (network.weight.detach() - before).norm()
    assert float(moved) == pytest.approx(0.1 * 0.5 * taken.grad_norm, rel=1e-5)
    assert taken.total == pytest.approx(sum(taken.losses[name] for name in LOSSES))


def test_a_gradient_that_is_too_long_is_clipped():
    network = Toy()
    before = network.weight.detach().clone()
    taken = stepper(network, clip_norm=0.5).take(batch_of((2, 2)), 0, 0.1)
    assert taken.grad_norm > 1  # told as it was
    assert float((network.weight.detach() - before).norm()) == pytest.approx(0.1 * 0.5 * 0.5, rel=1e-5)


@pytest.mark.parametrize(
    ("seed", "drawn_from"),
    [(0, 7 * 64), (23, 23 * 1_000_003 + 7 * 64), (20261127120000, (20261127120000 * 1_000_003 + 7 * 64) % 2**64)],
)
def test_any_seed_seeds_a_step(seed, drawn_from):
    one = stepper(Toy())
    one.settings = one.settings.model_copy(update={"seed": seed})
    one.take(batch_of((1, 2, 1, 1)), 7, 0.1)
    assert torch.initial_seed() == drawn_from


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), RuntimeError(CPU_SHORT), MemoryError()],
)
def test_errors_of_memory_are_told_from_others(error):
    assert out_of_memory(error)
    assert not out_of_memory(RuntimeError("shape mismatch"))
    assert not out_of_memory(ValueError("not enough memory"))


def test_out_of_memory_halves_the_pieces_and_says_so():
    network, plain, said = Toy(), Toy(), []
    network.room = 1
    one = stepper(network, 4, said=said)
    batch = batch_of((1, 7, 2, 5))
    taken = one.take(batch, 6, 0.1)
    assert one.micro_batch == 1
    assert [text.split(" (")[0] for text in said] == ["out of memory at step 7"] * 2
    assert said[-1].endswith(
        "): from now on photos are taken 1 at a time where it was 2; a step is still that of the whole batch, and takes"
        " longer"
    )
    assert taken.losses == pytest.approx(stepper(plain).take(batch, 6, 0.1).losses, rel=1e-6)
    torch.testing.assert_close(network.weight, plain.weight, rtol=1e-6, atol=1e-7)
    network.seen.clear()
    one.take(batch, 7, 0.1)  # remembered
    assert max(network.seen) == 1


def test_pieces_of_a_network_that_knows_nothing_of_parts_are_not_called_the_whole_batch():
    network, said = Toy(whole=False), []
    network.room = 2
    stepper(network, 4, said=said).take(batch_of((1, 7, 2, 5)), 6, 0.1)
    assert said == [
        f"out of memory at step 7 ({CPU_SHORT}): from now on photos are taken 2 at a time where it was 4; a step is now"
        " the mean of its pieces, and takes longer"
    ]


def test_memory_that_is_not_enough_for_one_photo_is_the_users():
    network = Toy()
    network.room = 0
    with pytest.raises(UserError) as caught:
        stepper(network, 4).take(batch_of((1, 2, 1, 1)), 2, 0.1)
    assert str(caught.value) == (
        f"memory is not enough for a single photo\n  step 3: {CPU_SHORT}\n"
        "fix: give a smaller --side, or close other programs"
    )


def test_other_errors_are_not_taken_for_memory():
    class Faulty(Toy):
        def losses(self, images, targets):
            raise RuntimeError("shape mismatch")

    said = []
    one = stepper(Faulty(), 2, said=said)
    with pytest.raises(RuntimeError, match=r"^shape mismatch$"):
        one.take(batch_of((1, 1)), 0, 0.1)
    assert (one.micro_batch, said) == (2, [])


def test_a_loss_that_is_not_finite_names_its_photos_and_changes_nothing():
    network = Toy()
    before = network.weight.detach().clone()
    with pytest.raises(NotFiniteError) as caught:
        stepper(network).take(batch_of((1, 7, 2, 5), poison=[2]), 0, 0.1)
    assert caught.value.bad == LOSSES
    assert caught.value.photos == ((12, LOSSES, (2,)),)
    assert torch.equal(network.weight, before)
    assert network.weight.grad is None


def test_a_gradient_that_is_not_finite_blames_all_photos_of_the_step():
    network = Toy()
    before = network.weight.detach().clone()
    network.weight.register_hook(lambda grad: grad * math.inf)
    with pytest.raises(NotFiniteError) as caught:
        stepper(network).take(batch_of((1, 2)), 0, 0.1)
    assert caught.value.bad == ("gradient",)
    assert [photo for photo, _, _ in caught.value.photos] == [10, 11]
    assert torch.equal(network.weight, before)


def test_in_16_bits_gradients_are_unscaled_before_they_are_clipped():
    network, plain = Toy(), Toy()
    one, other = with_adamw(network, "16"), with_adamw(plain, "32")
    for step in (0, 1):
        ours, theirs = one.take(batch_of((2, 5)), step, 0.1), other.take(batch_of((2, 5)), step, 0.1)
        assert ours.losses == pytest.approx(theirs.losses, rel=1e-5)
        assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-4)
        torch.testing.assert_close(network.weight, plain.weight, rtol=1e-3, atol=1e-4)
    assert one.fabric.strategy.precision.scaler.get_scale() == 65536


def test_in_16_bits_a_gradient_that_is_not_finite_is_excused_for_some_steps_in_a_row():
    network, batch = Toy(), batch_of((1, 2))
    before = network.weight.detach().clone()
    one = with_adamw(network, "16")
    hook = network.weight.register_hook(lambda grad: grad * math.inf)
    for step in range(MOST_OVERFLOWS):
        assert not math.isfinite(one.take(batch, step, 0.1).grad_norm)
    assert (one.overflows, one.fabric.strategy.precision.scaler.get_scale()) == (16, 1.0)
    with pytest.raises(NotFiniteError) as caught:
        one.take(batch, MOST_OVERFLOWS, 0.1)
    assert caught.value.bad == ("gradient",)
    assert torch.equal(network.weight, before)
    one.take(batch, 0, 0.1)  # counted anew
    assert one.overflows == 1
    hook.remove()
    assert math.isfinite(one.take(batch, 1, 0.1).grad_norm)
    assert one.overflows == 0
    assert not torch.equal(network.weight, before)


@pytest.mark.parametrize(("photos", "number"), [(4, 1), (4, 2), (5, 2), (5, 5)])
def test_pieces_are_the_batch_in_order_and_even(photos, number):
    batch = batch_of((1,) * photos)
    pieces = list(pieces_of(batch, number))
    assert len(pieces) == number
    sizes = [len(piece.photos) for piece in pieces]
    assert max(sizes) - min(sizes) <= 1
    assert sum((piece.photos for piece in pieces), ()) == batch.photos
    assert sum((piece.seeds for piece in pieces), ()) == batch.seeds
    assert [len(piece.images) for piece in pieces] == sizes == [len(piece.targets) for piece in pieces]
