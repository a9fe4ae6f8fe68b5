# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""What is in the image, as CycloneDX 1.6.

The crates are read back from the programs themselves, where `cargo auditable` put them, so list and program cannot differ;
`cargo metadata` and Cargo.lock only say more about each. So are the versions of the C library and of Rust's.
"""

import hashlib
import json
import re
import subprocess
import tempfile
import tomllib
import uuid
import zlib

import oci

MEDIA_TYPE = "application/vnd.cyclonedx+json"
SPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "evanesce.dev")   # of the serial number, which is the content's


def crates(program):
    """The packages that a program says it was built from; their `dependencies` are places in the same list."""
    with tempfile.NamedTemporaryFile() as file, tempfile.NamedTemporaryFile() as section:
        file.write(program)
        file.flush()
        subprocess.run(["objcopy", "--dump-section", f".dep-v0={section.name}", file.name, "/dev/null"], check=True)
        return json.loads(zlib.decompress(section.read()))["packages"]


def reference(crate):
    """The name of a crate in the document; a package URL if others can get it."""
    name = f"{crate['name']}@{crate['version']}"
    return f"pkg:cargo/{name}" if crate["source"] == "crates.io" else name


def document(image, programs, certificates, root, triple, epoch):
    """The document of `image` (name and version), which holds `programs` (by path) and `certificates` (a component)."""
    known = _known(root, triple)
    components, needs = {certificates["bom-ref"]: certificates}, {}
    needs["image"] = [*programs, certificates["bom-ref"]]
    for path, program in programs.items():
        packages = crates(program)
        runtimes = {it["bom-ref"]: it for it in _runtimes(program)}
        components |= runtimes
        components[path] = {
            "type": "application", "bom-ref": path, "name": path.rpartition("/")[2], "version": image["version"],
            "hashes": _hashes(hashlib.sha256(program).hexdigest()), "licenses": _licences("Apache-2.0"),
        }
        needs[path] = [*runtimes, *(reference(crate) for crate in packages if crate.get("root"))]
        for crate in packages:
            it = reference(crate)
            component = _crate(crate, known[crate["name"], crate["version"]])
            # What builds one program may be part of the other.
            if components.get(it, {}).get("scope") != "required":
                components[it] = component
            needs.setdefault(it, []).extend(reference(packages[place]) for place in crate.get("dependencies", []))
    content = {
        "components": sorted(components.values(), key=lambda component: component["bom-ref"]),
        "dependencies": [{"ref": ref, "dependsOn": sorted(set(needs[ref]))} for ref in sorted(needs)],
    }
    return oci.encode({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "serialNumber": uuid.uuid5(SPACE, oci.encode([image, epoch, content]).decode()).urn,
        "metadata": {
            "timestamp": oci.time(epoch), "lifecycles": [{"phase": "post-build"}],
            "component": {"type": "container", "bom-ref": "image", **image, "licenses": _licences("Apache-2.0")},
        },
        **content,
    })


def _known(root, triple):
    """What Cargo knows of every package of the workspace, by name and version."""
    command = ["cargo", "metadata", "--locked", "--offline", "--format-version=1", f"--filter-platform={triple}"]
    packages = json.loads(subprocess.check_output(command, cwd=root))["packages"]
    locked = tomllib.loads((root / "Cargo.lock").read_text())["package"]
    checksums = {(package["name"], package["version"]): package.get("checksum") for package in locked}
    return {key: {**package, "checksum": checksums[key]} for package in packages for key in [(package["name"], package["version"])]}


def _crate(crate, known):
    component = {
        "type": "library", "bom-ref": reference(crate), "name": crate["name"], "version": crate["version"],
        # A procedural macro, say: it made code, and is not in the program itself.
        "scope": "excluded" if crate.get("kind") == "build" else "required",
        "licenses": _licences(known["license"].replace("/", " OR ")),
    }
    if crate["source"] == "crates.io":
        component |= {"purl": reference(crate), "hashes": _hashes(known["checksum"])}
    return component


def _runtimes(program):
    """What the compilers link into every program, by what it says in the program."""
    packaged, glibc = re.search(rb"GNU C Library \(([^)]*)\) \w+ release version ([0-9]+\.[0-9]+)", program).groups()
    rust = re.search(rb"rustc version ([0-9.]+)", program)[1]
    return [
        _runtime("glibc", glibc, f"the GNU C Library, linked statically: {packaged.decode()}", "LGPL-2.1-or-later", "gnu:glibc"),
        _runtime("rust", rust, "Rust's standard library", "MIT OR Apache-2.0", "rust-lang:rust"),
    ]


def _runtime(name, version, description, licence, product):
    version = version.decode()
    it = f"pkg:generic/{name}@{version}"
    return {
        "type": "library", "bom-ref": it, "name": name, "version": version, "scope": "required", "purl": it,
        "description": description, "licenses": _licences(licence), "cpe": f"cpe:2.3:a:{product}:{version}:*:*:*:*:*:*:*",
    }


def _licences(expression):
    return [{"expression": " ".join(expression.split())}]


def _hashes(sha256):
    return [{"alg": "SHA-256", "content": sha256}]
