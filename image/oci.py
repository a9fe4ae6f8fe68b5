# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""An OCI image layout (image-spec 1.1) of one layer, byte for byte the same from the same files.

Nothing here knows what the image is for, and nothing runs.
"""

import dataclasses
import datetime
import gzip
import hashlib
import io
import json
import pathlib
import shutil
import tarfile

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY = "application/vnd.oci.empty.v1+json"
# The architecture of a target triple, as images name it.
ARCHITECTURES = {"x86_64": {"architecture": "amd64"}, "aarch64": {"architecture": "arm64", "variant": "v8"}}


@dataclasses.dataclass(frozen=True)
class File:
    """A file of the layer, root's."""

    data: bytes
    mode: int = 0o644


def time(epoch):
    """Seconds since 1970 as RFC 3339."""
    return datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def digest(data):
    """The digest that names a blob."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def encode(value):
    """JSON that is the same for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def tar(files, epoch):
    """A tar of `files` (`File` by path) and the directories above them: sorted, root's, all of one time."""
    directories = {str(above) for path in files for above in pathlib.PurePath(path).parents if above.name}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted([*files, *directories]):
            entry = tarfile.TarInfo(path)
            entry.mtime = epoch
            if path in directories:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            else:
                entry.size, entry.mode = len(files[path].data), files[path].mode
                archive.addfile(entry, io.BytesIO(files[path].data))
    return out.getvalue()


def compress(data):
    """gzip without a name or a time. `gzip.compress` writes another header with each version of Python."""
    out = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=out, mtime=0) as stream:
        stream.write(data)
    return out.getvalue()


class Layout:
    """A layout in a directory, which is made anew."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        shutil.rmtree(self.directory, ignore_errors=True)
        (self.directory / "blobs" / "sha256").mkdir(parents=True)
        (self.directory / "oci-layout").write_bytes(encode({"imageLayoutVersion": "1.0.0"}))
        self._manifests = []

    def image(self, name, triple, layer, config, labels, epoch):
        """Adds an image of the one layer `layer`, a tar; returns its descriptor."""
        compressed = self._blob(LAYER, compress(layer))
        platform = {"os": "linux", **ARCHITECTURES[triple.partition("-")[0]]}
        created = time(epoch)
        described = self._blob(CONFIG, encode({
            **platform,
            "created": created,
            "config": {**config, "Labels": labels},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
            "history": [{"created": created, "created_by": "image/build"}],
        }))
        manifest = self._manifest(config=described, layers=[compressed], annotations=labels)
        # containerd knows an image by the first, most other tools by the second.
        names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
        self._list(manifest, platform=platform, annotations=names)
        return manifest

    def attach(self, subject, media_type, data, epoch):
        """Adds `data` as a referrer of the manifest `subject`."""
        manifest = self._manifest(
            artifactType=media_type, config=self._blob(EMPTY, b"{}"), layers=[self._blob(media_type, data)],
            subject=subject, annotations={"org.opencontainers.image.created": time(epoch)},
        )
        self._list(manifest, artifactType=media_type)

    def archive(self, epoch):
        """All that is in it so far, as a tar."""
        files = {str(path.relative_to(self.directory)): File(path.read_bytes()) for path in self.directory.rglob("*") if path.is_file()}
        return tar(files, epoch)

    def _list(self, manifest, **more):
        self._manifests.append({**manifest, **more})
        (self.directory / "index.json").write_bytes(encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": self._manifests}))

    def _manifest(self, **manifest):
        return self._blob(MANIFEST, encode({"schemaVersion": 2, "mediaType": MANIFEST, **manifest}))

    def _blob(self, media_type, data):
        name = digest(data)
        (self.directory / "blobs" / name.replace(":", "/")).write_bytes(data)
        return {"mediaType": media_type, "digest": name, "size": len(data)}
