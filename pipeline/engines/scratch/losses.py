"""What training minimises: a function of the logits, beside its derivative by the logits.

Shapes: logits z (R, B, outputs), targets (R, B), or (R, B, labels) of 0 and 1, one loss per replica (R,). Row i of
replica r counts with its weight w_i, that of its class, or 1; the loss of a replica is Σ w_i l_i / Σ w_i, and for plain
rows the mean. In evaluation, replicas with fewer rows than others are padded; `counted` (R, B) is 0 on padding, which
adds to neither sum. A loss's own numbers are (R, 1), so that each replica may have its own.

`forward` remembers what `backward` needs. `predictions` are the probabilities that belong to the loss.
"""

# mypy: disable-error-code=no-any-return
from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from pipeline.engines.scratch.activations import sigmoid


class Loss(Protocol):
    """The loss of R replicas at once."""

    def forward(self, z: np.ndarray, targets: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
        """(R,) losses."""

    def backward(self) -> np.ndarray:
        """(R, B, outputs): the derivative of each replica's loss by its logits."""

    def predictions(self, z: np.ndarray) -> np.ndarray:
        """(…, classes) probabilities that sum to 1, or the values themselves for regression."""


def log_softmax(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log p = z - log Σ eᶻ over the last axis, and p; its derivative is d(log p)_i / dz_j = 1[i = j] - p_j."""
    z = _below_zero(z)
    p = np.exp(z)
    sums = total(p)
    p /= sums
    z -= np.log(sums)
    return z, p


def softmax(z: np.ndarray) -> np.ndarray:
    """p = eᶻ / Σ eᶻ over the last axis."""
    z = _below_zero(z)
    p = np.exp(z, out=z)
    p /= total(p)
    return p


def _below_zero(z: np.ndarray) -> np.ndarray:
    """z less the largest logit of each row: it cancels in the softmax, and without it no exponential overflows."""
    return z - z.max(axis=-1, keepdims=True)


def total(z: np.ndarray) -> np.ndarray:
    """(…, 1) sums of the last axis."""
    return z.sum(axis=-1, keepdims=True)


class CrossEntropy:
    """l = -Σ_c q_c log softmax(z)_c with q the one-hot target, smoothed: (1 - ε) 1[c = y] + ε / C.

    Szegedy et al., "Rethinking the Inception architecture", CVPR 2016, section 7, for the smoothing. With class
    weights torch weights every term of the sum by w_c, and still divides by the weights of the true classes.
    """

    def __init__(self, weights: np.ndarray | None, *, label_smoothing: Any = 0.0) -> None:
        self._weights = weights
        self._smoothing, self._smooths = np.asarray(label_smoothing)[..., None], bool(np.any(label_smoothing))

    def forward(self, z: np.ndarray, targets: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
        """-Σ_ic t_ic log p_ic, where t_ic = w_c q_ic / Σ_i w_i."""
        t = one_hot(targets, z)
        if self._smooths:
            smoothing = self._smoothing.astype(z.dtype)
            t *= 1 - smoothing
            t += smoothing / z.shape[-1]
        if self._weights is not None:
            t *= self._weights[:, None]
        if counted is not None:
            t *= counted[:, :, None]
        t /= self._divisor(targets, counted, z.dtype)
        log_p, self._p = log_softmax(z)
        self._t = t
        return -np.einsum("rbc,rbc->r", t, log_p)

    def backward(self) -> np.ndarray:
        """dL/dz_ic = p_ic Σ_c t_ic - t_ic; for one plain row the well-known p - y."""
        dz = self._p * total(self._t)
        dz -= self._t
        return dz

    def predictions(self, z: np.ndarray) -> np.ndarray:
        """Softmax."""
        return softmax(z)

    def _divisor(self, targets: np.ndarray, counted: np.ndarray | None, dtype: np.dtype[Any]) -> Any:
        """Σ_i w_i: the number of rows if they are plain, else (R, 1, 1)."""
        if self._weights is None and counted is None:
            return targets.shape[1]
        return row_weights(targets, self._weights, counted, dtype).sum(axis=1)[:, None, None]


class _ByRow:
    """Losses whose class weights multiply whole rows: Σ s_i l_i, where s_i = w_i / Σ w_i is the row's share."""

    def __init__(self, weights: np.ndarray | None) -> None:
        self._weights = weights

    def _shares(self, targets: np.ndarray, counted: np.ndarray | None, dtype: np.dtype[Any]) -> np.ndarray:
        weights = row_weights(targets, self._weights, counted, dtype)
        return weights / weights.sum(axis=1, keepdims=True)


class Focal(_ByRow):
    """l = -(1 - p)^γ log p of the true class's probability: rows already classified well hardly count.

    Lin et al., "Focal loss for dense object detection", ICCV 2017, equation 4. γ = 0 is the cross-entropy.
    """

    def __init__(self, weights: np.ndarray | None, *, gamma: Any = 2.0) -> None:
        super().__init__(weights)
        self._gamma = np.asarray(gamma)

    def forward(self, z: np.ndarray, targets: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
        """Σ_i s_i l_i."""
        log_softmaxes, self._softmax = log_softmax(z)
        self._y = one_hot(targets, z)
        self._s = self._shares(targets, counted, z.dtype)
        self._log_p = total(log_softmaxes * self._y)[..., 0]
        rest = 1 - np.exp(self._log_p)
        # At p = 1 the power in the derivative is infinite for γ < 1, while its product with log p = 0 is 0.
        self._rest = np.maximum(rest, np.finfo(z.dtype).tiny)
        return -(self._s * rest ** self._gamma.astype(z.dtype) * self._log_p).sum(axis=1)

    def backward(self) -> np.ndarray:
        """dl/dz_c = dl/dlog p · (1[c = y] - softmax_c), dl/dlog p = γ p (1 - p)^(γ-1) log p - (1 - p)^γ."""
        rest, log_p, gamma = self._rest, self._log_p, self._gamma.astype(self._rest.dtype)
        by_log_p = gamma * np.exp(log_p) * rest ** (gamma - 1) * log_p - rest**gamma
        return (self._s * by_log_p)[:, :, None] * (self._y - self._softmax)

    def predictions(self, z: np.ndarray) -> np.ndarray:
        """Softmax."""
        return softmax(z)


class BinaryCrossEntropy(_ByRow):
    """l = mean over outputs of -(y log σ(z) + (1 - y) log(1 - σ(z))): a logistic regression per output.

    One output decides between two classes; several are each class against the rest.
    """

    def forward(self, z: np.ndarray, targets: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
        """Σ_i s_i l_i, with -log σ(z) = log(1 + e⁻ᶻ), so that l = log(1 + eᶻ) - y z."""
        self._z, self._y = z, one_hot(targets, z)
        self._s = self._shares(targets, counted, z.dtype)
        # max(z, 0) + log(1 + e^-|z|) is log(1 + eᶻ) without overflow.
        terms = np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))) - self._y * z
        return (self._s * terms.mean(axis=-1)).sum(axis=1)

    def backward(self) -> np.ndarray:
        """dl/dz = (σ(z) - y) / outputs."""
        return self._s[:, :, None] * (sigmoid(self._z) - self._y) / self._z.shape[-1]

    def predictions(self, z: np.ndarray) -> np.ndarray:
        """σ(z) and its complement for one output; for several, each against the rest, made to sum to 1."""
        p = sigmoid(z)
        return both_classes(p) if z.shape[-1] == 1 else p / total(p)


class SquaredError(_ByRow):
    """l = mean over classes of (p - y)², between probabilities and the one-hot target: the Brier score.

    Brier, Monthly Weather Review 78 (1950). p is the softmax of the logits, or σ(z) of a single one.
    """

    def forward(self, z: np.ndarray, targets: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
        """Σ_i s_i l_i."""
        self._p, self._y = sigmoid(z) if z.shape[-1] == 1 else softmax(z), one_hot(targets, z)
        self._s = self._shares(targets, counted, z.dtype)
        return (self._s * np.square(self._p - self._y).mean(axis=-1)).sum(axis=1)

    def backward(self) -> np.ndarray:
        """dl/dp = 2 (p - y) / outputs; through σ: dl/dp p (1 - p); through softmax: p (dl/dp - Σ_c p_c dl/dp_c)."""
        p, outputs = self._p, self._p.shape[-1]
        dp = self._s[:, :, None] * 2 * (p - self._y) / outputs
        if outputs == 1:
            return dp * p * (1 - p)
        return p * (dp - total(p * dp))

    def predictions(self, z: np.ndarray) -> np.ndarray:
        """Softmax, or σ(z) and its complement."""
        return both_classes(sigmoid(z)) if z.shape[-1] == 1 else softmax(z)


class LabelCrossEntropy(_ByRow):
    """l = mean over labels of -(y log σ(z) + (1 - y) log(1 - σ(z))), where a row may have any of the labels."""

    def forward(self, z: np.ndarray, targets: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
        """Σ_i s_i l_i, each term written as in `BinaryCrossEntropy`."""
        self._z, self._y = z, targets
        self._s = self._shares(targets[..., 0], counted, z.dtype)
        terms = np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))) - targets * z
        return (self._s * terms.mean(axis=-1)).sum(axis=1)

    def backward(self) -> np.ndarray:
        """dl/dz = (σ(z) - y) / labels."""
        return self._s[:, :, None] * (sigmoid(self._z) - self._y) / self._z.shape[-1]

    def predictions(self, z: np.ndarray) -> np.ndarray:
        """σ(z) of each label."""
        return sigmoid(z)


class _OfValues(_ByRow):
    """Losses of a regression: l(e) of the error e = z - y, whose derivative by z is l'(e)."""

    def forward(self, z: np.ndarray, targets: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
        """Σ_i s_i l(e_i)."""
        self._error = z[:, :, 0] - targets
        self._s = self._shares(targets, counted, z.dtype)
        return (self._s * self._of(self._error)).sum(axis=1)

    def backward(self) -> np.ndarray:
        """s_i l'(e_i)."""
        return (self._s * self._derivative(self._error))[:, :, None]

    def predictions(self, z: np.ndarray) -> np.ndarray:
        """The values."""
        return z

    def _of(self, error: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _derivative(self, error: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class SquaredErrorOfValues(_OfValues):
    """l = e²: least squares. Answers with the mean."""

    def _of(self, error: np.ndarray) -> np.ndarray:
        return np.square(error)

    def _derivative(self, error: np.ndarray) -> np.ndarray:
        return 2 * error


class AbsoluteErrorOfValues(_OfValues):
    """l = |e|. Answers with the median. Where e = 0 there is no derivative, and 0 is taken."""

    def _of(self, error: np.ndarray) -> np.ndarray:
        return np.abs(error)

    def _derivative(self, error: np.ndarray) -> np.ndarray:
        return np.sign(error)


class HuberOfValues(_OfValues):
    """l = e² / 2 up to |e| = δ, and δ (|e| - δ / 2) beyond: an outlier pulls no harder than δ.

    Huber, Annals of Mathematical Statistics 35 (1964).
    """

    def __init__(self, weights: np.ndarray | None, *, delta: Any = 1.0) -> None:
        super().__init__(weights)
        self._delta = np.asarray(delta)

    def _of(self, error: np.ndarray) -> np.ndarray:
        delta = self._delta.astype(error.dtype)
        size = np.abs(error)
        return np.where(size <= delta, np.square(error) / 2, delta * (size - delta / 2))

    def _derivative(self, error: np.ndarray) -> np.ndarray:
        delta = self._delta.astype(error.dtype)
        return np.clip(error, -delta, delta)


class QuantileOfValues(_OfValues):
    """l = -τ e where the answer is too low, (1 - τ) e where it is too high. Answers with the τ-quantile.

    Koenker and Bassett, Econometrica 46 (1978).
    """

    def __init__(self, weights: np.ndarray | None, *, quantile: Any = 0.5) -> None:
        super().__init__(weights)
        self._quantile = np.asarray(quantile)

    def _of(self, error: np.ndarray) -> np.ndarray:
        return error * self._derivative(error)

    def _derivative(self, error: np.ndarray) -> np.ndarray:
        """-τ below, 1 - τ above; at e = 0, where there is none, midway as torch takes it: 1/2 - τ."""
        return (np.sign(error) + 1) / 2 - self._quantile.astype(error.dtype)


def one_hot(targets: np.ndarray, z: np.ndarray) -> np.ndarray:
    """(R, B, outputs) of z's type: 1 in the column of the class, else 0; with one output, the class number itself."""
    if z.shape[-1] == 1:
        return targets[:, :, None].astype(z.dtype)
    return np.equal(targets[:, :, None], np.arange(z.shape[-1]), out=np.empty_like(z))


def row_weights(
    targets: np.ndarray, weights: np.ndarray | None, counted: np.ndarray | None, dtype: np.dtype[Any]
) -> np.ndarray:
    """(R, B): the weight of each row's class, 0 on padding. weights: (R, classes), or None for 1 each."""
    rows = np.ones(targets.shape, dtype) if weights is None else np.take_along_axis(weights, targets, axis=1)
    return rows if counted is None else rows * counted


def both_classes(p: np.ndarray) -> np.ndarray:
    """(…, 1) probabilities of class 1 to (…, 2) of both."""
    return np.concatenate([1 - p, p], axis=-1)


LOSSES: dict[str, Any] = {
    "torch.nn.CrossEntropyLoss": CrossEntropy,
    "torch.nn.BCEWithLogitsLoss": BinaryCrossEntropy,
    "torch.nn.MSELoss": SquaredError,
    "pipeline.models.losses.FocalLoss": Focal,
}
LOSSES_OF_LABELS: dict[str, Any] = {"torch.nn.BCEWithLogitsLoss": LabelCrossEntropy}
LOSSES_OF_VALUES: dict[str, Any] = {
    "torch.nn.MSELoss": SquaredErrorOfValues,
    "torch.nn.L1Loss": AbsoluteErrorOfValues,
    "torch.nn.HuberLoss": HuberOfValues,
    "pipeline.models.losses.QuantileLoss": QuantileOfValues,
}
