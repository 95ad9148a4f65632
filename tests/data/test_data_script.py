"""`python scripts/data.py`, as `make data` calls it."""

from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess

from tests.running import run_script


def run(repository: Path, *arguments: str) -> CompletedProcess[str]:
    return run_script(repository / "scripts" / "data.py", *arguments, PYTHONPATH=str(repository))


def test_one_line_per_data_set(repository: Path) -> None:
    done = run(repository, "digits", "xor")
    assert (done.returncode, done.stderr) == (0, "")
    digits, xor = done.stdout.splitlines()
    assert digits.startswith("digits: 1,797 rows of 8 × 8 uint8, 10 classes · scikit-learn")
    assert xor.startswith("xor: 400 rows of 2 float32, 2 classes · generated")


def test_a_failure_is_one_message_and_the_others_are_still_fetched(repository: Path) -> None:
    done = run(repository, "irs", "iris")
    assert done.returncode == 2
    assert done.stdout.startswith("iris: 150 rows")
    assert "Did you mean data=iris?" in done.stderr
    assert "Traceback" not in done.stderr
