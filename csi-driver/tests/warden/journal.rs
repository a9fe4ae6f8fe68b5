// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The journal of lease groups: kept whole, bounded, for root alone, and never by way of a link.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use evanesce_csi::protocol::{ErrorKind, LeaseGroupId, MAX_RECORD};
use evanesce_csi::warden::{FolderError, Journal};

use crate::ground::{Ground, foreign_tmpfs};

fn open(ground: &Ground) -> Journal {
    Journal::open(&ground.path("leases")).unwrap()
}

fn group(number: u8) -> LeaseGroupId {
    LeaseGroupId::from([number; 16])
}

fn file(ground: &Ground, number: u8) -> std::path::PathBuf {
    ground.path("leases").join(format!("{}.lease", group(number)))
}

fn all(journal: &Journal) -> Vec<(LeaseGroupId, Vec<u8>)> {
    let mut found: Vec<(LeaseGroupId, Vec<u8>)> = Vec::new();
    while let Some(next) = journal.next(found.last().map(|(group, _)| group)) {
        found.push(next);
    }
    found
}

#[test]
fn entries_come_back_after_a_restart_in_order_and_only_root_may_look() {
    let ground = Ground::new();
    let mut journal = open(&ground);
    let longest = vec![b'x'; MAX_RECORD];
    for (number, entry) in [(3, &b"first"[..]), (1, &longest), (2, b"two"), (3, b"three")] {
        journal.put(group(number), entry).unwrap();
    }
    for _ in 0..2 {
        journal.drop_entry(&group(2)).unwrap();
    }
    let expected = [(group(1), longest), (group(3), b"three".to_vec())];
    assert_eq!(all(&journal), expected);
    drop(journal);
    assert_eq!(all(&open(&ground)), expected);
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(ground.path("leases")), mode(file(&ground, 3))), (0o700, 0o600));
}

#[test]
fn an_entry_takes_the_place_of_the_one_before_and_is_never_written_over_it() {
    let ground = Ground::new();
    let mut journal = open(&ground);
    journal.put(group(1), b"before").unwrap();
    let before = fs::File::open(file(&ground, 1)).unwrap();
    journal.put(group(1), b"after").unwrap();
    // Whoever dies while writing has spoilt no file that anybody reads.
    assert_eq!(std::io::read_to_string(before).unwrap(), "before");
    assert_eq!(all(&journal), [(group(1), b"after".to_vec())]);
}

#[test]
fn what_is_half_written_is_removed_and_what_is_no_entry_is_left_alone() {
    let ground = Ground::new();
    open(&ground).put(group(1), b"whole").unwrap();
    let leases = ground.path("leases");
    let half = leases.join(format!("{}.lease.new", group(2)));
    fs::write(&half, "ha").unwrap();
    let others = ["notes".to_owned(), "short.lease".to_owned(), format!("{}.lease", "A".repeat(32))];
    for other in &others {
        fs::write(leases.join(other), "mine").unwrap();
    }
    let journal = open(&ground);
    assert_eq!(all(&journal), [(group(1), b"whole".to_vec())]);
    assert!(!half.exists());
    assert!(others.iter().all(|other| leases.join(other).exists()));
}

#[test]
fn an_entry_that_a_power_failure_emptied_is_handed_out_so_that_somebody_says_so() {
    let ground = Ground::new();
    open(&ground);
    fs::write(file(&ground, 1), "").unwrap();
    assert_eq!(all(&open(&ground)), [(group(1), Vec::new())]);
}

#[test]
fn no_link_is_followed() {
    let ground = Ground::new();
    let mut journal = open(&ground);
    let elsewhere = ground.path("elsewhere");
    fs::write(&elsewhere, "untouched").unwrap();

    // Instead of an entry: not read, and replaced as such.
    journal.put(group(2), b"two").unwrap();
    symlink(&elsewhere, file(&ground, 1)).unwrap();
    let mut journal = open(&ground);
    assert_eq!(all(&journal), [(group(2), b"two".to_vec())]);
    journal.put(group(1), b"one").unwrap();
    assert_eq!(all(&journal).len(), 2);
    // Instead of what is about to be one: not written to.
    symlink(&elsewhere, format!("{}.new", file(&ground, 3).display())).unwrap();
    assert_eq!(journal.put(group(3), b"three").unwrap_err().kind, ErrorKind::Internal);
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "untouched");

    // Instead of the directory.
    fs::rename(ground.path("leases"), ground.path("moved")).unwrap();
    symlink(ground.path("moved"), ground.path("leases")).unwrap();
    let refused = Journal::open(&ground.path("leases")).err().unwrap();
    assert!(matches!(refused, FolderError::Io { step: "opening it", .. }), "{refused}");
    assert!(refused.to_string().starts_with("--journal-dir"), "{refused}");
}

#[test]
fn somebody_elses_directory_is_refused_and_ones_own_is_closed_to_others() {
    let ground = Ground::new();
    let leases = ground.path("leases");
    fs::create_dir(&leases).unwrap();
    fs::set_permissions(&leases, fs::Permissions::from_mode(0o755)).unwrap();
    open(&ground);
    assert_eq!(fs::metadata(&leases).unwrap().permissions().mode() & 0o7777, 0o700);
    std::os::unix::fs::chown(&leases, Some(1000), None).unwrap();
    assert!(matches!(Journal::open(&leases), Err(FolderError::Owner { uid: 1000, .. })));
}

#[test]
fn an_entry_that_is_too_long_is_refused_and_one_that_became_so_is_passed_over() {
    let ground = Ground::new();
    let mut journal = open(&ground);
    journal.put(group(1), b"one").unwrap();
    journal.put(group(2), b"two").unwrap();
    let long = vec![0; MAX_RECORD + 1];
    assert_eq!(journal.put(group(2), &long).unwrap_err().kind, ErrorKind::Invalid);
    fs::write(file(&ground, 1), long).unwrap();
    assert_eq!(all(&journal), [(group(2), b"two".to_vec())]);
}

#[test]
fn the_journal_holds_so_many_groups_and_no_more() {
    let ground = Ground::new();
    open(&ground);
    let numbered = |number: u32| LeaseGroupId::from(u128::from(number).to_be_bytes());
    for number in 0..4096 {
        fs::write(ground.path("leases").join(format!("{}.lease", numbered(number))), "").unwrap();
    }
    let mut journal = open(&ground);
    assert_eq!(journal.put(numbered(4096), b"x").unwrap_err().kind, ErrorKind::NoSpace);
    journal.put(numbered(7), b"in place of its own").unwrap();
    journal.drop_entry(&numbered(7)).unwrap();
    journal.put(numbered(4096), b"x").unwrap();
}

#[test]
fn a_full_disk_is_said_and_costs_no_entry_that_there_was() {
    let ground = Ground::new();
    fs::create_dir(ground.path("leases")).unwrap();
    foreign_tmpfs(&ground.kernel(), &ground.path("leases"));
    let mut journal = open(&ground);
    journal.put(group(1), b"before").unwrap();
    let filled = fs::write(ground.path("leases/fill"), vec![0; 1 << 20]);
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    for number in [1, 2] {
        assert_eq!(journal.put(group(number), &[7; MAX_RECORD]).unwrap_err().kind, ErrorKind::NoSpace);
    }
    assert_eq!(all(&journal), [(group(1), b"before".to_vec())]);
    assert_eq!(fs::read_dir(ground.path("leases")).unwrap().count(), 2, "nothing half-written stays");
    // And once there is room again, it goes on.
    fs::remove_file(ground.path("leases/fill")).unwrap();
    journal.put(group(1), &[7; MAX_RECORD]).unwrap();
    assert_eq!(all(&open(&ground)), [(group(1), vec![7; MAX_RECORD])]);
}
