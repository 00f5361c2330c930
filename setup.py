"""What pyproject.toml cannot say: tools/, deploy/ and configs/ lie at the top of the source tree and still are in the wheel.

There they are ppmtl_tools, ppmtl_deploy and ppmtl/configs, for "tools" and "configs" would collide with the names of others.
"""

from setuptools import find_namespace_packages, find_packages, setup

FOLDERS = {"ppmtl_tools": "tools", "ppmtl_deploy": "deploy", "ppmtl.configs": "configs"}
LEFT_OUT = ["docker", "*__pycache__*"]

setup(
    packages=find_packages(include=["ppmtl", "ppmtl.*"])
    + [*FOLDERS, *(f"{n}.{p}" for n, f in FOLDERS.items() for p in find_namespace_packages(f, exclude=LEFT_OUT))],
    package_dir=FOLDERS,
    package_data={"ppmtl": ["py.typed", "demo/*", "demo/images/*"], "ppmtl.configs": ["*.yml"],
                  "ppmtl_deploy.serving.page": ["*"],
                  "ppmtl_deploy.serving.page.examples": ["*.jpg"]},
    include_package_data=False,
)  # fmt: skip
