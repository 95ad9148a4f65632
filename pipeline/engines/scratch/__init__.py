"""A neural network and its training by hand, in NumPy, to be read.

Every operation stands beside its derivative, every formula beside its source. Read in this order:

    activations     y = f(x) and f'(x)
    layers          linear, batch norm, dropout: forward and backward
    losses          what is minimised, and its derivative by the logits
    network         the layers in a row, and the chain rule through them
    initializers    where weights start
    optimizers      how gradients move them
    schedules       how fast
    clipping        and how far at most
    regularization  what keeps weights small
    averaging       the mean of weights over training
    gradient_check  all of the above against finite differences
    inspection      initial weights against what theory says of them
    feed            which rows a step sees, scaled, and which units dropout keeps
    stack           one network for R replicas from their settings: a step, an evaluation
    training        epochs, early stopping, records
    inside          what activations and gradients look like, layer by layer
    failures        where a NaN came from
    components      the names of a config to what stands here
    engine          `ScratchEngine`, the promise of `pipeline.engines.Engine`

All arrays carry a replica axis in front: R networks train at once, each on its own rows, and share nothing. With R = 1
everything reads as for one network.
"""

from __future__ import annotations

from pipeline.engines.scratch.engine import ScratchEngine

__all__ = ["ScratchEngine"]
