"""What pyproject.toml cannot say: recipes and suites of configs/ are installed as anyorder_jax/configs."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["anyorder_jax*", "conversion*"]),
        "anyorder_jax.configs",
        "anyorder_jax.configs.ablations",
    ],
    package_dir={"anyorder_jax.configs": "configs"},
)
