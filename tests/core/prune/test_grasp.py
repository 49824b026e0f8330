import copy
from collections.abc import Callable

import pytest
import torch
from small_nets import batch, close, conv_net, mlp, prunable_network, sparse
from torch import Tensor, nn
from torch.autograd.functional import hessian, jacobian
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from lth_core.masks import Mask
from lth_core.prune.grasp import grasp
from lth_core.spec import PruneSpec

NETS = [(mlp(3, 4, 3), (3,)), (conv_net(), (2, 4, 4))]


def loss_of(
    model: nn.Module, mask: Mask, x: Tensor, y: Tensor, temperature: float = 200
) -> Callable[[Tensor], Tensor]:
    """The loss, of divided logits, as a function of all surviving weights in a row."""
    sizes = [int(m.sum()) for m in mask.values()]

    def loss(row: Tensor) -> Tensor:
        weights = {
            name: torch.zeros(m.shape, dtype=row.dtype).masked_scatter(m, part)
            for (name, m), part in zip(mask.items(), row.split(sizes), strict=True)
        }
        return cross_entropy(functional_call(copy.deepcopy(model), weights, (x,)) / temperature, y)

    return loss


def in_a_row(values: dict[str, Tensor], mask: Mask) -> Tensor:
    return torch.cat([values[name].detach()[m] for name, m in mask.items()])


@pytest.mark.parametrize("spec", [PruneSpec(), PruneSpec(score="grasp", temperature=1)])
@pytest.mark.parametrize("density", [1.0, 0.5])
@pytest.mark.parametrize(("model", "shape"), NETS, ids=["mlp", "conv"])
def test_grasp_is_each_weight_times_the_hessian_times_the_gradient(
    model: nn.Module, shape: tuple[int, ...], density: float, spec: PruneSpec
) -> None:
    (x, y), mask = batch(shape, 3), sparse(model, density)
    w = in_a_row(dict(model.named_parameters()), mask)
    loss = loss_of(model, mask, x, y, spec.temperature)
    expected = w * (hessian(loss, w) @ jacobian(loss, w))
    scores = in_a_row(grasp(prunable_network(model, x, y, mask, spec=spec)), mask)
    assert (expected > 0).any()
    assert (expected < 0).any()
    assert close(scores, expected, rtol=1e-6, atol=1e-18)


def test_weights_whose_removal_raises_the_gradients_norm_most_go_first() -> None:
    """Shrinking a weight by a share e changes the squared norm by -2e times its score."""
    (x, y), model = batch((3,), 3), mlp(3, 4, 3)
    mask = sparse(model)
    w, loss = in_a_row(dict(model.named_parameters()), mask), loss_of(model, mask, x, y)
    scores = in_a_row(grasp(prunable_network(model, x, y, mask)), mask)
    for i in range(len(w)):
        less, more = w.clone(), w.clone()
        less[i], more[i] = w[i] * (1 - 1e-5), w[i] * (1 + 1e-5)
        gain = (jacobian(loss, less) ** 2).sum() - (jacobian(loss, more) ** 2).sum()
        assert float(gain / 2e-5) == pytest.approx(float(-2 * scores[i]), rel=1e-4, abs=1e-14)
