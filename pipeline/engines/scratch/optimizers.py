"""Update rules, on all parameters of R replicas at once.

Shapes: parameters θ, gradients g and every moment (R, P), a row per replica; the rate η and all other numbers (R, 1),
so that each replica may have its own. A rule changes θ in place and may overwrite g. Arguments and defaults are those
of the torch.optim class of the same name. `weight_decay` λ adds λθ to g, the derivative of λ/2 |θ|², unless the rule
says otherwise.
"""

# mypy: disable-error-code=no-any-return
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

_ALL = slice(None)
_AT_ONCE = 2**18
"""Parameters that pass through all of a rule's operations before the next: what is known of them fits into a cache."""


def blocks(replicas: int, size: int) -> Iterator[tuple[slice, slice]]:
    """(R, P) in rectangles of rows and columns, of at most `_AT_ONCE` numbers each."""
    rows, columns = max(1, min(replicas, _AT_ONCE // size)), min(size, _AT_ONCE)
    for row in range(0, replicas, rows):
        for column in range(0, size, columns):
            yield slice(row, row + rows), slice(column, column + columns)


class Optimizer:
    """What the rules share: every replica's count of steps t, a spare array, and the way replicas move."""

    def __init__(self, like: np.ndarray, weight_decay: Any) -> None:
        self._t = np.zeros((len(like), 1))
        self._spare = np.empty_like(like)
        self._weight_decay, self._decays = weight_decay, bool(np.any(weight_decay))
        # Numbers are float64, where 1 - 0.999 is exact; next to a large array they take its type, or NumPy converts it.
        self._real = like.dtype.type

    def update(self, parameters: np.ndarray, gradients: np.ndarray, rate: np.ndarray) -> None:
        """One step. rate: (R, 1) float64."""
        self._t += 1
        self._apply(parameters, gradients, rate)

    def take_over(self, other: Optimizer, places: Sequence[int], others: Sequence[int]) -> None:
        """At these places, go on with the replicas that stand at those of another one: every array has them in front.

        The others start afresh.
        """
        for name, memory in vars(self).items():
            if isinstance(memory, np.ndarray):
                memory[places] = vars(other)[name][others]

    def _apply(self, parameters: np.ndarray, gradients: np.ndarray, rate: np.ndarray) -> None:
        raise NotImplementedError

    def _decay(self, parameters: np.ndarray, gradients: np.ndarray) -> None:
        """g ← g + λ θ."""
        if self._decays:
            gradients += np.multiply(self._real(self._weight_decay), parameters, out=self._spare)


class SGD(Optimizer):
    """Gradient descent with momentum: Polyak (1964), or Nesterov's (1983) in the form of Sutskever et al., ICML 2013.

    b ← μ b + (1 - d) g, but b ← g at first;  θ ← θ - η b, or with Nesterov's θ ← θ - η (g + μ b).
    """

    def __init__(
        self,
        like: np.ndarray,
        *,
        momentum: Any = 0.0,
        dampening: Any = 0.0,
        nesterov: bool = False,
        weight_decay: Any = 0.0,
    ) -> None:
        super().__init__(like, weight_decay)
        self._mu, self._has_momentum, self._nesterov = momentum, bool(np.any(momentum)), nesterov
        self._undamped = np.where(momentum > 0, 1 - dampening, 1.0)
        self._b = np.zeros_like(like)

    def _apply(self, parameters: np.ndarray, gradients: np.ndarray, rate: np.ndarray) -> None:
        real = self._real
        self._decay(parameters, gradients)
        direction = gradients
        if self._has_momentum:
            self._b *= real(self._mu)
            share = np.where(self._t == 1, 1, self._undamped)
            self._b += np.multiply(real(share), gradients, out=self._spare)
            direction = self._b
        if self._nesterov:
            gradients += np.multiply(real(self._mu), self._b, out=self._spare)
            direction = gradients
        parameters -= np.multiply(real(rate), direction, out=self._spare)


class Adam(Optimizer):
    """Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.

    m ← β₁ m + (1 - β₁) g;  v ← β₂ v + (1 - β₂) g²;  θ ← θ - η m̂ / (√v̂ + ε)
    with m̂ = m / (1 - β₁ᵗ) and v̂ = v / (1 - β₂ᵗ), since m and v start at zero.
    """

    def __init__(
        self, like: np.ndarray, *, betas: Any = (0.9, 0.999), eps: Any = 1e-8, weight_decay: Any = 0.0
    ) -> None:
        super().__init__(like, weight_decay)
        self._betas = np.hstack(betas)  # (R, 2)
        self._rest = 1 - self._betas
        self._beta1, self._beta2 = (self._real(beta) for beta in betas)
        self._eps = eps
        self._m, self._v = np.zeros_like(like), np.zeros_like(like)

    def _apply(self, parameters: np.ndarray, gradients: np.ndarray, rate: np.ndarray) -> None:
        first, second = self._unbias()
        root = np.sqrt(second)
        eps, rate = self._real(self._eps / root), self._real(rate * first / root)
        self._decay(parameters, gradients)
        for rows, columns in blocks(*parameters.shape):
            g = gradients[rows, columns]
            self._moments(g, rows, columns)
            divisor = np.sqrt(self._v[rows, columns], out=g)
            divisor += eps[rows]
            change = np.divide(self._m[rows, columns], divisor, out=divisor)
            change *= rate[rows]
            parameters[rows, columns] -= change

    def _moments(self, g: np.ndarray, rows: slice = _ALL, columns: slice = _ALL) -> None:
        """m ← β₁ m + g;  v ← β₂ v + g². Leaves g² in the place of g.

        The factors 1 - β are left to numbers, as section 2 of the paper leaves the corrections to them: that saves
        three passes of thirteen over large arrays.
        """
        m, v = self._m[rows, columns], self._v[rows, columns]
        m *= self._beta1[rows]
        m += g
        v *= self._beta2[rows]
        v += np.square(g, out=g)

    def _unbias(self) -> tuple[np.ndarray, np.ndarray]:
        """m̂ / m and v̂ / v: (1 - β) / (1 - βᵗ), from sums of gradients to means, however few there were."""
        factors = self._rest / (1 - self._betas**self._t)
        return factors[:, :1], factors[:, 1:]


class AdamW(Adam):
    """Adam whose decay acts on the weights and not through the gradient: first of all θ ← θ - η λ θ.

    Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2.
    """

    def __init__(
        self, like: np.ndarray, *, betas: Any = (0.9, 0.999), eps: Any = 1e-8, weight_decay: Any = 1e-2
    ) -> None:
        super().__init__(like, betas=betas, eps=eps)
        self._decoupled = weight_decay

    def _apply(self, parameters: np.ndarray, gradients: np.ndarray, rate: np.ndarray) -> None:
        parameters *= self._real(1 - rate * self._decoupled)
        super()._apply(parameters, gradients, rate)


class NAdam(Adam):
    """Adam with Nesterov's momentum. Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop 2016.

    θ ← θ - η [(1 - μ_t) / (1 - Π_t) g + μ_(t+1) / (1 - Π_(t+1)) m] / (√v̂ + ε)
    with μ_t = β₁ (1 - 0.96^(t ψ) / 2) and Π_t = μ_1 μ_2 … μ_t.
    """

    def __init__(
        self,
        like: np.ndarray,
        *,
        betas: Any = (0.9, 0.999),
        eps: Any = 1e-8,
        weight_decay: Any = 0.0,
        momentum_decay: Any = 4e-3,
    ) -> None:
        super().__init__(like, betas=betas, eps=eps, weight_decay=weight_decay)
        self._psi = momentum_decay
        self._product = np.ones(self._t.shape)

    def _apply(self, parameters: np.ndarray, gradients: np.ndarray, rate: np.ndarray) -> None:
        real = self._real
        self._decay(parameters, gradients)
        now, following = self._mu(self._t), self._mu(self._t + 1)
        self._product = self._product * now
        change = np.multiply(real((1 - now) / (1 - self._product)), gradients, out=self._spare)
        self._moments(gradients)
        share = following * self._rest[:, :1] / (1 - self._product * following)
        change += np.multiply(real(share), self._m, out=gradients)
        _, second = self._unbias()
        divisor = np.sqrt(self._v, out=gradients)
        divisor += real(self._eps / np.sqrt(second))
        change /= divisor
        change *= real(rate / np.sqrt(second))
        parameters -= change

    def _mu(self, t: np.ndarray) -> np.ndarray:
        return self._betas[:, :1] * (1 - 0.5 * 0.96 ** (t * self._psi))


class RAdam(Adam):
    """Adam that does not divide by √v̂ before enough gradients are in it.

    Liu et al., "On the variance of the adaptive learning rate and beyond", ICLR 2020, algorithm 2.
    θ ← θ - η m̂ while ρ_t ≤ 5, then θ ← θ - η r_t m̂ / √v̂, with ρ_∞ = 2 / (1 - β₂) - 1,
    ρ_t = ρ_∞ - 2 t β₂ᵗ / (1 - β₂ᵗ) and r_t² = (ρ_t - 4) (ρ_t - 2) ρ_∞ / ((ρ_∞ - 4) (ρ_∞ - 2) ρ_t).
    """

    def _apply(self, parameters: np.ndarray, gradients: np.ndarray, rate: np.ndarray) -> None:
        self._decay(parameters, gradients)
        self._moments(gradients)
        end, beta = 2 / self._rest[:, 1:] - 1, self._betas[:, 1:] ** self._t
        rho = end - 2 * self._t * beta / (1 - beta)
        sure = rho > 5
        rho = np.where(sure, rho, end)  # where it is not used, anything with a square root
        r = np.sqrt((rho - 4) * (rho - 2) * end / ((end - 4) * (end - 2) * rho))
        first, second = self._unbias()
        divisor = np.sqrt(self._v, out=gradients)
        divisor += self._real(self._eps / np.sqrt(self._rest[:, 1:]))  # torch adds ε before it corrects v
        divisor *= self._real(np.sqrt(second) / r)
        np.copyto(divisor, 1, where=~sure)
        change = np.divide(self._m, divisor, out=divisor)
        change *= self._real(rate * first)
        parameters -= change


class RMSprop(Optimizer):
    """Tieleman and Hinton, "Neural networks for machine learning", lecture 6.5, 2012.

    v ← α v + (1 - α) g²;  b ← μ b + g / (√v + ε);  θ ← θ - η b.
    """

    def __init__(
        self, like: np.ndarray, *, alpha: Any = 0.99, eps: Any = 1e-8, momentum: Any = 0.0, weight_decay: Any = 0.0
    ) -> None:
        super().__init__(like, weight_decay)
        self._alpha, self._eps, self._mu = alpha, eps, momentum
        self._v, self._b = np.zeros_like(like), np.zeros_like(like)

    def _apply(self, parameters: np.ndarray, gradients: np.ndarray, rate: np.ndarray) -> None:
        real = self._real
        self._decay(parameters, gradients)
        self._v *= real(self._alpha)
        squares = np.multiply(gradients, gradients, out=self._spare)
        squares *= real(1 - self._alpha)
        self._v += squares
        divisor = np.sqrt(self._v, out=self._spare)
        divisor += real(self._eps)
        self._b *= real(self._mu)
        self._b += np.divide(gradients, divisor, out=divisor)
        parameters -= np.multiply(real(rate), self._b, out=self._spare)


class Adagrad(Optimizer):
    """Duchi, Hazan and Singer, "Adaptive subgradient methods", JMLR 12 (2011).

    s ← s + g²;  θ ← θ - η / (1 + (t - 1) δ) · g / (√s + ε).
    """

    def __init__(
        self,
        like: np.ndarray,
        *,
        lr_decay: Any = 0.0,
        weight_decay: Any = 0.0,
        initial_accumulator_value: Any = 0.0,
        eps: Any = 1e-10,
    ) -> None:
        super().__init__(like, weight_decay)
        self._delta, self._eps = lr_decay, eps
        self._s = np.zeros_like(like) + self._real(initial_accumulator_value)

    def _apply(self, parameters: np.ndarray, gradients: np.ndarray, rate: np.ndarray) -> None:
        self._decay(parameters, gradients)
        self._s += np.multiply(gradients, gradients, out=self._spare)
        divisor = np.sqrt(self._s, out=self._spare)
        divisor += self._real(self._eps)
        change = np.divide(gradients, divisor, out=divisor)
        change *= self._real(rate / (1 + (self._t - 1) * self._delta))
        parameters -= change


OPTIMIZERS: dict[str, Any] = {
    "torch.optim.SGD": SGD,
    "torch.optim.Adam": Adam,
    "torch.optim.AdamW": AdamW,
    "torch.optim.NAdam": NAdam,
    "torch.optim.RAdam": RAdam,
    "torch.optim.RMSprop": RMSprop,
    "torch.optim.Adagrad": Adagrad,
}
