"""Every setting: its type, its bounds and, below it, the reason it exists. Values live in conf/, once."""

from __future__ import annotations

import pkgutil
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from pipeline.settings.signatures import signature_of


def _whole_number_as_text(value: Any) -> Any:
    """2024 is a fair name; 1.10 is not, since the number it was read as no longer tells how it was written."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Text = Annotated[str, Field(min_length=1), BeforeValidator(_whole_number_as_text)]

_written_tab = BeforeValidator(lambda value: "\t" if value == r"\t" else value)
_empty_is_none = BeforeValidator(lambda value: None if value == {} else value)


class Section(BaseModel):
    """A group of settings; a key that is not declared is an error. Nothing is converted: 1.5 epochs, "3" rows and
    true for a number are errors; a whole number serves as a float.

    Built when first needed, as part of the whole: built one by one at import, each start would wait for it twice.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)


class Component(BaseModel):
    """An object by its import path, as `_target_` in YAML; undeclared keys are its constructor's arguments."""

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        populate_by_name=True,
        defer_build=True,
    )

    target: str = Field(alias="_target_")
    """Import path of the class or function."""

    @property
    def arguments(self) -> dict[str, Any]:
        """What the constructor receives: the undeclared keys."""
        return dict(self.model_extra or {})

    def resolve(self) -> Any:
        """The class or function itself, imported now."""
        module, _, name = self.target.rpartition(".")
        return pkgutil.resolve_name(f"{module}:{name}")

    def build(self, *args: Any, **more: Any) -> Any:
        """Call the target with the configured arguments; `more` wins over them."""
        return self.resolve()(*args, **{**self.arguments, **more})


class DataSettings(Section):
    """What is learnt from."""

    name: Text
    """A key of pipeline.data.sources.SOURCES."""
    path: Text
    """Folder of downloaded files, or your own file, folder or database; relative to the working directory. Of a table
    also `module:name`, a pandas frame, or a function that returns one."""
    normalize: Literal["feature", "channel", "none"]
    """Learnt from each fold's training rows: zero mean, unit variance, of inputs and of a regression's values."""
    limit: Count | None
    """Use at most this many development rows, for a quick look; null uses all."""
    samples: Count | None = None
    """Generated data: how many rows."""
    noise: NotNegative | None = None
    """Generated data: standard deviation of the noise on the inputs."""
    size: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = None
    """Your own images: [height, width] that all are resized to; null demands one size of all."""
    target: Text | Annotated[list[Text], Field(min_length=1)] | None = None
    """Your own table: the column to predict, or several of 0 and 1, which are labels. Arrays: the file of targets."""
    task: Literal["binary", "multiclass", "regression", "multilabel"] | None = None
    """Your own table or arrays: what the target asks for; null tells it from the values."""
    columns: dict[str, Literal["numeric", "boolean", "categorical", "date", "drop"]] = {}
    """Your own table: what a column is, where its look deceives: {zip: categorical}."""
    drop: list[Text] = []
    """Your own table: columns that are not learnt from."""
    group: Text | None = None
    """Your own table: rows with one value in this column never stand on both sides of a split (validation=group)."""
    time: Text | None = None
    """Your own table: the column of dates or numbers that orders the rows (validation=time_series)."""
    query: Text | None = None
    """Your own table: SQL, where data.path is the URL of a database."""
    missing: list[Text] = []
    """Your own table: what stands for a missing value, beside nothing, NA, NaN, null, None and ?."""
    impute: Literal["median", "mean"] = "median"
    """Your own table: what takes the place of a missing number, learnt from each fold's training rows."""
    categories: Literal["one_hot", "ordinal"] = "one_hot"
    """Your own table: each category becomes an input of its own, or all one, their place by frequency."""
    max_categories: Count = 30
    """Your own table: of a column's categories the most frequent get an input each, the others one together."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1), _written_tab] | None = None
    """Your own text file: what stands between fields, a tab as \\t; null is a comma, in .tsv a tab."""
    decimal: Literal[".", ","] = "."
    """Your own text file: what stands before the fraction of a number."""
    encoding: Text = "utf-8"
    """Your own text file: how its letters are written; utf-8, latin-1, utf-16, …"""
    day_first: bool | None = None
    """Your own text file: whether 01/02/2024 is in February; null tells it from days beyond 12."""

    @property
    def module(self) -> str | None:
        """Where Python finds the frame, if `path` is `module:name`; else None."""
        named = re.fullmatch(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):[A-Za-z_]\w*", self.path)
        return named[1] if named and self.name == "table" else None

    def __hash__(self) -> int:
        """Of lists, too: loaded data are remembered by what they were loaded with."""
        return hash(repr(self))


class ModelSettings(Component):
    """The network; `arguments` go to the target together with inputs, outputs and the activation."""

    hidden: list[Count] = []
    """Units of each hidden layer; [] is a linear model."""
    dropout: Fraction = 0.0
    """Probability that a hidden unit is dropped in training."""
    batch_norm: bool = False
    """Normalise each hidden layer over the batch before its activation."""
    layer_norm: bool = False
    """Normalise each hidden layer over its units before its activation."""
    residual: bool = False
    """Add its input to each hidden layer that is as wide as the one before."""


class ActivationSettings(Component):
    """The nonlinearity between layers: a module class."""


class InitializerSettings(Component):
    """Initial weights: `function(weight, generator=…, **arguments)` fills one (out, in) weight in place."""


class OptimizerSettings(Component):
    """The update rule: a torch.optim class."""

    lr: Positive
    """Learning rate, the peak of the schedule."""
    weight_decay: NotNegative = 0.0
    """L2 penalty (sgd, adam, …) or decoupled decay (adamw)."""
    momentum: Fraction | None = None
    """Share of the last update that is kept; null for rules without it."""
    betas: Annotated[tuple[Fraction, Fraction], Field(strict=False)] | None = None
    """Decay of the running means of gradient and squared gradient; null for rules without them."""

    @property
    def arguments(self) -> dict[str, Any]:
        """Declared ones that are set, and the undeclared ones. A decay of 0 stays away from rules that have none."""
        declared = {"lr": self.lr, "weight_decay": self.weight_decay, "momentum": self.momentum, "betas": self.betas}
        given = {name: value for name, value in declared.items() if value is not None}
        if self.weight_decay == 0 and not signature_of(self.target).accepts("weight_decay"):
            del given["weight_decay"]
        return {**given, **super().arguments}


class SchedulerSettings(Component):
    """How the learning rate moves: a torch.optim.lr_scheduler class."""

    interval: Literal["epoch", "step"] = "epoch"
    """When it moves."""


class LossSettings(Component):
    """What training minimises."""

    class_weights: Literal["balanced"] | list[NotNegative] | None = None
    """One number per class, or balanced: learnt from the training rows; null weighs all alike."""


class AugmentationSettings(Section):
    """How rows are changed, anew in every epoch, before a network learns from them; never those that score."""

    flip: Probability = 0.0
    """Of an image being mirrored left to right."""
    flip_vertical: Probability = 0.0
    """Of an image being mirrored top to bottom."""
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Images are turned by up to so many degrees, either way."""
    shift: Fraction = 0.0
    """Images are shifted by up to this share of their height and width; what comes in from outside is 0."""
    scale: Fraction = 0.0
    """Images are enlarged or shrunk by up to this share."""
    erase: Probability = 0.0
    """Of a box of an image being set to the mean."""
    erase_area: Share = 0.25
    """Largest share of the image that such a box covers."""
    noise: NotNegative = 0.0
    """Standard deviation of noise added to every normalised number."""
    mixup: NotNegative = 0.0
    """α of Beta(α, α), by which rows are blended with others of their batch, labels too; 0 blends none."""
    cutmix: NotNegative = 0.0
    """α of Beta(α, α), by which boxes of images come from others of their batch, labels in proportion; 0 has none."""


class AveragingSettings(Section):
    """Weights averaged over training: they score and are kept, while training goes on from the last ones."""

    method: Literal["ema", "swa"]
    """ema: exponential moving average, every step; swa: mean over the ends of epochs."""
    decay: Fraction = 0.999
    """ema: share of the average that each step leaves."""
    start: Fraction = 0.75
    """swa: share of the epochs after which averaging begins."""


class ValidationSettings(Section):
    """Who sees which rows."""

    method: Literal["holdout", "kfold", "stratified", "repeated", "group", "time_series", "resubstitution"]
    """How rows are split; time_series scores rows that are later than all that taught; resubstitution scores the rows
    it trained on and only shows that they can be learnt."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """The k of k-fold; null where the method has no folds."""
    repeats: Count = 1
    """Of the whole k-fold, each with another shuffle."""
    fraction: Share | None = None
    """Holdout: share of development rows that score."""
    test: Fraction
    """Share of rows for the one last look; unused where the data has test rows of its own."""
    inner: Share
    """Share of training rows that early stopping watches, if it is on."""
    threshold: Literal["balanced_accuracy", "f1", "mcc"] | None = None
    """Two classes: decide where this score is best on the inner rows, instead of at a probability of one half."""
    seed: Seed
    """Draws the splits; apart from `seed`, so that runs with other seeds stay comparable row by row."""


class TrainerSettings(Section):
    """How training runs."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"]
    """What computes."""
    devices: Count | Literal["auto"] | list[Annotated[int, Field(ge=0)]]
    """How many of them, which ones by number, or all that there are."""
    num_nodes: Count
    """Machines that train together."""
    strategy: Text
    """Lightning's name of how several devices share the work: auto, ddp, ddp_spawn, …"""
    precision: Literal["32-true", "64-true", "tf32", "bf16-mixed", "bf16-true"]
    """Of the arithmetic; tf32 lets CUDA GPUs round the factors of float32 products to 10 bits. fp16 is absent, because
    its loss scale would tie replicas together."""
    max_epochs: Count
    """Passes over the training rows; early stopping may end sooner."""
    batch_size: Count
    """Rows per optimizer step of each replica; at most its training rows."""
    sampling: Literal["shuffled", "balanced"]
    """Each row once an epoch, or rows drawn so that a batch has all classes alike, rare ones again and again."""
    gradient_clip_val: Positive | None
    """Largest gradient of a replica; null does not clip."""
    gradient_clip_algorithm: Literal["norm", "value"]
    """Whether the limit is on the gradient's norm or on each of its values."""
    accumulate: Count
    """Parts that each batch is worked through in, gradients summed: the same step in less memory."""
    l1: NotNegative
    """Adds l1 · Σ|w| over all weights, biases and norms aside, to what is minimised; train/loss is without it."""
    max_norm: Positive | None
    """Largest norm of the weights that lead to one unit, after every step; null has no limit."""
    patience: Count | None
    """Early stopping after so many evaluations without a better inner loss; null trains on."""
    evaluate_every: Count
    """Epochs between two evaluations; the last one is always evaluated."""
    threads: Count | None
    """CPU threads of the tensor library; null measures which number is fastest for the network at hand."""
    matmul: Literal["auto", "default", "onednn"]
    """Library for float32 matrices on a CPU: torch's default, oneDNN, or the faster; never below float32."""
    progress: bool
    """Show how far training is."""
    inspect: bool
    """Look into the network after every evaluated epoch: activations, gradients, weights, dead units."""


class EngineSettings(Section):
    """Which implementation trains."""

    name: Literal["lightning", "numpy"]
    """PyTorch Lightning, or the same network by hand in NumPy."""
    max_replicas: Count | None = None
    """Networks in one stack; null takes as many as memory holds."""


class ExportSettings(Section):
    """The finished model, as MLflow model, ONNX and torch.export program; export=none writes none."""

    networks: Literal["single", "folds", "both"]
    """The refit's network (model), the networks of all folds answering together (ensemble), or both."""


class ConstraintSettings(Section):
    """What the best configuration must not exceed; a trial above is not trained."""

    parameters: Count | None = None
    """At most so many trainable numbers; null has no limit."""
    latency_ms: Positive | None = None
    """At most so many milliseconds to predict one row on one CPU thread; null has no limit."""


class SearchSettings(Section):
    """The search over configurations."""

    n_trials: Count
    """In all: run again, it goes on to this number."""
    timeout: Positive | None
    """Seconds after which no new trial starts; null has no limit."""
    workers: Count
    """Processes that train at the same time, each a stack of trials of its own."""
    executor: Literal["local", "dask", "slurm"]
    """Who runs the workers: this machine, a Dask cluster that is up, or SLURM (docs/scaling.md)."""
    cluster: Text | None
    """dask: the scheduler's address. slurm: local or debug try it without SLURM; null submits to it."""
    slurm: dict[str, Any]
    """Given on to submitit: timeout_min, cpus_per_task, gpus_per_node, mem_gb, slurm_partition, slurm_account, …"""
    stack: Count | None
    """Trials that train together in one stack; null chooses by the size of the network."""
    heartbeat: Positive
    """Seconds without the end of an epoch after which a worker is taken for dead and its trials are given back."""
    study_name: Text | None
    """Null derives it from the task, the space and the fixed settings."""
    storage: Text
    """A journal file's path, or an Optuna storage URL."""
    metric: Text | Annotated[list[Text], Field(min_length=1)] | None
    """Null: the task's primary metric, averaged over folds. A list, of metrics, parameters, latency_ms, is a front."""
    constraints: ConstraintSettings
    target: float | None
    """Ends the search when a trial is at least as good; null goes on."""
    patience: Count | None
    """Ends the search after so many trials without a better one; null goes on."""
    terminator: bool
    """Ends the search when the room left for improvement is smaller than what the folds' spread can tell apart."""
    repeats: Annotated[int, Field(ge=0)]
    """Runs the three best again with so many other seeds, and the best mean of those wins; 0 trusts the first score."""
    warm_start: Text | None
    """A file of trials to run first (.yaml, .csv or .jsonl); null has none."""
    space: dict[str, Any]
    """Setting or group -> Hydra sweep syntax, used where the command line names no dimension."""
    sampler: Component
    """Proposes the next trial: an optuna.samplers class."""
    pruner: Component
    """Ends trials that will not win: an optuna.pruners class."""


class TrackingSettings(Section):
    """Where runs are recorded."""

    uri: Text | None
    """Null: MLFLOW_TRACKING_URI, else sqlite:///<repo>/mlflow.db."""
    tags: dict[str, Text] = {}
    """Added to every run."""
    tensorboard: bool = False
    """Write event files to <output>/tensorboard, which `make tensorboard` shows; switches trainer.inspect on."""


class Settings(Section):
    """One experiment, or one search when `search` is set."""

    seed: Seed
    """Draws weights, batches, dropout and generated data."""
    task_name: Text
    """The MLflow experiment."""
    output: Text
    """Folder for result.json, predictions and figures of this run."""
    report: bool = True
    """Draw the figures and write report.html when all is done; false saves seconds a run and some more a search."""
    allow_targets: list[Text]
    """Modules whose objects a `_target_` may name, beyond the built-in list."""
    data: DataSettings
    model: ModelSettings
    activation: ActivationSettings
    initializer: InitializerSettings
    optimizer: OptimizerSettings
    scheduler: Annotated[SchedulerSettings | None, _empty_is_none] = None
    loss: LossSettings
    augmentation: Annotated[AugmentationSettings | None, _empty_is_none] = None
    averaging: Annotated[AveragingSettings | None, _empty_is_none] = None
    validation: ValidationSettings
    trainer: TrainerSettings
    engine: EngineSettings
    export: Annotated[ExportSettings | None, _empty_is_none] = None
    tracking: Annotated[TrackingSettings | None, _empty_is_none] = None
    search: SearchSettings | None = None

    @property
    def inspected(self) -> bool:
        """Whether records tell of the inside of the network."""
        return self.trainer.inspect or (self.tracking is not None and self.tracking.tensorboard)
