"""Checks of a network before anything is trained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from lth_core.errors import SpecError
from lth_core.models.derivatives import twice_differentiable
from lth_core.models.dropout import dropout_off
from lth_core.models.layers import load_state, made_up_examples, prunable_layers, state_of, use_of
from lth_core.models.positions import shapes_and_positions
from lth_core.plugins import errors_as_spec_errors
from lth_core.seeds import seeded_draws

FIELD = "model.name"
DRAWS = 8
"""Times that a user's network is run on other noise, to see that it always uses the same layers."""


def check_network(
    build: Callable[[int], nn.Module],
    name: str,
    shape: tuple[int, ...],
    classes: int,
    include: Sequence[str] = (),
) -> None:
    """Check that a user's network can be drawn, trained and pruned here.

    It is run forward and backward twice, on two examples, and evaluated on one.

    Args:
        build: from a seed to a network whose weights are drawn with it.
        shape: shape of one example.
        include: embeddings, as in `prunable_layers`.

    Raises:
        SpecError: it names the layer and what does not fit.
    """
    model = build(0)
    trained, y = copy.deepcopy(model).train(), torch.arange(2) % classes
    failing = f"must train on a batch of shape {(2, *shape)}, but fails"
    with seeded_draws(0), errors_as_spec_errors(FIELD, failing, name):
        x = made_up_examples(model, 2, shape)
        for _ in range(2):
            logits = trained(x)
            _check_logits(logits, name, (2, classes))
            cross_entropy(logits, y).backward()
        _check_memory(copy.deepcopy(model), x, name)
    _check_state(build, x, name)
    _check_one(copy.deepcopy(model), name, shape, classes)
    if not prunable_layers(model, include):
        kinds = "no linear, convolution, attention or recurrent layer takes part in its output"
        if embeddings := prunable_layers(model, ("*",)):
            kinds += f", and prune.include names none of {', '.join(embeddings)}"
        raise SpecError(FIELD, f"must have a weight to prune: {kinds}", name)
    layers = [set(use_of(copy.deepcopy(model), shape, seed).depths) for seed in range(DRAWS)]
    if differing := {layer for used in layers for layer in used ^ layers[0]}:
        rule = "must use the same layers for all inputs, but these depend on the input: "
        raise SpecError(FIELD, rule + ", ".join(sorted(differing)), name)


def _check_one(model: nn.Module, name: str, shape: tuple[int, ...], classes: int) -> None:
    """Check that a network can be evaluated on one example: a part of the data may end with one,
    and positions are counted on one."""
    failing = f"must run in evaluation mode on one example, of shape {(1, *shape)}, but fails"
    with torch.no_grad(), seeded_draws(0), errors_as_spec_errors(FIELD, failing, name):
        _check_logits(model.eval()(made_up_examples(model, 1, shape)), name, (1, classes))
        shapes_and_positions(model, shape)


def checked_copy(model: nn.Module, name: str) -> nn.Module:
    """A copy of a user's network whose weights can be drawn, masked and trained here.

    Raises:
        SpecError: it names the layer and what does not fit.
    """
    for rule in _weight_faults(model):
        raise SpecError(FIELD, rule, name)
    with errors_as_spec_errors(FIELD, "must be copied by copy.deepcopy, but that fails", name):
        return copy.deepcopy(model)


def _weight_faults(model: nn.Module) -> Iterator[str]:
    """Rules that the network's modules and weights break, with the layer's name."""
    for path, module in model.named_modules():
        layer = path or "the network itself"
        if isinstance(module, torch.jit.ScriptModule):
            yield f"must have no scripted modules: {layer} cannot be changed or copied as others"
        if _is_lazy(module):
            yield f"must have no lazy modules: give {layer} its sizes"
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            yield f"must keep all state in buffers: {layer} has extra state (get_extra_state)"
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear | nn.Bilinear) and (
            "weight" not in module._parameters
        ):
            yield (
                f"must have weights that are trained themselves: the weight of {layer} is computed "
                "from others (weight norm, spectral norm or torch.nn.utils.prune)"
            )
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and (
            module.sparse and module.weight.requires_grad
        ):
            yield f"must have dense gradients: {layer} has sparse ones (sparse=True)"
        if isinstance(module, nn.MultiheadAttention | nn.RNNBase) and getattr(
            module, "parametrizations", None
        ):
            yield f"must have weights that are trained themselves: {layer} is parametrized"
    for path, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            yield f"must have float32 weights (see train.precision): {path} is {parameter.dtype}"


def check_draws(build: Callable[[int], nn.Module], name: str, include: Sequence[str] = ()) -> None:
    """Check that two seeds give a network other weights, where it draws them itself.

    Args:
        build, include: as in `check_network`.

    Raises:
        SpecError: all prunable weights are the same.
    """
    one, other = (prunable_layers(build(seed), include) for seed in (0, 1))
    if all(torch.equal(one[layer].weight, other[layer].weight) for layer in one):
        rule = (
            "must draw its weights from torch's, numpy's or Python's generator: two seeds give the "
            "same ones (it may seed a generator itself, or return one network twice); otherwise "
            "set model.init"
        )
        raise SpecError(FIELD, rule, name)


def check_ids(model: nn.Module, name: str, source: str, x: Tensor | None) -> None:
    """Check that a network that takes token ids can take those of its data.

    Args:
        source: name of the data.
        x: (m, ...) float32 normalized examples with the smallest and largest ids; None where
            normalization does not leave ids whole.

    Raises:
        SpecError: the ids are not whole, or not all in the network's vocabulary.
    """
    if x is None:
        rule = f"must have std 1 and a whole mean, because {name} takes token ids"
        raise SpecError("data.name", rule, source)
    rule = f"must run on the smallest and largest values of its data ({x.min():g} to {x.max():g})"
    with torch.no_grad(), seeded_draws(0), errors_as_spec_errors(FIELD, rule, name):
        copy.deepcopy(model).eval()(x)


def check_second_derivatives(
    model: nn.Module, field: str, value: object, shape: tuple[int, ...], classes: int
) -> None:
    """Check that a network's loss can be differentiated twice.

    The second derivative is taken by `backward`: `torch.autograd.grad` leaves out, without an
    error, what passes through a function that can be differentiated only once.

    Args:
        field, value: the field of the spec that needs the derivatives, and its value.

    Raises:
        SpecError: a part of the network has no second derivative.
    """
    trained = copy.deepcopy(model).train()
    rule = "needs second derivatives, which a part of the network lacks"
    with (
        seeded_draws(0),
        errors_as_spec_errors(field, rule, str(value)),
        twice_differentiable(trained),
    ):
        x = made_up_examples(model, 2, shape)
        loss = cross_entropy(trained(x), torch.arange(2) % classes)
        used = [parameter for parameter in trained.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(loss, used, create_graph=True, allow_unused=True)
        torch.stack([(g * g).sum() for g in gradients if g is not None]).sum().backward()


def check_last_batch(
    model: nn.Module, name: str, shape: tuple[int, ...], examples: int, batch_size: int, field: str
) -> None:
    """Check that a network can train on the last batch of an epoch, which batch norm may not.

    Args:
        field: the spec's field with the batch size, for the error.

    Raises:
        SpecError: that batch has one example, and the network cannot train on one.
    """
    norms = [n for n, module in model.named_modules() if isinstance(module, _BatchNorm)]
    network = f"{name} (batch norm: {', '.join(norms[:3])})" if norms else name
    rule = (
        f"must leave no last batch of one of {examples} training examples, on which {network} "
        "cannot train"
    )
    with torch.no_grad(), seeded_draws(0), errors_as_spec_errors(field, rule, batch_size):
        logits = copy.deepcopy(model).train()(made_up_examples(model, 1, shape))
        cross_entropy(logits, torch.zeros(1, dtype=torch.int64))


def _check_state(build: Callable[[int], nn.Module], x: Tensor, name: str) -> None:
    """Check that weights and buffers decide the logits: with those of one network, a copy of
    another gives the same.

    Other values that a network draws when it is built would be others in a ticket's file. A
    function or a hook that holds the network still uses the one that was copied, whose weights are
    never trained.

    Args:
        build: as in `check_network`.
        x: examples (n, ...) float32.
    """
    one, other = build(0).eval(), copy.deepcopy(build(1)).eval()
    state = {name: value.clone() for name, value in state_of(one).items()}
    logits, failing = [], "must run with other weights of the same signs, but fails"
    with torch.no_grad(), errors_as_spec_errors(FIELD, failing, name):
        with seeded_draws(0):  # weights that both draw alike would hide a copy
            for key in [key for key, _ in one.named_parameters() if key in state]:
                draws = torch.rand_like(state[key])
                state[key] += 0.1 * draws * torch.where(state[key] == 0, 1, state[key])
        for model in (one, other):
            load_state(model, state)
            with seeded_draws(0):
                logits.append(model(x))
    first, second = logits
    if not torch.allclose(first, second, rtol=1e-4, atol=1e-5, equal_nan=True):
        rule = (
            "must be decided by its weights and persistent buffers: with those of one network, a "
            "copy of another gives other logits. Register what is drawn when it is built as a "
            "persistent buffer; functions, hooks and lists must hold neither the network nor layers"
        )
        raise SpecError(FIELD, rule, name)


def _check_memory(model: nn.Module, x: Tensor, name: str) -> None:
    """Check that equal weights, buffers and draws give equal logits, whatever ran before.

    A rewind point, a checkpoint and a stored training have weights and buffers only.

    Args:
        x: examples (n, ...) float32.
    """
    state = {key: value.clone() for key, value in state_of(model).items()}
    logits = []
    for _ in range(2):
        load_state(model, state)
        dropout_off(model.train())
        with torch.no_grad(), seeded_draws(0):
            logits.append(model(x))
    first, second = logits
    if not torch.allclose(first, second, equal_nan=True):
        rule = (
            "must keep in persistent buffers all that a forward pass changes: with equal weights, "
            "buffers and draws, a second pass gives other logits than the first"
        )
        raise SpecError(FIELD, rule, name)


def _is_lazy(module: nn.Module) -> bool:
    """Whether a module has parameters or buffers without a shape yet."""
    own = [*module._parameters.values(), *module._buffers.values()]
    return any(tensor is not None and is_lazy(tensor) for tensor in own)


def _check_logits(logits: object, name: str, expected: tuple[int, int]) -> None:
    count, classes = expected
    if not isinstance(logits, Tensor):
        rule = f"must return a tensor of logits, (n, {classes}), not a {type(logits).__name__}"
        raise SpecError(FIELD, rule, name)
    if logits.shape != expected:
        rule = f"must return logits of shape (n, {classes}), one for each class of the data, not "
        rule += f"{tuple(logits.shape)} for n = {count}"
        raise SpecError(FIELD, rule, name)
    if logits.dtype != torch.float32:
        raise SpecError(FIELD, f"must return float32 logits, not {logits.dtype}", name)
