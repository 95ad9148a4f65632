"""The doctor tells what is found, what is missing and what to do, and never falls over what it examines."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest

from scripts import doctor
from scripts.doctor import Finding, State


def only(findings: list[Finding], state: State) -> Finding:
    (finding,) = [finding for finding in findings if finding.state is state]
    return finding


def test_here_the_main_job_can_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = doctor.main([])

    lines = capsys.readouterr().out.splitlines()
    told = {line[9:24].strip(): line for line in lines}
    assert code == 0, lines
    assert len(lines) == len(told) <= 24, "one screen"
    assert f"numpy {numpy.__version__}" in told["packages"]
    assert str(tmp_path / "mlflow.db") in told["tracking"]
    assert str(tmp_path / "studies/journal.log") in told["studies"]
    assert {"cpu", "gpu (cuda)", "mps", "tpu", "fashion_mnist", "commit"} <= set(told)


def test_a_wrong_setting_is_a_problem_among_the_other_findings(capsys: pytest.CaptureFixture[str]) -> None:
    code = doctor.main(["optimiser=sgd"])

    told = capsys.readouterr().out
    assert code == 2
    assert told.startswith("ok       Python")
    assert "Did you mean optimizer?" in told.partition("problem  settings")[2]


def test_packages_are_held_against_their_ranges(tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text('[project]\ndependencies = ["numpy>=1", "pytest<2", "no-such-package"]\n')

    problem = only(list(doctor.packages(project)), State.PROBLEM)

    assert f"pytest<2 (found {pytest.__version__})" in problem.text
    assert "no-such-package (found none)" in problem.text
    assert "numpy" not in problem.text
    assert problem.remedy


def test_gpus_are_told_with_name_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from pytorch_lightning.accelerators import CUDAAccelerator

    monkeypatch.setattr(CUDAAccelerator, "is_available", lambda: True)
    monkeypatch.setattr(CUDAAccelerator, "auto_device_count", lambda: 2)
    properties = SimpleNamespace(name="Some GPU", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)

    gpu = next(finding for finding in doctor.accelerators() if finding.subject == "gpu (cuda)")

    assert gpu.state is State.OK
    assert gpu.text == "2: Some GPU, 80 GiB, Some GPU, 80 GiB"


@pytest.mark.parametrize(("storage", "state"), [("file/journal.log", "problem"), ("new/deep/journal.log", "ok")])
def test_the_journal_must_be_writable(tmp_path: Path, storage: str, state: str) -> None:
    (tmp_path / "file").touch()
    settings = SimpleNamespace(search=SimpleNamespace(storage=storage))

    (finding,) = doctor.studies(settings)

    assert finding.state == state
    assert str(tmp_path) in finding.text


def test_image_sets_are_told_with_their_folder(tmp_path: Path) -> None:
    from pipeline.data.fetch import FILE_SETS

    for name in FILE_SETS["kmnist"].md5:
        (tmp_path / "kmnist").mkdir(exist_ok=True)
        (tmp_path / "kmnist" / name).touch()
    told = {one.subject: one for one in doctor.data(SimpleNamespace(data=SimpleNamespace(path=str(tmp_path))))}

    assert told["kmnist"] == Finding(State.OK, "kmnist", str(tmp_path / "kmnist"))
    assert told["mnist"].state is State.ABSENT
    assert "make data" in told["mnist"].remedy
