"""What pyproject.toml cannot say: conf/ and scripts/ travel inside of the package, where `mlp-pipeline` finds them."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["pipeline*"]), "pipeline.conf", "pipeline.scripts"],
    package_dir={"pipeline.conf": "conf", "pipeline.scripts": "scripts"},
    package_data={"pipeline.conf": ["**/*.yaml"], "pipeline.report": ["*.html"]},
    exclude_package_data={"pipeline.conf": ["experiment/best_*.yaml"]},  # what searches here have found
)
