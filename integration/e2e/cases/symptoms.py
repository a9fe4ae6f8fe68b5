# SPDX-FileCopyrightText: The Evanesce Authors
# SPDX-License-Identifier: Apache-2.0
"""Broken on purpose: what an operator then reads is what `docs/troubleshooting.md` quotes, and once it is mended all goes on."""

import contextlib

from rig import certificates, classes, counts, node, openbao, plugin, release
from rig.pod import Pod, running, untouched
from rig.wait import check, refused, until

from . import case

PAGE = release.REPOSITORY / "docs" / "troubleshooting.md"


@case
def every_way_in_which_a_backend_cannot_be_reached_is_in_the_log_as_the_docs_quote_it(_bao):
    elsewhere = openbao.service("elsewhere")
    stranger = node.HOME / "stranger"
    stranger.mkdir(exist_ok=True)
    certificates.authority(stranger)
    backends = {
        "no connection: connection refused":
            classes.backend("nobody-listens", address=f"https://{node.ADDRESS}:443"),
        "its TLS certificate has an issuer that is not trusted: set spec.vault.caBundle, or caFile, to the issuer's certificate":
            classes.backend("untrusted", trust=("caBundle", (stranger / "ca.crt").read_text())),
        "its TLS certificate is for another name: use a name of the certificate in spec.vault.address":
            classes.backend("misnamed", address=openbao.ADDRESS_BY_NAME.replace("openbao.", "elsewhere.")),
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(classes.made(*elsewhere))
        for says, backend in backends.items():
            name = backend["metadata"]["name"]
            stack.enter_context(classes.made(backend, classes.volume(name, backend=name)))
            pod = stack.enter_context(Pod(name, volume=name))
            _quoted(says)
            until(f"the log says: {says}", lambda says=says: says in plugin.logs())
            check("10.30" not in str(pod.events()), f"no address of the platform's is told to the pod: {pod.events()}")


@case
def a_backend_with_a_name_of_the_clusters_dns_serves_pods(_bao):
    by_name = classes.backend("by-name", address=openbao.ADDRESS_BY_NAME)
    with classes.made(*openbao.service("openbao"), by_name, classes.volume("by-name", backend="by-name")):
        with running("by-name", volume="by-name"):
            pass


@case
def a_full_namespace_and_a_full_node_are_refused_with_the_limit_to_raise(bao):
    bao.role("everyone", accounts=["*"], namespaces=["*"])
    roomy = classes.backend("roomy", role="everyone", namespaces=["payments", "shop"])
    halves = [classes.volume("half", namespace=namespace, backend="roomy", size="100Mi") for namespace in ("payments", "shop")]
    release.install("--set", "limits.namespaceTmpfs=128Mi", "--set", "limits.nodeTmpfs=144Mi")
    try:
        with classes.made(roomy, classes.volume("large", size="200Mi"), *halves):
            with Pod("too-large", volume="large") as large, running("half", volume="half"), Pod("half", namespace="shop", volume="half") as other:
                _heard(large, "namespace payments would have 209715200 bytes of secret volumes on this node and may have 134217728: "
                              "use fewer or smaller volumes, or ask for a larger --namespace-tmpfs-limit")
                _heard(other, "this node has no room for another secret volume of this size: ask for a larger --node-tmpfs-limit")
                release.install()
                other.wait_until_it_runs(counts.RETRY_SECONDS)
                large.wait_until_it_runs(counts.RETRY_SECONDS)
    finally:
        release.install()


@case
def an_audit_log_on_a_full_disk_is_told_and_costs_nobody_a_secret(_bao):
    disk = node.HOME / "audit-disk"
    node.inside("bash", "-c", 'mkdir -p "$0"; mount -t tmpfs -o size=64k tmpfs "$0"; head -c 60k /dev/zero >"$0/fill"', disk)
    try:
        release.install("--set", "audit.to=file", "--set", f"audit.hostPath={disk}")
        with classes.made(classes.volume("often", every="1s")), running("unaudited", volume="often"):
            says = "the audit log cannot be written, events are lost: look at its disk"
            until("the log says so", lambda: says in plugin.logs())
            _quoted(says)
            with running("unaudited-too"):
                check(plugin.metric("evanesce_audit_events_lost") > 0, "lost events are counted")
            node.inside("rm", disk / "fill")
            until("the log itself says how many are missing", lambda: 'first_sequence' in node.inside("cat", disk / "audit.jsonl"))
    finally:
        release.install()
        node.inside("umount", disk)


@case
def a_plugin_that_pod_security_forbids_is_quoted_by_its_daemonset(_bao):
    with running("before-pod-security") as pod, untouched(pod):
        label = ("label", "namespace", plugin.NAMESPACE, "--overwrite")
        node.kubectl(*label, "pod-security.kubernetes.io/enforce=restricted")
        try:
            node.kubectl("delete", "pod", "-n", plugin.NAMESPACE, plugin.pod()["metadata"]["name"])
            says = 'violates PodSecurity "restricted:latest": privileged'
            until("the DaemonSet says so", lambda: says in node.kubectl("describe", "daemonset", "evanesce-csi", "-n", plugin.NAMESPACE))
            _quoted(says)
        finally:
            node.kubectl(*label, "pod-security.kubernetes.io/enforce=privileged")
        # The controller tries again ever later; a change of the DaemonSet is tried at once.
        node.kubectl("rollout", "restart", "daemonset/evanesce-csi", "-n", plugin.NAMESPACE)
        plugin.until_it_serves()


@case
def without_the_plugin_pods_start_late_and_end_late_and_kubelet_says_why(_bao):
    with running("ends-late") as ends:
        with plugin.absent():
            with Pod("starts-late") as starts:
                _heard(starts, "MountVolume.SetUp failed", "kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: "
                       f"driver name {plugin.DRIVER} not found in the list of registered CSI drivers")
            node.kubectl("delete", "pod", ends.name, "-n", ends.namespace, "--wait=false")
            says = ("kubernetes.io/csi: Unmounter.TearDownAt failed to get CSI client: "
                    f"driver name {plugin.DRIVER} not found in the list of registered CSI drivers")
            log = node.HOME / "log" / "kubelet.log"
            until("kubelet's log says so", lambda: says in log.read_text(errors="replace"))
            _quoted(says)


@case
def helm_test_passes_where_a_class_is_delivered_and_fails_where_it_is_not(_bao):
    values = ("--set", "test.namespace=payments", "--set", "test.secretVolume=db", "--set")
    release.install(*values, "test.serviceAccount=app")
    try:
        check("Succeeded" in release.helm("test", release.NAME, "-n", plugin.NAMESPACE), "it passes")
        release.install(*values, "test.serviceAccount=stranger")
        said = refused(lambda: release.helm("test", release.NAME, "-n", plugin.NAMESPACE, "--timeout", "20s"))
        check("evanesce-csi-test" in said or "timed out" in said, f"it fails: {said}")
        node.kubectl("delete", "pod", "evanesce-csi-test", "-n", "payments", "--ignore-not-found", "--grace-period=0", "--force")
    finally:
        release.install()


@case
def a_new_nodes_taint_is_taken_away_once_its_plugin_delivers(_bao):
    key = "evanesce.dev/agent-not-ready"

    def tainted():
        return key in str(node.get("node", "node-1")["spec"].get("taints", []))

    release.install("--set", "startupTaint.enabled=true")
    try:
        with contextlib.ExitStack() as stack:
            with plugin.absent():
                node.kubectl("taint", "node", "node-1", f"{key}=:NoSchedule")
                pod = stack.enter_context(Pod("on-a-new-node"))
                until("the pod is held back", lambda: "untolerated taint" in str(pod.status()))
            pod.wait_until_it_runs()
            check(not tainted(), "the taint is gone")
    finally:
        if tainted():
            node.kubectl("taint", "node", "node-1", f"{key}-")
        release.install()


def _heard(pod, *words):
    """The pod's event says these words, and the page quotes them."""
    pod.refused(*words)
    for of in words:
        _quoted(of)


def _quoted(words):
    check(words in PAGE.read_text(), f"{PAGE.name} does not quote: {words}")
