// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

const BACKEND: &str = "apiVersion: evanesce.dev/v1alpha1
kind: SecretBackend
metadata: {name: sealed}
spec:
  sealed: {directory: /d, identityFile: i}
  allow: [{namespaces: [a], serviceAccounts: [b], secrets: [c]}]
";

fn volume(name: &str, every: &str) -> String {
    format!(
        "apiVersion: evanesce.dev/v1alpha1
kind: SecretVolume
metadata: {{name: {name}, namespace: payments}}
spec: {{refresh: {{every: {every}}}, files: [{{path: a, from: {{backend: sealed, secret: c}}}}]}}
"
    )
}

struct Fixture {
    folder: TempDir,
    classes: ClassDirectory,
}

impl Fixture {
    /// Watches a folder with these files; the slow reading is so slow that only the watch can bring a change.
    fn watching(files: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let classes = ClassDirectory::start(folder.path(), Duration::from_secs(3600)).unwrap();
        Self { folder, classes }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes as careful tools do.
    fn put(&self, name: &str, text: &str) {
        fs::write(self.path(".new"), text).unwrap();
        fs::rename(self.path(".new"), self.path(name)).unwrap();
    }

    /// What a lookup of the volume says, in a word.
    fn says(&self, name: &str) -> String {
        let namespace = Namespace::parse("payments").unwrap();
        match self.classes.volume(&namespace, &VolumeClassName::parse(name).unwrap()) {
            Lookup::Found(class) => format!("{:?}", class.spec.refresh.every),
            Lookup::Absent(hint) => format!("absent: {}", hint.unwrap_or_default()),
            Lookup::Broken(problem) => format!("broken: {problem}"),
            Lookup::NotKnownYet(_) => "not known yet".to_owned(),
        }
    }

    fn revision(&self, name: &str) -> u64 {
        let namespace = Namespace::parse("payments").unwrap();
        match self.classes.volume(&namespace, &VolumeClassName::parse(name).unwrap()) {
            Lookup::Found(class) => class.revision,
            _ => panic!("{}", self.says(name)),
        }
    }

    /// Waits until the lookup of the volume says something that contains `text`.
    async fn until(&self, name: &str, text: &str) {
        let mut changes = self.classes.changes();
        let wait = async {
            while !self.says(name).contains(text) {
                changes.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
        assert!(waited.is_ok(), "waited for {text:?}, found {:?}", self.says(name));
    }
}

#[tokio::test]
async fn classes_of_every_file_are_found_and_counted() {
    let two = format!("{}---\n{}", volume("one", "5m"), volume("two", "6m"));
    let dir = Fixture::watching(&[
        ("a.yaml", BACKEND),
        ("b.yml", &two),
        ("c.txt", "{"),
        (".hidden.yaml", "{"),
        ("empty.yaml", ""),
    ]);
    dir.until("one", "300s").await;
    dir.until("two", "360s").await;
    assert!(matches!(dir.classes.backend(&BackendName::parse("sealed").unwrap()), Lookup::Found(_)));
    assert_eq!(dir.classes.counts(), Counts { backends: 1, volumes: 2, problems: 0 });
    assert_eq!(dir.says("three"), "absent: ");
}

#[tokio::test]
async fn nothing_is_absent_before_the_folder_was_read() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("later");
    let classes = ClassDirectory::start(&missing, Duration::from_millis(10)).unwrap();
    let dir = Fixture { folder, classes };
    assert_eq!(dir.says("one"), "not known yet");
    let built = dir.path("building");
    fs::create_dir(&built).unwrap();
    fs::write(built.join("a.yaml"), volume("one", "5m")).unwrap();
    fs::rename(built, missing).unwrap();
    dir.until("one", "300s").await;
}

#[tokio::test]
async fn an_edited_class_is_found_with_another_revision_and_a_comment_changes_nothing() {
    let dir = Fixture::watching(&[("a.yaml", &volume("one", "5m"))]);
    dir.until("one", "300s").await;
    let before = dir.revision("one");
    dir.put("a.yaml", &volume("one", "7m"));
    dir.until("one", "420s").await;
    assert_ne!(dir.revision("one"), before);
    dir.put("a.yaml", &format!("# said again\n{}", volume("one", "5m")));
    dir.until("one", "300s").await;
    assert_eq!(dir.revision("one"), before);
}

#[tokio::test]
async fn a_config_map_that_is_swapped_is_read_again() {
    let folder = TempDir::new().unwrap();
    let generation = |name: &str, every: &str| {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("a.yaml"), volume("one", every)).unwrap();
    };
    generation("..1", "5m");
    symlink("..1", folder.path().join("..data")).unwrap();
    symlink("..data/a.yaml", folder.path().join("a.yaml")).unwrap();
    let classes = ClassDirectory::start(folder.path(), Duration::from_secs(3600)).unwrap();
    generation("..2", "7m");
    let dir = Fixture { folder, classes };
    dir.until("one", "300s").await;
    symlink("..2", dir.path("..data_tmp")).unwrap();
    fs::rename(dir.path("..data_tmp"), dir.path("..data")).unwrap();
    dir.until("one", "420s").await;
}

#[tokio::test]
async fn a_class_that_no_longer_parses_is_broken_and_not_its_former_self() {
    let dir = Fixture::watching(&[("a.yaml", &volume("one", "5m")), ("b.yaml", &volume("two", "6m"))]);
    dir.until("one", "300s").await;
    dir.put("a.yaml", "{not yaml");
    dir.until("one", "broken: a.yaml: line 1").await;
    assert_eq!(dir.says("two"), "360s");
    assert!(dir.says("three").contains("it may be in a.yaml"), "{}", dir.says("three"));
    assert_eq!(dir.classes.counts().problems, 1);
    dir.put("a.yaml", &volume("one", "5m").replace("path", "pfad"));
    dir.until("one", "spec.files[0]: unknown key `pfad`").await;
    assert_eq!(dir.says("three"), "absent: ");
    fs::remove_file(dir.path("a.yaml")).unwrap();
    dir.until("one", "absent: ").await;
    assert_eq!(dir.classes.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn a_name_that_two_files_define_belongs_to_neither() {
    let dir = Fixture::watching(&[("a.yaml", &volume("one", "5m")), ("b.yaml", &volume("one", "6m"))]);
    dir.until("one", "broken: SecretVolume payments/one is defined in a.yaml (line 1) and in b.yaml (line 1)").await;
    fs::remove_file(dir.path("b.yaml")).unwrap();
    dir.until("one", "300s").await;
}

#[tokio::test]
async fn a_change_that_was_not_noticed_is_found_by_the_slow_reading() {
    let folder = TempDir::new().unwrap();
    let elsewhere = TempDir::new().unwrap();
    let target = elsewhere.path().join("a.yaml");
    fs::write(&target, volume("one", "5m")).unwrap();
    // A change behind a link to another folder is none that the watch sees.
    symlink(&target, folder.path().join("a.yaml")).unwrap();
    let classes = ClassDirectory::start(folder.path(), Duration::from_millis(20)).unwrap();
    let dir = Fixture { folder, classes };
    dir.until("one", "300s").await;
    fs::write(&target, volume("one", "7m")).unwrap();
    dir.until("one", "420s").await;
}

#[tokio::test]
async fn a_folder_that_vanishes_counts_on_and_is_a_problem_until_it_is_back() {
    let parent = TempDir::new().unwrap();
    let (folder, away) = (parent.path().join("classes"), parent.path().join("away"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.yaml"), volume("one", "10s")).unwrap();
    let classes = ClassDirectory::start(&folder, Duration::from_millis(50)).unwrap();
    let until = async |volumes, problems| {
        let begun = std::time::Instant::now();
        while (classes.counts().volumes, classes.counts().problems) != (volumes, problems) {
            assert!(begun.elapsed() < Duration::from_secs(20), "waited in vain: {:?}", classes.counts());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    until(1, 0).await;
    fs::rename(&folder, &away).unwrap();
    until(1, 1).await;
    fs::write(away.join("b.yaml"), volume("two", "10s")).unwrap();
    fs::rename(&away, &folder).unwrap();
    until(2, 0).await;
}

#[tokio::test]
async fn the_thread_ends_with_its_owner() {
    let dir = Fixture::watching(&[("a.yaml", &volume("one", "5m"))]);
    dir.until("one", "300s").await;
    let shared = Arc::downgrade(&dir.classes.shared);
    let mut changes = dir.classes.changes();
    drop(dir);
    // The sender of changes goes with the last owner of what they share: the thread.
    assert!(tokio::time::timeout(Duration::from_secs(20), changes.changed()).await.unwrap().is_err());
    assert!(shared.upgrade().is_none());
}
