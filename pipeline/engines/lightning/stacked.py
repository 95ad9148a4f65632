"""R networks as one: every layer carries a replica axis in front.

A plain network maps (B, …) to (B, outputs); stacked, (R, B, …) to (R, B, outputs), replica r by its own weights. A
linear layer is then one batched matrix product over (R, in, out), so the cost of calling it is paid once for all.

All parameters live in one (R, P) matrix, `Arena.values`, and all gradients in another of the same shape; each layer
holds views. That makes everything that is done per replica a row operation: an optimizer step on some rows, a gradient
norm, a copy of the best weights, the removal of a finished replica.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class _Linear(torch.autograd.Function):
    """y = x·Wᵀ + b per replica, with a backward that writes where the optimizer reads.

    dW = dyᵀ·x, db = Σ dy over the batch, dx = dy·W. Autograd would compute dW into a new tensor and then add it to
    the gradient; writing in place saves that pass, a quarter of a step at 784-512-512-10 on two cores.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, weight_grad: Tensor, bias_grad: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            low = torch.get_autocast_dtype(x.device.type)
            x, weight, bias = x.to(low), weight.to(low), bias.to(low)
        ctx.save_for_backward(x, weight)
        ctx.grads = weight_grad, bias_grad  # not saved: they share memory with those of the other layers, which change
        return torch.baddbmm(bias[:, None], x, weight.mT)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        (dy,) = grad_outputs
        x, weight = ctx.saved_tensors
        weight_grad, bias_grad = ctx.grads
        if weight_grad.dtype == dy.dtype:
            torch.bmm(dy.mT, x, out=weight_grad)
            torch.sum(dy, 1, out=bias_grad)
        else:
            weight_grad.copy_(torch.bmm(dy.mT, x))
            bias_grad.copy_(dy.sum(1, dtype=bias_grad.dtype))
        return (torch.bmm(dy, weight) if ctx.needs_input_grad[0] else None), None, None, None, None


class StackedLinear(nn.Module):
    """R linear layers: weight (R, out, in), bias (R, out).

    The gradients go to `grads` and not to `weight.grad`, which Lightning clears, and are written, not added.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = _stacked([layer.weight for layer in layers])
        self.bias = _stacked([layer.bias for layer in layers])
        self.grads = {"weight": torch.zeros_like(self.weight), "bias": torch.zeros_like(self.bias)}

    def forward(self, x: Tensor) -> Tensor:
        """(R, B, in) to (R, B, out)."""
        if torch.is_grad_enabled():
            grads = self.grads["weight"], self.grads["bias"]
            return _Linear.apply(x, self.weight, self.bias, *grads)  # type: ignore[no-any-return]
        return torch.baddbmm(self.bias[:, None], x, self.weight.mT)


class StackedBatchNorm(nn.Module):
    """R batch normalisations over (R, B, units), each over its own batch (Ioffe and Szegedy, ICML 2015)."""

    def __init__(self, layers: Sequence[nn.BatchNorm1d]) -> None:
        super().__init__()
        self.weight = _stacked([layer.weight for layer in layers])
        self.bias = _stacked([layer.bias for layer in layers])
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.stack([_tensor(layer.running_mean) for layer in layers]))
        self.register_buffer("running_var", torch.stack([_tensor(layer.running_var) for layer in layers]))
        self.eps, self.momentum = layers[0].eps, layers[0].momentum or 0.1

    def forward(self, x: Tensor) -> Tensor:
        """(R, B, units) to the same shape; running statistics in evaluation."""
        if self.training:
            variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
            with torch.no_grad():
                unbiased = variance[:, 0] * (x.shape[1] / max(x.shape[1] - 1, 1))
                self.running_mean.lerp_(mean[:, 0].to(self.running_mean.dtype), self.momentum)
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        else:
            mean, variance = self.running_mean[:, None], self.running_var[:, None]
        return (x - mean) * (torch.rsqrt(variance + self.eps) * self.weight[:, None]) + self.bias[:, None]


class StackedDropout(nn.Module):
    """Inverted dropout with masks from outside, so that they can come from the streams every engine shares."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x and mask are (R, B, units); the mask is 0 or 1 / (1 - p)."""
        return x * mask


class StackedFlatten(nn.Module):
    """(R, B, …) to (R, B, inputs)."""

    def forward(self, x: Tensor) -> Tensor:
        """Flatten all but replica and row."""
        return x.flatten(2)


class StackedNetwork(nn.Module):
    """R sequential networks of the same shape, under the names of the plain one's children."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        for name, child in networks[0].named_children():
            alike = [network.get_submodule(name) for network in networks]
            self.add_module(name, _STACKED[type(child)](alike) if type(child) in _STACKED else child)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(R, B, …) to (R, B, outputs). mask: dropout's, (R, B, hidden units), first layer first; None drops none."""
        offset = 0
        for layer in self.children():
            if not isinstance(layer, StackedDropout):
                x = layer(x)
            elif mask is not None:
                x = layer(x, mask[..., offset : offset + x.shape[-1]])
                offset += x.shape[-1]
        return x


class SingleNetwork(nn.Module):
    """One network that cannot be stacked, behind the interface of a stack with R = 1."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # noqa: ARG002 - such a network drops by itself
        """(1, B, …) to (1, B, outputs)."""
        return self.network(x[0])[None]  # type: ignore[no-any-return]


# fmt: off
_ELEMENTWISE = (
    nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Mish, nn.Identity, nn.ReLU6,
    nn.SELU, nn.CELU, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid, nn.Softsign, nn.Tanhshrink,
    nn.Softshrink, nn.Hardshrink,
)
# fmt: on
_STACKED: dict[type[nn.Module], Any] = {
    nn.Linear: StackedLinear,
    nn.BatchNorm1d: StackedBatchNorm,
    nn.Dropout: lambda _: StackedDropout(),
    nn.Flatten: lambda _: StackedFlatten(),
}


def can_stack(network: nn.Module) -> bool:
    """Whether the network is a plain sequence of layers that have a stacked form or act on each element alone."""
    if not isinstance(network, nn.Sequential) or type(network).forward is not nn.Sequential.forward:
        return False
    return all(_has_stacked_form(layer) for layer in network)


def _has_stacked_form(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Linear) and layer.bias is None:
        return False
    if isinstance(layer, nn.BatchNorm1d):
        return layer.affine and layer.track_running_stats and layer.momentum is not None
    return type(layer) in _STACKED or type(layer) in _ELEMENTWISE


def stack(networks: Sequence[nn.Module]) -> StackedNetwork | SingleNetwork:
    """One network out of R of the same shape; what cannot be stacked must come alone."""
    if can_stack(networks[0]):
        return StackedNetwork(networks)
    if len(networks) != 1:
        raise ValueError(f"{type(networks[0]).__name__} has no stacked form, so its replicas must come one by one.")
    return SingleNetwork(networks[0])


class Arena:
    """All parameters and statistics of R replicas, a row each.

    values, grads: (R, P). statistics: (R, S), running means and variances of batch norm. After `bind`, the network's
    parameters and buffers are views of these, and so are the gradients of those layers that write them.
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

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these replicas, in this order."""
        index = torch.tensor(rows, device=self.values.device)
        self._replicas = len(rows)
        self._adopt(self.values.index_select(0, index), self.statistics.index_select(0, index))

    def collect(self) -> None:
        """Bring the gradients that autograd keeps elsewhere into `grads`."""
        for parameter, view in self._loose:
            if parameter.grad is None:
                view.zero_()
            else:
                view.copy_(parameter.grad)
                parameter.grad = None

    def state(self, row: int) -> dict[str, Tensor]:
        """A copy of one replica's parameters and statistics under the plain network's names, on the CPU."""
        named = {
            **_cut(self.values[row], self._names, self._shapes),
            **_cut(self.statistics[row], self._statistic_names, self._shapes),
        }
        return {name.removeprefix("network."): value.detach().to("cpu", copy=True) for name, value in named.items()}

    def _adopt(self, values: Tensor, statistics: Tensor) -> None:
        self.values, self.statistics = values, statistics
        self.grads = torch.zeros_like(values)
        self._loose: list[tuple[nn.Parameter, Tensor]] = []
        for name, view, grad in self._views(values, self._names, self.grads):
            module, _, leaf = name.rpartition(".")
            layer = self._network.get_submodule(module)
            parameter: nn.Parameter = getattr(layer, leaf)
            parameter.data = view
            if isinstance(layer, StackedLinear):
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
        return torch.cat(rows, dim=1) if rows else like.new_zeros(self._replicas, 0)

    def _row_shape(self, tensor: Tensor) -> torch.Size:
        return tensor.shape if isinstance(self._network, SingleNetwork) else tensor.shape[1:]


def _cut(row: Tensor, names: Sequence[str], shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    parts = torch.split(row, [shapes[name].numel() for name in names]) if names else ()
    return {name: part.view(shapes[name]) for name, part in zip(names, parts, strict=True)}


def _stacked(parameters: Sequence[Tensor]) -> nn.Parameter:
    return nn.Parameter(torch.stack([parameter.detach() for parameter in parameters]))


def _tensor(maybe: Tensor | None) -> Tensor:
    assert maybe is not None  # `_has_stacked_form` demands running statistics
    return maybe
