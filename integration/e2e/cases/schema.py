# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""The custom resource definitions: the API server judges as `evanesce check` does, by the documents of its own tests."""

import pathlib
import re

from rig import node
from rig.wait import Failure, check

from . import case

ROOT = pathlib.Path(__file__).resolve().parents[3]
SPECS = ROOT / "engine" / "tests" / "specs"


@case
def the_api_server_refuses_what_evanesce_check_refuses_in_the_same_words(_bao):
    wrong = [f"{file.name}: {said}" for file in sorted((SPECS / "fails").iterdir()) if (said := _misjudged(file))]
    check(not wrong, "\n" + "\n".join(wrong))


@case
def the_api_server_takes_every_example_that_evanesce_check_takes(_bao):
    readme = re.findall(r"```yaml\n(apiVersion: evanesce.dev/.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    files = [*(SPECS / "succeeds").iterdir(), ROOT / "integration" / "e2e" / "manifests" / "classes.yaml"]
    texts = readme + [text for file in files if "apiVersion" in (text := file.read_text())]
    check(len(texts) > 8, f"there are examples: {len(texts)}")
    for text in texts:
        heard = _apply(text)
        check(heard == "", f"{heard}\n{text}")


@case
def a_key_that_nobody_knows_is_kept_for_the_driver_to_refuse_by_name(_bao):
    unknown = {"readonly": True, "nested": {"a": [1]}}
    one = {"path": "a", "from": {"backend": "vault", "secret": "kv/a", **unknown}, **unknown}
    volume = {
        "apiVersion": "evanesce.dev/v1alpha1", "kind": "SecretVolume", "metadata": {"name": "unknown-keys", "namespace": "default"},
        "spec": {"files": [one], **unknown}, **unknown,
    }
    node.apply(volume)
    try:
        kept = node.get("secretvolume", "unknown-keys")
        check({**kept, "metadata": volume["metadata"]} == volume, f"nothing is dropped: {kept}")
    finally:
        node.kubectl("delete", "secretvolume", "unknown-keys")


def _misjudged(file):
    """How the API server judges a document otherwise than its first lines say; nothing where it does not.

    The words are those of the line `# error:`; a line `# api:` has others, where the API server has its own, or `accepted`.
    """
    text = file.read_text()
    said = dict(re.findall(r"^# (error|api): (.*)$", text, re.MULTILINE))
    words = said.get("api") or re.sub(r"^(line \d+, column \d+: )?([\w.\[\]]+: )?", "", said["error"])
    heard = _apply(text)
    if words == "accepted":
        return f"refused: {heard}" if heard else None
    return None if words in heard else f"expected {words!r}, heard {heard!r}"


def _apply(text):
    """What is wrong with `text`, according to the API server; names that are taken do not matter."""
    elsewhere = re.sub(r'(metadata"?: \{.*?namespace"?: "?)[-a-z]+', r"\1default", text)
    elsewhere = re.sub(r'(metadata"?: \{"?name"?: "?[-\w.]+)', r"\1.judged", elsewhere)
    try:
        node.kubectl("create", "--dry-run=server", "-f", "-", stdin=elsewhere)
    except Failure as failure:
        return str(failure)
    return ""
