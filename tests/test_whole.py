"""Parts of a batch: random choices are the photo's, sums are the whole batch's, and torchvision's proposals agree."""

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from maskwright.models.proposals import Proposals
from maskwright.models.whole import Part, part, permutation, totals

CPU = torch.device("cpu")


def test_a_photos_choices_do_not_depend_on_the_photos_beside_it():
    with part(Part([7, 8])):
        both = [permutation(20, photo, CPU).tolist() for photo in (0, 1, 0)]
    with part(Part([8])):
        alone = permutation(20, 0, CPU).tolist()
    assert alone == both[1]
    assert sorted(alone) == list(range(20))
    assert both[0] != both[2]  # it goes on, and does not begin again


def test_without_a_part_choices_are_torchs_and_sums_are_as_they_are():
    torch.manual_seed(1)
    wanted = torch.randperm(9)
    torch.manual_seed(1)
    assert torch.equal(permutation(9, 0, CPU), wanted)
    sums = {"a": torch.tensor(2.0)}
    assert totals(sums) is sums


def test_totals_have_the_value_of_all_and_the_gradient_of_the_part():
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    with part(Part([], add_up=lambda own: own + torch.tensor([10.0, 20.0, 30.0]))) as one:
        found = totals({"pair": weight * 3, "one": weight.sum()})
    assert found["pair"].tolist() == [13.0, 26.0]
    assert found["one"].item() == 33.0
    assert one.sums.tolist() == [3.0, 6.0, 3.0]
    (found["pair"].sum() / found["one"]).backward()
    # d(39/33): 3/33 of the numerator, 39/33^2 of the denominator; the others' parts are constants.
    assert weight.grad.tolist() == pytest.approx([3 / 33 - 39 / 33**2] * 2)


def test_known_totals_are_not_added_up_again():
    def fail(_own):
        raise AssertionError

    with part(Part([], add_up=fail, known=torch.tensor([5.0]))):
        assert totals({"a": torch.tensor(2.0)})["a"].item() == 5.0


def test_proposals_are_torchvisions_and_their_losses_its_before_the_division():
    def network(kind):
        torch.manual_seed(0)
        anchors = AnchorGenerator(((16,),), ((0.5, 1.0, 2.0),))
        return kind(anchors, RPNHead(8, 3), 0.6, 0.3, 32, 0.5, *({"training": 50, "testing": 50},) * 2, 0.7)

    theirs, ours = network(RegionProposalNetwork), network(Proposals)
    images = ImageList(torch.zeros(2, 3, 64, 64), [(64, 64)] * 2)
    features = {"0": torch.rand(2, 8, 8, 8, generator=torch.Generator().manual_seed(2))}
    boxes = [torch.tensor([[8.0, 8.0, 30.0, 28.0]]), torch.tensor([[0.0, 0.0, 20.0, 40.0], [30.0, 5.0, 60.0, 20.0]])]
    found = []
    for one in (theirs, ours):
        torch.manual_seed(5)  # the same draws
        found.append(one(images, features, [{"boxes": b} for b in boxes]))
    for a, b in zip(found[0][0], found[1][0], strict=True):
        assert torch.equal(a, b)
    wanted, losses = found[0][1], found[1][1]
    assert losses["anchors"].item() == 64
    for name in ("loss_objectness", "loss_rpn_box_reg"):
        assert losses[name].item() / 64 == pytest.approx(wanted[name].item(), rel=1e-5)
    ours.eval()
    assert ours(images, features)[1] == {}
