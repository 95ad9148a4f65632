"""MLflow's server with a first look for who trains networks: `mlflow server --app-name mlp-pipeline`.

On the first visit MLflow (3.17) opens an assistant over a third of the page, and shows the pages for language models
until "Model training" is chosen. What a visitor has chosen is kept in the browser; here the choices of somebody who
has none yet are made beforehand. Everything else is MLflow's own. Found as an entry point, `mlflow.app`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

APP = "mlp-pipeline"
"""The name of the entry point."""

_CHOICES = {  # key in the browser's storage -> value, as MLflow writes them
    "mlflow.workflowType_v1": "machine_learning",
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,
    "mlflow.detectIssues.guidanceShown_v1": True,
}


def create_app() -> FastAPI:
    """MLflow's app, whose only page makes the choices before it does anything else."""
    from mlflow.server import app as pages
    from mlflow.server import fastapi_app

    app: FastAPI = fastapi_app.app
    index = Path(str(pages.static_folder), "index.html")
    if index.is_file():
        page = index.read_text(encoding="utf-8").replace("<head>", f"<head>{_script()}", 1)
        pages.view_functions["serve"] = lambda: page
    return app


def _script() -> str:
    choices = json.dumps({key: json.dumps(value) for key, value in _CHOICES.items()})
    each = "if (localStorage.getItem(key) === null) localStorage.setItem(key, value)"
    return f"<script>for (const [key, value] of Object.entries({choices})) {each}</script>"
