// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A tenant whose container has the engine half's uid spends what the kernel counts by uid.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use evanesce_integration::sight::{self, Sight};
use evanesce_integration::wait;
use evanesce_integration::world::{DB_CLASS, PASSWORD, Setup, lively_class};
use serde_json::json;

/// A uid of this test's own: tests that run beside it are not to be the victims.
const UID: &str = "60123";

/// What the plugin is started with; a tenant may have as much.
const THREADS: &str = "--nproc=64:";

/// Takes inotify instances, descriptors under way in sockets, and processes, until the kernel refuses each; says so and holds
/// on to them until its standard input ends.
const SPEND: &str = r#"
import array, ctypes, errno, os, resource, signal, socket, sys
open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))
resource.setrlimit(resource.RLIMIT_NPROC, (256, 256))
libc = ctypes.CDLL(None, use_errno=True)
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
instances = 0
while libc.inotify_init1(0) >= 0: instances += 1
assert ctypes.get_errno() == errno.EMFILE
pairs, sent = [], 0
try:
    while True:
        pairs += [(a, b) for a, b in [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)]]
        pairs[-1][0].setblocking(False)
        try:
            while True:
                pairs[-1][0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 250))])
                sent += 250
        except BlockingIOError: pass
except OSError as refusal:
    assert refusal.errno == errno.ETOOMANYREFS, refusal
assert sent >= open_files, (sent, open_files)
children = []
try:
    while True:
        children.append(os.fork())
        if children[-1] == 0:
            libc.prctl(1, signal.SIGKILL)
            signal.pause()
except BlockingIOError: pass
print(instances, sent, len(children), flush=True)
sys.stdin.read()
for child in children: os.kill(child, signal.SIGKILL)
for child in children: os.waitpid(child, 0)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_of_the_engines_uid_that_spends_everything_stops_no_delivery() {
    let _tenant = Tenant::spend();
    let files = ["{path: password, from: {backend: vault, secret: kv/payments/db, key: password}}"];
    let setup =
        Setup::default().argument(&format!("--engine-uid={UID}")).under(["prlimit", THREADS].map(str::to_owned).into());
    let mut world = setup.class(&lively_class("lively", &files)).recorder().await.unwrap();

    for password in ["second", "third"] {
        let volume = world.volume(&world.pod("payments", "app"), "lively");
        world.kubelet.publish(&volume).await.unwrap();
        world.backend.put("kv", "payments/db", &json!({"username": "app", "password": password}));
        let refreshed = || sight::text(volume.target_path(), "password") == password;
        wait::until("the new value is in the file", refreshed).await;
        world.kubelet.unpublish(&volume).await.unwrap();
        assert_eq!(sight::look(volume.target_path()).unwrap(), Sight::Absent);
        // And by the next engine half.
        world.plugin.kill_engine().await.unwrap();
    }

    world.backend.put("kv", "payments/db", &json!({"username": "app", "password": PASSWORD}));
    world.classes("more.yaml", &DB_CLASS.replace("name: db", "name: more")).unwrap();
    let volume = world.volume(&world.pod("payments", "app"), "more");
    wait::until_ready("a class is found without a watch", async || world.kubelet.publish(&volume).await.ok()).await;
    assert_eq!(sight::text(volume.target_path(), "password"), PASSWORD);
    assert!(world.plugin.log().contains("cannot watch for changes of classes"), "nothing was left to watch with");
}

/// Gives everything back when it is dropped.
struct Tenant(Child);

impl Tenant {
    fn spend() -> Self {
        let mut tenant = Command::new("python3")
            .args(["-I", "-c", SPEND, UID])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is installed: `apt-get install python3`");
        let mut spent = String::new();
        BufReader::new(tenant.stdout.take().unwrap()).read_line(&mut spent).unwrap();
        let tenant = Self(tenant);
        let spent: Vec<u32> = spent.split_whitespace().map(|number| number.parse().unwrap()).collect();
        assert!(spent.len() == 3 && spent.iter().all(|number| *number > 50), "the tenant has spent {spent:?}");
        tenant
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}
