"""R networks as one: every layer carries a replica axis in front.

A plain network maps (B, …) to (B, outputs); stacked, (R, B, …) to (R, B, outputs), replica r by its own weights. A
linear layer is then one batched matrix product over (R, in, out), so the cost of calling it is paid once for all.

All parameters live in one (R, P) matrix, `Arena.values`, and all gradients in another of the same shape; each layer
holds views. That makes everything that is done per replica a row operation: an optimizer step on some rows, a gradient
norm, a copy of the best weights, the removal of a finished replica.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.engines.lightning.learning import Learning
from pipeline.engines.lightning.recurrent import StackedRecurrent
from pipeline.engines.lightning.transfers import fetched
from pipeline.models.cnn import CNN
from pipeline.models.mlp import MLP, Residual
from pipeline.models.rnn import RNN, DropUnits, Recurrent, ToSequence

aten = torch.ops.aten

_IN_PLACE = 2**15
"""Weights of a layer from which their gradients are written where they belong. There they lie apart, replica from
replica, so torch multiplies one after another; less than this, and one product of all plus a copy is faster."""


_WIDTH = 64
"""Numbers that torch's kernels work on together, at most. What is left over at the end of an array they may round
otherwise; so no row of a replica may reach there by who stands before it."""


class StackedLinear(Learning):
    """R linear layers, y = x·Wᵀ + b: weight (R, out, in), bias (R, out)."""

    def forward(self, x: Tensor) -> Tensor:
        """(R, B, in) to (R, B, out)."""
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if torch.is_autocast_enabled(x.device.type):
            low = torch.get_autocast_dtype(x.device.type)
            x, weight, bias = x.to(low), weight.to(low), bias.to(low)
        return torch.baddbmm(bias[:, None], x, weight.mT)

    def backward(self, dy: Tensor, x: Tensor, _: Tensor, first: bool) -> Tensor:
        """dW = dyᵀ·x, db = Σ dy over the batch, dx = dy·W; of the first layer nobody needs dx."""
        x, weight = x.to(dy.dtype), self.grads["weight"]
        if weight.dtype == dy.dtype and (weight.is_cuda or weight[0].numel() >= _IN_PLACE):
            torch.bmm(dy.mT, x, out=weight)
        else:
            weight.copy_(torch.bmm(dy.mT, x))
        torch.sum(dy, 1, out=self.grads["bias"])
        return dy if first else torch.bmm(dy, self.weight.to(dy.dtype))


class StackedConv2d(Learning):
    """R convolutions as one whose groups are the replicas: weight (R, out, in, height, width), bias (R, out)."""

    def __init__(self, layers: Sequence[nn.Conv2d]) -> None:
        super().__init__(layers)
        self.stride, self.padding, self.dilation = layers[0].stride, layers[0].padding, layers[0].dilation

    def forward(self, x: Tensor) -> Tensor:
        """(R, B, in, height, width) to (R, B, out, …)."""
        weight, bias = self.weight.flatten(0, 1), self.bias.flatten()
        if torch.is_autocast_enabled(x.device.type):
            low = torch.get_autocast_dtype(x.device.type)
            x, weight, bias = x.to(low), weight.to(low), bias.to(low)
        y = torch.conv2d(_pixel_by_pixel(_in_groups(x)), weight, bias, self.stride, self.padding, self.dilation, len(x))
        return _out_of_groups(y, len(x))

    def backward(self, dy: Tensor, x: Tensor, _: Tensor, first: bool) -> Tensor:
        """By torch's own kernel; of the first layer nobody needs dx."""
        weight = self.weight.flatten(0, 1).to(dy.dtype)
        places = (self.stride, self.padding, self.dilation, False, (0, 0), len(x))
        wanted = (not first, True, True)
        inputs, sizes = _pixel_by_pixel(_in_groups(x.to(dy.dtype))), [len(weight)]
        dx, dw, db = aten.convolution_backward(_in_groups(dy), inputs, weight, sizes, *places, wanted)
        self.grads["weight"].copy_(dw.view_as(self.weight))
        self.grads["bias"].copy_(db.view_as(self.bias))
        return dy if first else _out_of_groups(dx, len(x))


class StackedMaxPool2d(nn.Module):
    """R poolings of (R, B, channels, height, width)."""

    def __init__(self, layers: Sequence[nn.MaxPool2d]) -> None:
        super().__init__()
        like = layers[0]
        stride = like.kernel_size if like.stride is None else like.stride
        each = (like.kernel_size, stride, like.padding, like.dilation)
        self._places = [(one, one) if isinstance(one, int) else tuple(one) for one in each]
        self._ceil = like.ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        """The largest of each window."""
        y, self._largest = aten.max_pool2d_with_indices(_in_groups(x), *self._places, self._ceil)
        return _out_of_groups(y, len(x))

    def backward(self, dy: Tensor, x: Tensor, _: Tensor, first: bool) -> Tensor:  # noqa: ARG002
        """To where the largest came from."""
        back = aten.max_pool2d_with_indices_backward
        return _out_of_groups(back(_in_groups(dy), _in_groups(x), *self._places, self._ceil, self._largest), len(x))


def _in_groups(x: Tensor) -> Tensor:
    """(R, B, channels, …) to (B, R · channels, …); what came out of a group needs no copy."""
    return x.transpose(0, 1).flatten(1, 2)


def _pixel_by_pixel(x: Tensor) -> Tensor:
    """(B, channels, height, width) with the channels of a pixel side by side, as a CPU computes images fastest.

    What follows keeps the order: pooling, activations, norms. torch's own `channels_last` leaves a single channel as it
    is, for both orders are then the same, and gives the convolution of it back in the slow one.
    """
    if x.device.type != "cpu" or (x.shape[1] > 1 and x.is_contiguous(memory_format=torch.channels_last)):
        return x
    _, channels, height, width = x.shape
    places = torch.empty_strided(x.shape, (channels * height * width, 1, channels * width, channels), dtype=x.dtype)
    return places.copy_(x)


def _out_of_groups(x: Tensor, replicas: int) -> Tensor:
    """The inverse."""
    return x.view(len(x), replicas, -1, *x.shape[2:]).transpose(0, 1)


class StackedLayerNorm(Learning):
    """R layer normalisations, each row of (R, B, units) over its own units (Ba, Kiros and Hinton, 2016)."""

    def __init__(self, layers: Sequence[nn.LayerNorm]) -> None:
        super().__init__(layers)
        self.eps = layers[0].eps

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
        self._inverse = torch.rsqrt(variance + self.eps)
        self._normal = (x - mean) * self._inverse
        return self._normal * self.weight[:, None] + self.bias[:, None]

    def backward(self, dy: Tensor, x: Tensor, _: Tensor, first: bool) -> Tensor:  # noqa: ARG002
        """dγ = Σ dy·x̂ and dβ = Σ dy over the batch; with g = γ·dy, dx = (g - mean(g) - x̂·mean(g·x̂))/σ over units."""
        self.grads["weight"].copy_((dy * self._normal).sum(1))
        self.grads["bias"].copy_(dy.sum(1))
        g = dy * self.weight[:, None]
        along = (g * self._normal).mean(-1, keepdim=True)
        return ((g - g.mean(-1, keepdim=True) - self._normal * along) * self._inverse).to(dy.dtype)


class StackedBatchNorm(Learning):
    """R batch normalisations over (R, B, units, …), each over its own batch (Ioffe and Szegedy, ICML 2015).

    What follows the units, the places of an image, counts as more rows.
    """

    def __init__(self, layers: Sequence[nn.BatchNorm1d | nn.BatchNorm2d]) -> None:
        super().__init__(layers)
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.stack([_tensor(layer.running_mean) for layer in layers]))
        self.register_buffer("running_var", torch.stack([_tensor(layer.running_var) for layer in layers]))
        self.eps, self.momentum = layers[0].eps, layers[0].momentum or 0.1

    def forward(self, x: Tensor) -> Tensor:
        """The same shape; running statistics in evaluation."""
        if x.dim() > 3:
            return self._of_images(x)
        if self.training:
            variance, mean = _moments(x)
            size = x.shape[1]
            unbiased = variance * (size / max(size - 1, 1))
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        else:
            mean, variance = self.running_mean, self.running_var
        self._mean, self._inverse = mean[:, None], torch.rsqrt(variance + self.eps)[:, None]
        return (x - self._mean) * (self._inverse * self.weight[:, None]) + self.bias[:, None]

    def backward(self, dy: Tensor, x: Tensor, _: Tensor, first: bool) -> Tensor:  # noqa: ARG002
        """With x̂ = (x - mean)/σ: dγ = Σ dy·x̂, dβ = Σ dy, dx = γ/σ·(dy - dβ/B - x̂·dγ/B); sums over the batch."""
        if x.dim() > 3:
            return self._back_to_images(dy, x)
        x_hat = (x - self._mean) * self._inverse
        d_weight, d_bias = (dy * x_hat).sum(1), dy.sum(1)
        self.grads["weight"].copy_(d_weight)
        self.grads["bias"].copy_(d_bias)
        centred = dy - (d_bias / x.shape[1])[:, None] - x_hat * (d_weight / x.shape[1])[:, None]
        return (centred * (self._inverse * self.weight[:, None])).to(dy.dtype)

    def _of_images(self, x: Tensor) -> Tensor:
        """Channels of all replicas side by side are channels to torch's own kernel, which reads an image twice, not
        nine times."""
        numbers = [each.flatten() for each in (self.weight, self.bias, self.running_mean, self.running_var)]
        y, *self._seen = aten.native_batch_norm(_in_groups(x), *numbers, self.training, self.momentum, self.eps)
        self.running_mean.copy_(numbers[2].view_as(self.running_mean))  # a row of an arena flattens to a copy
        self.running_var.copy_(numbers[3].view_as(self.running_var))
        return _out_of_groups(y, len(x))

    def _back_to_images(self, dy: Tensor, x: Tensor) -> Tensor:
        numbers = [each.flatten() for each in (self.weight, self.running_mean, self.running_var)]
        parts = (_in_groups(dy), _in_groups(x), *numbers, *self._seen, True, self.eps, [True] * 3)
        dx, d_weight, d_bias = aten.native_batch_norm_backward(*parts)
        self.grads["weight"].copy_(d_weight.view_as(self.weight))
        self.grads["bias"].copy_(d_bias.view_as(self.bias))
        return _out_of_groups(dx.to(dy.dtype), len(x))


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and mean over the batch. On a CPU, torch's `var_mean` along rows takes ten times as long as two sums."""
    if x.device.type != "cpu" or x.element_size() < 4:
        return torch.var_mean(x, dim=1, correction=0)
    mean = x.mean(1)
    return (x - mean[:, None]).square_().mean(1), mean


class StackedDropout(nn.Module):
    """Inverted dropout with masks from outside, so that they can come from the streams every engine shares."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x is (R, B, units), or (R, B, steps, units) with one mask for all steps; the mask is 0 or 1 / (1 - p)."""
        return x * mask


class StackedActivation(nn.Module):
    """R activations, each on its own replica; neighbours with the same one share a call.

    spends_input: nobody needs what comes in afterwards, so what goes out may take its place; spends_gradient: the same
    on the way back. Fresh memory costs several times what the simplest of them compute.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.spends_input = self.spends_gradient = False
        self._layers = list(layers)  # without parameters, so they need not be registered
        self._runs = self._neighbours()

    @property
    def kinds(self) -> list[type[nn.Module]]:
        """Which one each replica has."""
        return [type(layer) for layer in self._layers]

    def forward(self, x: Tensor) -> Tensor:
        """(R, B, units) to the same shape."""
        if len(self._runs) == 1:
            layer = self._runs[0][0]
            if self.spends_input and type(layer) in _IN_PLACE_FORMS:
                return _IN_PLACE_FORMS[type(layer)](x)  # type: ignore[no-any-return]
            return layer(x)  # type: ignore[no-any-return]
        parts = torch.split(x, [length for _, length in self._runs])
        return torch.cat([layer(part) for (layer, _), part in zip(self._runs, parts, strict=True)])

    def backward(self, dy: Tensor, x: Tensor, y: Tensor, first: bool) -> Tensor:  # noqa: ARG002
        """dx from dy, what went in and what came out."""
        if len(self._runs) == 1:
            layer = self._runs[0][0]
            if self.spends_gradient and type(layer) is nn.ReLU:
                return aten.threshold_backward.grad_input(dy, y, 0, grad_input=dy)  # type: ignore[no-any-return]
            return derivative(layer, dy, x, y)
        lengths = [length for _, length in self._runs]
        parts = zip(self._runs, *(torch.split(each, lengths) for each in (dy, x, y)), strict=True)
        return torch.cat([derivative(layer, *part) for (layer, _), *part in parts])

    def regroup(self, rows: Sequence[int], entering: Sequence[nn.Module]) -> None:
        """Keep these replicas, and put others behind them."""
        self._layers = [self._layers[row] for row in rows] + list(entering)
        self._runs = self._neighbours()

    def _neighbours(self) -> list[tuple[nn.Module, int]]:
        runs = [list(run) for _, run in groupby(self._layers, key=repr)]
        return [(run[0], len(run)) for run in runs]


class StackedSequence(nn.Module):
    """R times `ToSequence`."""

    def forward(self, x: Tensor) -> Tensor:
        """(R, B, …) to (R, B, steps, numbers)."""
        return ToSequence()(x.flatten(0, 1)).unflatten(0, x.shape[:2])  # type: ignore[no-any-return]


class StackedFlatten(nn.Module):
    """(R, B, …) to (R, B, inputs)."""

    def forward(self, x: Tensor) -> Tensor:
        """Flatten all but replica and row."""
        return x.flatten(2)

    def backward(self, dy: Tensor, x: Tensor, _: Tensor, first: bool) -> Tensor:  # noqa: ARG002
        """The same numbers in the shape that came in."""
        return dy.reshape(x.shape)


class StackedUnflatten(nn.Module):
    """(R, B, …) with one axis of each row made into several."""

    def __init__(self, layers: Sequence[nn.Unflatten]) -> None:
        super().__init__()
        self._axis, self._sizes = int(layers[0].dim) + 1, list(layers[0].unflattened_size)

    def forward(self, x: Tensor) -> Tensor:
        """The same numbers."""
        return x.reshape(*x.shape[: self._axis], *self._sizes, *x.shape[self._axis + 1 :])

    def backward(self, dy: Tensor, x: Tensor, _: Tensor, first: bool) -> Tensor:  # noqa: ARG002
        """The same numbers in the shape that came in."""
        return dy.reshape(x.shape)


class Masks:
    """Dropout's masks of a step, (R, B, hidden units), handed out layer by layer, first layer first."""

    def __init__(self, mask: Tensor | None) -> None:
        self._mask, self._taken = mask, 0

    def take(self, x: Tensor) -> Tensor | None:
        """Of the units of x, (R, B, units) or the same in all steps of (R, B, steps, units); None drops nothing."""
        start, self._taken = self._taken, self._taken + x.shape[-1]
        mask = None if self._mask is None else self._mask[..., start : self._taken]
        return mask if mask is None or x.dim() == 3 else mask[:, :, None]


Step = tuple[Any, Tensor, Tensor, Any]
"""A layer with what went into it and came out of it, and what it was given: dropout its mask, a sum its inner steps."""


class StackedNetwork(nn.Module):
    """R sequential networks of the same shape, under the names of the plain one's children."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        for name, child in networks[0].named_children():
            alike = [network.get_submodule(name) for network in networks]
            self.add_module(name, _STACKED.get(type(child), StackedActivation)(alike))
        self._order = list(self.children())
        self._save_memory()

    def _save_memory(self) -> None:
        """What a layer with weights hands on is its own, and its `backward` does not look at it; what comes back
        through one is its own, too, while the gradient that the caller gives may be needed again."""
        for place, layer in enumerate(self._order):
            if isinstance(layer, StackedActivation):
                layer.spends_input = place > 0 and isinstance(self._order[place - 1], Learning)
                layer.spends_gradient = any(isinstance(behind, Learning) for behind in self._order[place + 1 :])

    def forward(self, x: Tensor) -> Tensor:
        """(R, B, …) to (R, B, outputs), with all units."""
        for layer in self._order:
            if not isinstance(layer, StackedDropout):
                x = layer(x)
        return x

    def trace(self, x: Tensor, mask: Tensor | Masks | None = None) -> tuple[Tensor, list[Step]]:
        """The same in training, and what `backward` needs of it.

        mask: dropout's, (R, B, hidden units), first layer first; None drops none.
        """
        masks = mask if isinstance(mask, Masks) else Masks(mask)
        steps: list[Step] = []
        for layer in self._order:
            given: Any = None
            if isinstance(layer, StackedDropout):
                given = masks.take(x)
                if given is None:
                    continue
                y = layer(x, given)
            elif isinstance(layer, StackedResidual):
                y, given = layer.trace(x, masks)
            else:
                y = layer(x)
            steps.append((layer, x, y, given))
            x = y
        return x, steps

    @staticmethod
    def backward(dy: Tensor, steps: Sequence[Step], whole: bool = False) -> Tensor:
        """Gradients of all layers from that of the logits (R, B, outputs), last layer first.

        whole: goes on to what went in, and returns its gradient; else up to the first layer that learns.
        """
        first = -1 if whole else next(place for place, (layer, *_) in enumerate(steps) if isinstance(layer, Learning))
        for place in range(len(steps) - 1, max(first, 0) - 1, -1):
            layer, x, y, given = steps[place]
            if isinstance(layer, StackedDropout):
                dy = dy * given
            elif isinstance(layer, StackedResidual):
                dy = dy + StackedNetwork.backward(dy, given, whole=True)
            else:
                dy = layer.backward(dy, x, y, place == first)
        return dy

    @property
    def droppable(self) -> int:
        """Units that dropout's masks are for."""
        units = width = 0
        for layer in self.children():
            if isinstance(layer, StackedLinear):
                width = layer.weight.shape[1]
            elif isinstance(layer, StackedRecurrent):
                width = layer.width
            elif isinstance(layer, StackedResidual):
                units += layer.body.droppable
            elif isinstance(layer, StackedDropout):
                units += width
        return units

    def regroup(self, rows: Sequence[int], entering: Sequence[nn.Module]) -> None:
        """Keep the activations of these replicas, and put those of other networks behind them."""
        for name, layer in self.named_modules():
            if isinstance(layer, StackedActivation):
                layer.regroup(rows, [network.get_submodule(name) for network in entering])


class StackedResidual(nn.Module):
    """R times y = x + body(x)."""

    def __init__(self, layers: Sequence[Residual]) -> None:
        super().__init__()
        self.body = StackedNetwork([layer.body for layer in layers])

    def forward(self, x: Tensor) -> Tensor:
        """(R, B, units) to the same shape, with all units."""
        return x + self.body(x)  # type: ignore[no-any-return]

    def trace(self, x: Tensor, masks: Masks) -> tuple[Tensor, list[Step]]:
        """The same in training, and the steps of the body."""
        y, steps = self.body.trace(x, masks)
        return x + y, steps


class SingleNetwork(nn.Module):
    """One network that cannot be stacked, behind the interface of a stack with R = 1; autograd differentiates it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(1, B, …) to (1, B, outputs)."""
        return self.network(x[0])[None]  # type: ignore[no-any-return]


# fmt: off
_ELEMENTWISE = (
    nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Mish, nn.Identity, nn.ReLU6,
    nn.SELU, nn.CELU, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid, nn.Softsign, nn.Tanhshrink,
    nn.Softshrink, nn.Hardshrink,
)
# fmt: on
_IN_PLACE_FORMS: dict[type[nn.Module], Any] = {nn.ReLU: torch.relu_, nn.Tanh: torch.tanh_, nn.Sigmoid: torch.sigmoid_}
"""Of those whose derivative follows from y alone."""
_STACKED: dict[type[nn.Module], Any] = {
    nn.Linear: StackedLinear,
    nn.BatchNorm1d: StackedBatchNorm,
    nn.BatchNorm2d: StackedBatchNorm,
    nn.LayerNorm: StackedLayerNorm,
    nn.Conv2d: StackedConv2d,
    nn.MaxPool2d: StackedMaxPool2d,
    nn.Unflatten: StackedUnflatten,
    Residual: StackedResidual,
    Recurrent: StackedRecurrent,
    ToSequence: lambda _: StackedSequence(),
    DropUnits: lambda _: StackedDropout(),
    nn.Dropout: lambda _: StackedDropout(),
    nn.Flatten: lambda _: StackedFlatten(),
}


# fmt: off
_DERIVATIVES: dict[type[nn.Module], Any] = {  # layer, dy, x, y -> dx
    nn.ReLU:      lambda _, dy, x, y: aten.threshold_backward(dy, y, 0),  # noqa: ARG005
    nn.Tanh:      lambda _, dy, x, y: aten.tanh_backward(dy, y),  # noqa: ARG005
    nn.Sigmoid:   lambda _, dy, x, y: aten.sigmoid_backward(dy, y),  # noqa: ARG005
    nn.SiLU:      lambda _, dy, x, y: aten.silu_backward(dy, x),  # noqa: ARG005
    nn.Mish:      lambda _, dy, x, y: aten.mish_backward(dy, x),  # noqa: ARG005
    nn.GELU:      lambda f, dy, x, y: aten.gelu_backward(dy, x, approximate=f.approximate),  # noqa: ARG005
    nn.ELU:       lambda f, dy, x, y: aten.elu_backward(dy, f.alpha, 1, 1, False, x),  # noqa: ARG005
    nn.LeakyReLU: lambda f, dy, x, y: aten.leaky_relu_backward(dy, x, f.negative_slope, False),  # noqa: ARG005
    nn.Softplus:  lambda f, dy, x, y: aten.softplus_backward(dy, x, f.beta, f.threshold),  # noqa: ARG005
}
# fmt: on


def derivative(layer: nn.Module, dy: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """dx of an activation: by torch's own kernel, or for one that is not listed by autograd."""
    if type(layer) in _DERIVATIVES:
        return _DERIVATIVES[type(layer)](layer, dy, x, y)  # type: ignore[no-any-return]
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(layer(x), x, dy)[0]


def acts_on_elements(layer: type) -> bool:
    """Whether a layer is known to act on each element alone, so that it needs no replica axis."""
    return layer in _ELEMENTWISE


def can_stack(network: nn.Module) -> bool:
    """Whether the network is a plain sequence of layers that have a stacked form or act on each element alone.

    Dropout has one in our own networks only, where `model.dropout` is its probability: the masks are drawn by that.
    """
    if not isinstance(network, nn.Sequential) or type(network).forward is not nn.Sequential.forward:
        return False
    ours = isinstance(network, MLP | CNN | RNN)
    drops = any(isinstance(layer, nn.Dropout) for layer in network.modules())
    return (ours or not drops) and all(_has_stacked_form(layer) for layer in network)


def _has_stacked_form(layer: nn.Module) -> bool:
    """Of layers with options, those options that the layers above have."""
    if isinstance(layer, nn.Linear) and layer.bias is None:
        return False
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        return layer.affine and layer.track_running_stats and layer.momentum is not None
    if isinstance(layer, nn.LayerNorm):
        return layer.elementwise_affine and len(layer.normalized_shape) == 1 and layer.bias is not None
    if isinstance(layer, nn.Conv2d):
        zeros = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        return layer.bias is not None and layer.groups == 1 and zeros
    if isinstance(layer, nn.MaxPool2d):
        return not layer.return_indices
    if isinstance(layer, nn.Unflatten):
        return isinstance(layer.dim, int) and layer.dim > 0
    if isinstance(layer, Residual):
        return all(_has_stacked_form(inner) for inner in layer.body)
    return type(layer) in _STACKED or acts_on_elements(type(layer))


def stack(networks: Sequence[nn.Module]) -> StackedNetwork | SingleNetwork:
    """One network out of R of the same shape; what cannot be stacked must come alone."""
    if can_stack(networks[0]):
        return StackedNetwork(networks)
    if len(networks) != 1:
        raise ValueError(f"{type(networks[0]).__name__} has no stacked form, so its replicas must come one by one.")
    return SingleNetwork(networks[0])


Row = tuple[Tensor, Tensor]
"""Parameters and statistics of one replica."""


class Arena:
    """All parameters and statistics of R replicas, a row each.

    values, grads: (R, P). statistics: (R, S), running means and variances of batch norm. After `bind`, the network's
    parameters and buffers are views of these, and so are the gradients of those layers that write them. Rows end with
    zeros up to a multiple of `_WIDTH`.
    """

    def __init__(self, network: StackedNetwork | SingleNetwork, replicas: int) -> None:
        self._network = network
        self._replicas = replicas
        self.bind()

    def bind(self) -> None:
        """(Re)build the matrices from the network's present tensors, on their device, and make those views."""
        parameters = list(self._network.named_parameters())
        floats = [(name, buffer) for name, buffer in self._network.named_buffers() if buffer.is_floating_point()]
        self._names = [name for name, _ in parameters]
        self._statistic_names = [name for name, _ in floats]
        self._shapes = {name: self._row_shape(tensor) for name, tensor in [*parameters, *floats]}
        self._adopt(self._matrix([tensor for _, tensor in parameters]), self._matrix([tensor for _, tensor in floats]))

    def select(self, rows: Sequence[int], entering: Sequence[nn.Module] = ()) -> None:
        """Keep only these replicas, in this order, and put others of the same shape behind them."""
        index = torch.tensor(rows, dtype=torch.int64, device=self.values.device)
        parts = [(self.values.index_select(0, index), self.statistics.index_select(0, index))]
        if entering:
            others = Arena(stack(entering).to(self.values), len(entering))
            parts.append((others.values, others.statistics))
        if isinstance(self._network, StackedNetwork):
            self._network.regroup(rows, entering)
        self._replicas = len(rows) + len(entering)
        values, statistics = zip(*parts, strict=True)
        self._adopt(torch.cat(values), torch.cat(statistics))

    def collect(self) -> None:
        """Bring the gradients that autograd keeps elsewhere into `grads`."""
        for parameter, view in self._loose:
            if parameter.grad is None:
                view.zero_()
            else:
                view.copy_(parameter.grad)
                parameter.grad = None

    @property
    def weights(self) -> Tensor:
        """(P,) 1 for the numbers of weight matrices, 0 for those of biases and norms."""
        shapes = [self._shapes[name] for name in self._names]
        kinds = torch.cat([self.values.new_full((shape.numel(),), len(shape) > 1) for shape in shapes])
        return nn.functional.pad(kinds, (0, self.values.shape[1] - len(kinds)))

    @torch.no_grad()
    def limit_weights(self, largest: Tensor) -> None:
        """Shorten the weights that lead to one unit to this norm (R,), where they are longer.

        Srivastava et al., "Dropout", JMLR 15 (2014), section 5.1.
        """
        offset = 0
        for name in self._names:
            shape = self._shapes[name]
            part = self.values[:, offset : offset + shape.numel()]
            offset += shape.numel()
            if len(shape) > 1:
                units = part.view(len(part), shape[0], -1)
                norms = torch.linalg.vector_norm(units, dim=2, keepdim=True)
                units.mul_((largest[:, None, None] / norms.clamp_min(1e-30)).clamp_(max=1))

    def row(self, row: int) -> Row:
        """Copies of one replica's parameters and statistics, on their device."""
        return self.values[row].clone(), self.statistics[row].clone()

    def arrays(self, kept: Row) -> list[np.ndarray]:
        """Such copies on the CPU, in the shapes of the plain network."""
        both = zip(kept, (self._names, self._statistic_names), strict=True)
        # What a GPU was fetched from lies in memory that others need, too.
        at_home = ((fetched(part).copy() if part.is_cuda else fetched(part), names) for part, names in both)
        return [cut.numpy() for part, names in at_home for cut in _cut(torch.from_numpy(part), self._shapes_of(names))]

    def gradients(self, row: int) -> list[Tensor]:
        """One replica's gradients, in the shapes of the plain network."""
        return _cut(self.grads[row], self._shapes_of(self._names))

    def _shapes_of(self, names: Sequence[str]) -> list[torch.Size]:
        return [self._shapes[name] for name in names]

    def _adopt(self, values: Tensor, statistics: Tensor) -> None:
        self.values, self.statistics = values, statistics
        self.grads = torch.zeros_like(values)
        self._loose: list[tuple[nn.Parameter, Tensor]] = []
        for name, view, grad in self._views(values, self._names, self.grads):
            module, _, leaf = name.rpartition(".")
            layer = self._network.get_submodule(module)
            parameter: nn.Parameter = getattr(layer, leaf)
            parameter.data = view
            if isinstance(layer, Learning):
                layer.grads[leaf] = grad
            else:
                self._loose.append((parameter, grad))
        for name, view, _ in self._views(statistics, self._statistic_names, statistics):
            module, _, leaf = name.rpartition(".")
            setattr(self._network.get_submodule(module), leaf, view)

    def _views(self, matrix: Tensor, names: Sequence[str], grads: Tensor) -> list[tuple[str, Tensor, Tensor]]:
        lead = () if isinstance(self._network, SingleNetwork) else (self._replicas,)
        views, offset = [], 0
        for name in names:
            size = self._shapes[name].numel()
            part = slice(offset, offset + size)
            shape = (*lead, *self._shapes[name])
            views.append((name, matrix[:, part].view(shape), grads[:, part].view(shape)))
            offset += size
        return views

    def _matrix(self, tensors: Sequence[Tensor]) -> Tensor:
        rows = [tensor.detach().reshape(self._replicas, -1) for tensor in tensors]
        like = next(self._network.parameters())
        size = sum(row.shape[1] for row in rows)
        return torch.cat([*rows, like.new_zeros(self._replicas, -size % _WIDTH)], dim=1)

    def _row_shape(self, tensor: Tensor) -> torch.Size:
        return tensor.shape if isinstance(self._network, SingleNetwork) else tensor.shape[1:]


def _cut(row: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    sizes = [shape.numel() for shape in shapes]
    *parts, _ = torch.split(row, [*sizes, len(row) - sum(sizes)])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def _tensor(maybe: Tensor | None) -> Tensor:
    assert maybe is not None  # `_has_stacked_form` demands running statistics
    return maybe
