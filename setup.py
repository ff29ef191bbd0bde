"""The build's one step of its own: write the stubs of the role packages before the files are collected."""

import runpy

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithStubs(build_py):
    """Copies the package, stubs included."""

    def run(self) -> None:
        """Write the stubs, then copy."""
        runpy.run_path("scripts/write_stubs.py", run_name="__main__")
        super().run()


setup(cmdclass={"build_py": BuildWithStubs})
