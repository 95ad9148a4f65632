"""A finished network as a torch.export program and as ONNX, and both with the card as one MLflow model."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from pipeline.errors import ExportError
from pipeline.export.card import Card, as_written

if TYPE_CHECKING:
    from pipeline.data import Dataset

_NEEDS = ("mlflow", "numpy", "onnxruntime", "pandas")
_EXAMPLE_ROWS = 3
_STANDALONE = Path(__file__).with_name("standalone.py")


def write(module: nn.Module, card: Card, data: Dataset, folder: Path) -> None:
    """Write every format into an empty folder. Raises ExportError for a network that they cannot hold."""
    rows = np.array(data.inputs[:_EXAMPLE_ROWS])
    with quiet():
        try:
            program = _program(module, rows)
            _write_torch(program, card, folder / "model.pt2")
            _write_onnx(program, card, folder / "model.onnx")
        except Exception as error:  # torch raises whatever its layers raise
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ExportError(
                f"The network must consist of layers that torch.export and ONNX have; this one cannot be exported: "
                f"{first}. Use other layers, or train without a model by export=none."
            ) from error
    (folder / "model.json").write_text(json.dumps(card, indent=1), encoding="utf-8")
    _write_mlflow(folder, card, rows)


def _program(module: nn.Module, example: np.ndarray) -> torch.export.ExportedProgram:
    """For any number of rows."""
    rows = torch.export.Dim("rows", min=1)
    with torch.no_grad():
        return torch.export.export(module, (torch.from_numpy(example),), dynamic_shapes=({0: rows},))


def _write_torch(program: torch.export.ExportedProgram, card: Card, path: Path) -> None:
    """Use: `torch.export.load("model.pt2").module()(rows)`. The card lies inside as an extra file."""
    torch.export.save(program, path, extra_files={"model.json": json.dumps(card)})
    _drop_pickle(path)


def _drop_pickle(path: Path) -> None:
    """Empty the example inputs in the archive, the one part of it that torch pickles; loading goes without."""
    with zipfile.ZipFile(path) as archive:
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:  # stored, as torch reads it
        for name, content in parts.items():
            archive.writestr(name, b"" if "/sample_inputs/" in name else content)


def _write_onnx(program: torch.export.ExportedProgram, card: Card, path: Path) -> None:
    """One file; the card's parts are its metadata, all but the longest, which nothing needs to answer."""
    import onnx

    names: dict[str, Any] = {"input_names": ["rows"], "output_names": ["answers"]}
    exported = torch.onnx.export(program, external_data=False, verbose=False, dynamo=True, **names)
    assert exported is not None
    proto = exported.model_proto
    for name, value in card.items():
        if name == "reference":
            continue
        entry = proto.metadata_props.add()
        entry.key, entry.value = name, value if isinstance(value, str) else json.dumps(value)
    onnx.save(proto, path)


def _write_mlflow(folder: Path, card: Card, rows: np.ndarray) -> None:
    """What makes the folder an MLflow model: its description, its needs, an input example and the code that answers.

    MLflow's own `save_model` would do, but it first lists every file of every installed package: 2 s for a warning.
    """
    import yaml

    source = _STANDALONE.read_bytes()
    # Named by its content, so that models of several versions can be loaded side by side.
    module = f"finished_model_{hashlib.blake2b(source, digest_size=6).hexdigest()}"
    (folder / "code").mkdir()
    (folder / "code" / f"{module}.py").write_bytes(source)
    needs = [f"{name}=={metadata.version(name)}" for name in _NEEDS]
    python = platform.python_version()
    environment = {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    conda = {"name": "model", "channels": ["conda-forge"], "dependencies": [f"python={python}", "pip", {"pip": needs}]}
    (folder / "requirements.txt").write_text("\n".join(needs), encoding="utf-8")
    (folder / "python_env.yaml").write_text(yaml.safe_dump(environment), encoding="utf-8")
    (folder / "conda.yaml").write_text(yaml.safe_dump(conda, sort_keys=False), encoding="utf-8")
    with quiet():
        import mlflow.pyfunc
        from mlflow.models import Model, ModelSignature

        model = Model(signature=ModelSignature(*_schemas(card)), saved_input_example_info=_example(folder, card, rows))
        environments = {"conda_env": "conda.yaml", "python_env": "python_env.yaml"}
        mlflow.pyfunc.add_to_model(model, loader_module=module, code="code", **environments)
        model.save(str(folder / "MLmodel"))


def _schemas(card: Card) -> tuple[Any, Any]:
    """Of rows: a column per feature, or a tensor. Of answers: the columns of `standalone.Answers.named`."""
    from mlflow.types import ColSpec, Schema, TensorSpec

    given = card["input"]
    tensor = TensorSpec(np.dtype(given["dtype"]), (-1, *given["row_shape"]))
    words = {each["name"] for each in card["columns"] if each["kind"] != "numeric"}
    whole = not card["columns"]  # else values may be missing
    columns: list[Any] = [ColSpec("string" if n in words else "double", n, required=whole) for n in card["features"]]
    inputs = Schema(columns or [tensor])
    predicted = [ColSpec("string", "predicted")] if card["classes"] else []
    return inputs, Schema([*predicted, *(ColSpec("double", name) for name in card["output"])])


def _example(folder: Path, card: Card, rows: np.ndarray) -> dict[str, str]:
    """Write some rows as MLflow reads them back, and as a request to its server; how they are kept."""
    if card["features"]:
        table = as_written(rows, card).astype(object)
        content: Any = {"columns": card["features"], "data": table.where(table.notna(), None).values.tolist()}
        request, kept = {"dataframe_split": content}, {"type": "dataframe", "pandas_orient": "split"}
    else:
        content = request = {"inputs": rows.tolist()}
        kept = {"type": "ndarray", "format": "tf-serving"}
    (folder / "input_example.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "serving_input_example.json").write_text(json.dumps(request), encoding="utf-8")
    return {"artifact_path": "input_example.json", "serving_input_path": "serving_input_example.json", **kept}


@contextmanager
def quiet() -> Iterator[None]:
    """Exporters and MLflow tell of their own inside; what a user must know, this package tells."""
    chatty = [logging.getLogger(name) for name in ("mlflow", "torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in chatty]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in chatty:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(chatty, levels, strict=True):
                logger.setLevel(level)
