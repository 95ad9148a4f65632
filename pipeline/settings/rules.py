"""What types alone cannot say: rules across settings, allowed targets, and arguments against signatures."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pipeline.settings.schema import Component, ModelSettings, OptimizerSettings, Settings
from pipeline.settings.signatures import Signature, UnknownTarget, exists, names_in, signature_of
from pipeline.settings.wording import Problem, did_you_mean, must_be, nearest, show

ALLOWED_TARGETS = (
    "torch.nn",
    "torch.optim",
    "pipeline.models",
    "pipeline.engines.lightning.schedules",
    "optuna.samplers",
    "optuna.pruners",
    "pipeline.search.samplers",
    "pipeline.search.pruners",
)
"""Modules whose objects any `_target_` may name; `allow_targets` adds more."""

# Arguments that the program gives when it builds the object, so that a config must not.
_SUPPLIED: dict[str, frozenset[str]] = {
    "model": frozenset({"inputs", "shape", "outputs", "activation"}),
    "initializer": frozenset({"generator"}),
    "optimizer": frozenset({"params"}),
    "scheduler": frozenset({"optimizer", "steps_per_epoch"}),
    "loss": frozenset({"reduction"}),
    "search.sampler": frozenset({"space", "turn"}),
}
_MLP = "pipeline.models.mlp.MLP"
_PLATEAU = "torch.optim.lr_scheduler.ReduceLROnPlateau"
_ONLY_FOR = {"target": ("table", "arrays"), "task": ("table", "arrays"), "size": ("images",)} | dict.fromkeys(
    (
        *("columns", "drop", "group", "time", "query", "missing", "impute", "categories", "max_categories"),
        *("delimiter", "decimal", "encoding", "day_first"),
    ),
    ("table",),
)
_BY_STEP = ("torch.optim.lr_scheduler.OneCycleLR", "pipeline.engines.lightning.schedules.warmup_cosine")
_FOLDED = ("kfold", "stratified", "repeated", "group", "time_series")
_NOT_HERE = {  # they stop a study or read its reports in ways of Optuna's own loop, which a search is not
    "optuna.samplers.GridSampler": "search/sampler=grid",
    "optuna.samplers.BruteForceSampler": "search/sampler=grid",
    "optuna.samplers.QMCSampler": "search/sampler=qmc",
    "optuna.pruners.WilcoxonPruner": "search/pruner=wilcoxon",
}


def broken_rules(settings: Settings) -> list[Problem]:
    """Everything that is wrong with settings whose types are right."""
    problems = [problem for rule in _RULES for problem in rule(settings)]
    for key, component in components(settings).items():
        problems += _component_problems(key, component, settings.allow_targets)
    return problems


def components(settings: Settings) -> dict[str, Component]:
    """Every `_target_` of a configuration, by the key of its section."""
    found = {name: value for name, value in settings if isinstance(value, Component)}
    if settings.search is not None:
        found |= {"search.sampler": settings.search.sampler, "search.pruner": settings.search.pruner}
    return found


def configurable(key: str, signature: Signature) -> list[str]:
    """The arguments of a section's target that a config may give."""
    names = list(signature.parameters)
    if key == "initializer":
        names = names[1:]  # the weight itself, whatever it is called
    return [name for name in names if name not in _SUPPLIED.get(key, frozenset())]


def _folds(settings: Settings) -> Iterator[Problem]:
    rules = settings.validation
    if rules.method in _FOLDED and rules.folds is None:
        yield Problem("validation.folds", f"must be an integer >= 2 for method {rules.method}; got null.")
    if rules.method not in _FOLDED and rules.folds is not None:
        yield Problem("validation.folds", f"{rules.method} has no folds; set it to null or use validation=kfold.")
    if rules.repeats > 1 and rules.method != "repeated":
        yield Problem("validation.repeats", f"only validation=repeated repeats; {rules.method} must have 1.")
    if rules.method == "holdout" and rules.fraction is None:
        yield Problem("validation.fraction", "must be a number > 0 and < 1 for method holdout; got null.")
    if rules.method != "holdout" and rules.fraction is not None:
        yield Problem("validation.fraction", f"{rules.method} has none; set it to null or use validation=holdout.")


def _own_data(settings: Settings) -> Iterator[Problem]:
    """What is said of a table of one's own must be meant for one, and heeded."""
    data, method = settings.data, settings.validation.method
    for name, meant in _ONLY_FOR.items():
        if data.name not in meant and getattr(data, name) != type(data).model_fields[name].default:
            yield Problem(f"data.{name}", f"is for data={' and '.join(meant)}; data={data.name} has no use for it.")
    if data.name != "table":
        return
    if data.module and not any(f"{data.module}.".startswith(f"{name}.") for name in settings.allow_targets):
        yield Problem(
            "data.path",
            f"{data.path} runs code of the module {data.module}. To allow it: 'allow_targets=[{data.module}]'.",
        )
    if data.normalize == "channel":
        yield Problem("data.normalize", "must be feature or none for a table, whose columns are scaled one by one.")
    if data.group is not None and method != "group":
        yield Problem("data.group", f"is heeded by validation=group alone; got validation={method}.")
    if data.time is not None and method != "time_series":
        yield Problem("data.time", f"is heeded by validation=time_series alone; got validation={method}.")


def _inner_rows(settings: Settings) -> Iterator[Problem]:
    """Resubstitution keeps no row back that early stopping or a plateau schedule could watch."""
    if settings.validation.method != "resubstitution":
        return
    why = "validation=resubstitution trains on every row and has none to watch"
    if settings.validation.threshold is not None:
        yield Problem("validation.threshold", f"{why}; set it to null or use another validation.")
    if settings.trainer.patience is not None:
        yield Problem("trainer.patience", f"{why}; set it to null or use another validation.")
    if settings.scheduler is not None and settings.scheduler.target == _PLATEAU:
        yield Problem("scheduler", f"{why}, which plateau needs; use another scheduler or another validation.")


def _numpy_engine(settings: Settings) -> Iterator[Problem]:
    trainer = settings.trainer
    if settings.engine.name != "numpy":
        return
    why = "engine=numpy computes in one process on the CPU"
    if trainer.accelerator not in ("auto", "cpu"):
        yield Problem("trainer.accelerator", f"{why}: must be auto or cpu; got {trainer.accelerator}.")
    if trainer.precision not in ("32-true", "64-true"):
        yield Problem("trainer.precision", f"{why}: must be 32-true or 64-true; got {trainer.precision}.")
    if trainer.devices not in (1, "auto"):
        yield Problem("trainer.devices", f"{why}: must be 1 or auto; got {trainer.devices}.")
    if trainer.num_nodes > 1:
        yield Problem("trainer.num_nodes", f"{why}: must be 1; got {trainer.num_nodes}.")
    if trainer.strategy != "auto":
        yield Problem("trainer.strategy", f"{why}: must be auto; got {trainer.strategy}.")
    if settings.model.target != _MLP:
        yield Problem("model", f"engine=numpy has the MLP only, model=mlp; got {settings.model.target}.")
    if settings.model.residual:
        yield Problem("model.residual", "engine=numpy has no residual layers; set it to false.")
    if settings.averaging is not None and settings.averaging.method != "ema":
        yield Problem("averaging", f"engine=numpy has ema only; got {settings.averaging.method}.")
    if trainer.accumulate > 1:
        yield Problem("trainer.accumulate", "engine=numpy works through whole batches; set it to 1.")
    if settings.augmentation is not None:
        yield Problem("augmentation", "engine=numpy learns from rows as they are; use augmentation=none.")


def _inspection(settings: Settings) -> Iterator[Problem]:
    """Event files are for the inside of the network, so what forbids looking there forbids both."""
    if not settings.inspected:
        return
    asked = "trainer.inspect" if settings.trainer.inspect else "tracking.tensorboard"
    if settings.search is not None:
        yield Problem(
            asked,
            "a search trains too many networks to look into each; set it to false, and look into the best one "
            f"afterwards: train.py experiment=best_{settings.task_name} {asked}=true.",
        )


def _accelerators(settings: Settings) -> Iterator[Problem]:
    trainer = settings.trainer
    if trainer.accelerator == "mps" and trainer.precision == "64-true":
        yield Problem("trainer.precision", "mps has no 64-bit floats; use 32-true or another accelerator.")
    if trainer.accelerator in ("cpu", "mps", "tpu") and trainer.precision == "tf32":
        yield Problem("trainer.precision", f"tf32 is arithmetic of CUDA GPUs; got {trainer.accelerator}. Use 32-true.")


def _optimizer(settings: Settings) -> Iterator[Problem]:
    more = settings.optimizer.model_extra or {}
    if more.get("nesterov") is True and not settings.optimizer.momentum:
        yield Problem("optimizer.nesterov", f"needs optimizer.momentum > 0; got {show(settings.optimizer.momentum)}.")
    if more.get("nesterov") is True and more.get("dampening"):
        yield Problem("optimizer.nesterov", f"needs optimizer.dampening=0; got {show(more['dampening'])}.")


def _scheduler(settings: Settings) -> Iterator[Problem]:
    scheduler = settings.scheduler
    if scheduler is None:
        return
    if scheduler.target in _BY_STEP and scheduler.interval != "step":
        yield Problem("scheduler.interval", f"must be step for {scheduler.target}, which counts steps; got epoch.")
    epochs, last = scheduler.arguments.get("epochs"), settings.trainer.max_epochs
    if scheduler.target in _BY_STEP and isinstance(epochs, int) and epochs < last:
        yield Problem("scheduler.epochs", f"must be at least trainer.max_epochs, {last}; got {epochs}.")
    if scheduler.target == _PLATEAU and scheduler.interval != "epoch":
        yield Problem("scheduler.interval", f"must be epoch for {scheduler.target}, which follows the loss; got step.")


def _model(settings: Settings) -> Iterator[Problem]:
    if settings.model.batch_norm and settings.trainer.batch_size == 1:
        yield Problem("trainer.batch_size", "must be >= 2 with model.batch_norm, which compares rows; got 1.")
    if settings.model.batch_norm and settings.model.layer_norm:
        yield Problem(
            "model.layer_norm", "does the same as model.batch_norm in another way; one of them must be false."
        )


def _parts(settings: Settings) -> Iterator[Problem]:
    parts, rows = settings.trainer.accumulate, settings.trainer.batch_size
    if parts > rows:
        yield Problem("trainer.accumulate", f"must be at most trainer.batch_size, {rows}; got {parts}.")


def _metric(settings: Settings) -> Iterator[Problem]:
    if settings.search is None or settings.search.metric is None:
        return
    from pipeline.metrics import TASKS, metrics_of  # late: NumPy takes longer to import than all of this to run

    scores = list(dict.fromkeys(metric.name for task in TASKS for metric in metrics_of(task)))
    costs = list(type(settings.search.constraints).model_fields)
    asked = settings.search.metric
    names = asked if isinstance(asked, list) else [asked]
    for name in names:
        if name not in (*scores, *costs):
            known = ", ".join((*scores, *costs))
            yield must_be("search.metric", f"null, one of {known}, or a list of them", name, (*scores, *costs))
    if len(set(names)) < len(names):
        yield Problem("search.metric", f"must name each once; got {', '.join(names)}.")
    if set(names) <= set(costs):
        yield Problem("search.metric", "must hold a score: the cheapest network need not learn anything.")


def _several_metrics(settings: Settings) -> Iterator[Problem]:
    """What has no meaning, or no form in Optuna, where trials are not ranked by one number."""
    search = settings.search
    if search is None or not isinstance(search.metric, list) or len(search.metric) < 2:
        return
    why = f"with several metrics ({', '.join(search.metric)}) no single score ranks the trials"
    if not search.pruner.target.endswith(".NopPruner"):
        yield Problem("search/pruner", f"{why} while they train; choose search/pruner=none.")
    if search.sampler.target == "optuna.samplers.CmaEsSampler":
        yield Problem("search/sampler", f"{why}, as cmaes needs; choose tpe, nsga2, gp, random, qmc or grid.")
    if search.target is not None:
        yield Problem("search.target", f"{why}; set it to null, or limit the costs by search.constraints.")
    if search.terminator:
        yield Problem("search.terminator", f"{why}; set it to false.")
    if search.repeats:
        yield Problem("search.repeats", f"{why}; set it to 0.")


def _terminator(settings: Settings) -> Iterator[Problem]:
    if settings.search is not None and settings.search.terminator and settings.validation.method not in _FOLDED:
        why = f"needs the spread of several folds; validation={settings.validation.method} has one"
        yield Problem("search.terminator", f"{why}. Set it to false, or use another validation.")


def _replaced(settings: Settings) -> Iterator[Problem]:
    if settings.search is None:
        return
    for component in (settings.search.sampler, settings.search.pruner):
        if choice := _NOT_HERE.get(component.target):
            yield Problem(choice.partition("=")[0], f"{component.target} does not serve here; choose {choice}.")


def _test_over_folds(settings: Settings) -> Iterator[Problem]:
    """k pairs cannot give a p-value below 2⁻ᵏ, that of all of them pointing one way."""
    search, rules = settings.search, settings.validation
    if search is None or search.pruner.target != "pipeline.search.pruners.FoldWilcoxonPruner":
        return
    if rules.method in _FOLDED and rules.folds is None:
        return  # told already
    folds = (rules.folds or 1) * rules.repeats
    threshold = search.pruner.arguments.get("p_threshold")
    if isinstance(threshold, int | float) and threshold <= 2.0**-folds:
        yield Problem(
            "search.pruner.p_threshold",
            f"must be > {2.0**-folds:.4g}, the smallest p-value of {folds} fold{'s' * (folds > 1)}, or nothing is ever "
            f"pruned; got {show(threshold)}. More folds or validation=repeated allow less.",
        )


_RULES: tuple[Callable[[Settings], Iterator[Problem]], ...] = (
    _folds,
    _own_data,
    _inner_rows,
    _numpy_engine,
    _inspection,
    _accelerators,
    _optimizer,
    _scheduler,
    _model,
    _parts,
    _metric,
    _several_metrics,
    _terminator,
    _replaced,
    _test_over_folds,
)


def _component_problems(key: str, component: Component, allow: list[str]) -> list[Problem]:
    """Is the target allowed and there, and does it take these arguments?"""
    if not any(f"{component.target}.".startswith(f"{module}.") for module in (*ALLOWED_TARGETS, *allow)):
        return [_not_allowed(key, component.target, allow)]
    try:
        signature = signature_of(component.target)
    except (UnknownTarget, ImportError, SyntaxError) as error:
        return [_not_there(key, component.target, error)]
    given = _given(component)
    wrong = [_wrong_argument(key, component, signature, name, value) for name, value in given.items()]
    return [*filter(None, wrong), *_missing_arguments(key, component, signature, given)]


def _not_allowed(key: str, target: str, allow: list[str]) -> Problem:
    module, _, name = target.rpartition(".")
    if not module:
        return Problem(f"{key}._target_", f"must be a full import path, such as torch.nn.ReLU; got {show(target)}.")
    near = nearest(module, ALLOWED_TARGETS)
    return Problem(
        f"{key}._target_",
        f"{target} lies outside the allowed modules, {', '.join((*ALLOWED_TARGETS, *allow))}."
        f"{did_you_mean(near and f'{near}.{name}')} To allow it: 'allow_targets=[{','.join((*allow, module))}]'.",
    )


def _not_there(key: str, target: str, error: Exception) -> Problem:
    package = target.partition(".")[0]
    if not exists(package):
        how = "install it, or add its folder to PYTHONPATH"
        return Problem(f"{key}._target_", f"there is no package {package}; {how}.")
    if not isinstance(error, UnknownTarget):
        return Problem(f"{key}._target_", f"{target} cannot be read: {error}.")
    near = nearest(error.name, names_in(error.module))
    meant = near and f"{error.module}.{near}{target.removeprefix(f'{error.module}.{error.name}')}"
    return Problem(f"{key}._target_", f"{error}.{did_you_mean(meant)}")


def _given(component: Component) -> dict[str, object]:
    """The arguments that the target receives from the config; declared ones that change nothing are left out."""
    given: dict[str, object] = dict(component.model_extra or {})
    if isinstance(component, OptimizerSettings | ModelSettings):
        for name, field in type(component).model_fields.items():
            is_set = name in component.model_fields_set and getattr(component, name) != field.default
            if is_set and name != "target":
                given[name] = getattr(component, name)
    return given


def _wrong_argument(key: str, component: Component, signature: Signature, name: str, value: object) -> Problem | None:
    """What is wrong with one argument, if anything is."""
    where, known = f"{key}.{name}", configurable(key, signature)
    if name in _SUPPLIED.get(key, frozenset()):
        how = "choose one with activation=NAME" if name == "activation" else "leave it out"
        return Problem(where, f"the program gives {name} to {component.target}; {how}.")
    if name not in known and not signature.open:
        takes = f"it takes {', '.join(known)}" if known else "it takes no arguments"
        return Problem(where, f"{component.target} takes no {name}; {takes}.{did_you_mean(nearest(name, known))}")
    if isinstance(value, dict) and "_target_" in value:
        return Problem(where, "must be a plain value: a _target_ inside a _target_ is not built.")
    parameter = signature.parameters.get(name)
    if parameter is not None and not parameter.fits(value):
        return must_be(where, f"{parameter.expected} for {component.target}", value, map(str, parameter.choices))
    return None


def _missing_arguments(key: str, component: Component, signature: Signature, given: dict[str, object]) -> list[Problem]:
    declared = type(component).model_fields.keys() if isinstance(component, ModelSettings) else set()
    return [
        Problem(f"{key}.{name}", f"{component.target} needs it{_like(signature, name)}; add {key}.{name}=…")
        for name in configurable(key, signature)
        if signature.parameters[name].required and name not in given and name not in declared
    ]


def _like(signature: Signature, name: str) -> str:
    words = signature.parameters[name].expected
    return f", {words}" if words else ""
