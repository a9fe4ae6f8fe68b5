// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The engine half's way to the warden: one request, one answer, any number at once.

use std::collections::HashMap;
use std::io;
use std::iter::Peekable;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evanesce_engine::crash_point;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use crate::protocol::{
    AuditChoice, Channel, ChannelError, CredentialName, DigestKey, EngineConfig, EngineFrame, FileIdentity, HelloBack,
    LeaseGroupId, MAX_OWN, MAX_PACKET, Owner, Reply, Request, TargetPath, VolumeId, VolumePath, WardenError,
    WardenFrame,
};

/// How long the warden may take to say hello.
const GREETING: Duration = Duration::from_secs(20);

/// Requests under way at once. Bounds what the warden's answers can pile up in the socket while this side is busy.
const UNDER_WAY: usize = 64;

/// What a packet has room for beside a request's number and volume.
const ROOM: usize = MAX_PACKET - 256;

/// The most that an owner and the length of a path take in a packet.
const OWNER: usize = 16;

/// What the engine half is given at its start.
pub struct Start {
    /// How many engine halves there were before.
    pub restarts: u64,
    /// What the command line decided.
    pub config: EngineConfig,
    /// The key for digests in records.
    pub digest_key: DigestKey,
    /// Listens for kubelet's CSI calls; not blocking.
    pub csi: UnixListener,
    /// Listens for kubelet's plugin registration; not blocking.
    pub registration: UnixListener,
    /// Listens for the operator's questions; not blocking.
    pub admin: UnixListener,
    /// The audit file, opened for appending, when [`EngineConfig::audit`] says so.
    pub audit: Option<OwnedFd>,
    /// For [`WardenClient::new`].
    pub channel: Channel,
}

/// The engine half was not started as it should be.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The channel failed, or the warden is from another build.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The warden closed the channel.
    #[error("the warden is gone")]
    Gone,
    /// The warden did not say hello, or not completely.
    #[error("the warden's greeting is not one")]
    Greeting,
}

impl Start {
    /// Waits for the warden's hello and answers it. Blocks; call it before the asynchronous runtime.
    ///
    /// # Errors
    /// [`StartError`]: exit.
    pub fn from_channel(channel: Channel) -> Result<Self, StartError> {
        channel.set_receive_timeout(Some(GREETING))?;
        let greeting = channel.receive_greeting::<WardenFrame>();
        if let Err(ChannelError::OtherProtocol { .. }) = greeting {
            // So that the warden's log has the line too.
            channel.send(&EngineFrame::HelloBack(HelloBack::ours()), &[])?;
        }
        let (hello, fds) = match greeting?.ok_or(StartError::Gone)? {
            (WardenFrame::Hello(hello), fds) => (*hello, fds),
            _ => return Err(StartError::Greeting),
        };
        crash_point!("hello:received");
        let mut fds = fds.into_iter();
        let listeners = (fds.next(), fds.next(), fds.next());
        let ((Some(csi), Some(registration), Some(admin)), audit, None) = (listeners, fds.next(), fds.next()) else {
            return Err(StartError::Greeting);
        };
        if audit.is_some() != (hello.config.audit == AuditChoice::File) {
            return Err(StartError::Greeting);
        }
        channel.send(&EngineFrame::HelloBack(HelloBack::ours()), &[])?;
        crash_point!("hello:answered");
        channel.set_receive_timeout(None)?;
        Ok(Self {
            restarts: hello.restarts,
            config: hello.config,
            digest_key: hello.digest_key,
            csi: csi.into(),
            registration: registration.into(),
            admin: admin.into(),
            audit,
            channel,
        })
    }
}

/// Why a request has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The warden refused or failed.
    #[error(transparent)]
    Refused(#[from] WardenError),
    /// The request does not fit into a packet.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The channel is closed; the process is about to end.
    #[error("the warden is gone")]
    Gone,
    /// The warden answered something else than was asked.
    #[error("the warden's answer does not belong to the request")]
    Answer,
}

/// Cheap to clone; all clones use one channel.
#[derive(Clone)]
pub struct WardenClient {
    link: Arc<Link>,
}

struct Link {
    channel: AsyncFd<Channel>,
    pending: Mutex<Pending>,
    under_way: Semaphore,
    gone: CancellationToken,
    draining: CancellationToken,
}

#[derive(Default)]
struct Pending {
    last_id: u64,
    callers: HashMap<u64, oneshot::Sender<Answer>>,
}

type Answer = (Result<Reply, WardenError>, Vec<OwnedFd>);

impl WardenClient {
    /// Starts the task that reads answers. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the channel cannot be registered with the runtime.
    pub fn new(channel: Channel) -> Result<Self, ChannelError> {
        channel.set_nonblocking()?;
        let link = Arc::new(Link {
            channel: register(channel)?,
            pending: Mutex::default(),
            under_way: Semaphore::new(UNDER_WAY),
            gone: CancellationToken::new(),
            draining: CancellationToken::new(),
        });
        tokio::spawn(read_answers(Arc::clone(&link)));
        Ok(Self { link })
    }

    /// Ready when the warden is gone: end the process at once, nothing can be mounted or unmounted any more.
    pub async fn gone(&self) {
        self.link.gone.cancelled().await;
    }

    /// Ready when the warden asks to finish what was begun and exit.
    pub async fn draining(&self) {
        self.link.draining.cancelled().await;
    }

    /// A new detached tmpfs of `size` bytes; answers its root directory, which belongs to this process's uid. A volume of
    /// that name that was never attached is replaced.
    ///
    /// # Errors
    /// [`CallError`]; `NoSpace` over the node's ceiling, `Busy` when the volume is attached.
    pub async fn make_volume(&self, volume: &VolumeId, size: u64, inodes: u64) -> Result<OwnedFd, CallError> {
        match self.call(Request::MakeVolume { volume: volume.clone(), size, inodes }).await? {
            (Reply::Volume, fds) => one(fds),
            _ => Err(CallError::Answer),
        }
    }

    /// Gives files of a volume to owners, as many at once as a packet holds; all of those are checked before any is changed.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn own(&self, volume: &VolumeId, files: Vec<(VolumePath, Owner)>) -> Result<(), CallError> {
        let mut files = files.into_iter().peekable();
        while files.peek().is_some() {
            let files = batch(&mut files, ROOM);
            self.done(Request::Own { volume: volume.clone(), files }).await?;
        }
        Ok(())
    }

    /// Keeps the volume's record, gives its files to owners, and shows it as [`WardenClient::attach`] does: in one packet, but
    /// for what does not fit.
    ///
    /// # Errors
    /// As those say.
    pub async fn show(
        &self,
        volume: &VolumeId,
        target: &TargetPath,
        record: Vec<u8>,
        files: Vec<(VolumePath, Owner)>,
    ) -> Result<Vec<String>, CallError> {
        let Some(room) = ROOM.checked_sub(target.as_str().len() + record.len()) else {
            self.put_record(volume, record).await?;
            self.own(volume, files).await?;
            return self.attach(volume, target).await;
        };
        let mut files = files.into_iter().peekable();
        let last = batch(&mut files, room);
        self.own(volume, files.collect()).await?;
        self.attached(Request::Show { volume: volume.clone(), target: target.clone(), record, files: last }).await
    }

    /// Shows the volume, read-only, at the target; answers its mount options as the kernel shows them. Done twice, it is
    /// done.
    ///
    /// # Errors
    /// [`CallError`]; `Busy` when something else is there, `Invalid` for a target outside the pods directory.
    pub async fn attach(&self, volume: &VolumeId, target: &TargetPath) -> Result<Vec<String>, CallError> {
        self.attached(Request::Attach { volume: volume.clone(), target: target.clone() }).await
    }

    /// Changes a volume's size in bytes.
    ///
    /// # Errors
    /// [`CallError`]; `Busy` when more is in use, `NoSpace` over the node's ceiling.
    pub async fn resize(&self, volume: &VolumeId, size: u64) -> Result<(), CallError> {
        self.done(Request::Resize { volume: volume.clone(), size }).await
    }

    /// Whether the volume is what sits at the target.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn is_attached(&self, volume: &VolumeId, target: &TargetPath) -> Result<bool, CallError> {
        match self.call(Request::IsAttached { volume: volume.clone(), target: target.clone() }).await? {
            (Reply::IsAttached(yes), _) => Ok(yes),
            _ => Err(CallError::Answer),
        }
    }

    /// Unmounts the target if what sits there is this volume, removes its directory, forgets the volume. Done twice, it is
    /// done. Close every descriptor in the volume first, or its memory stays in use.
    ///
    /// # Errors
    /// [`CallError`]; `Busy` when something at the target is not ours.
    pub async fn detach(&self, volume: &VolumeId, target: Option<&TargetPath>) -> Result<(), CallError> {
        self.done(Request::Detach { volume: volume.clone(), target: target.cloned() }).await
    }

    /// The writable root of a volume that is attached at the target, or `None` when it is not.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn adopt(&self, volume: &VolumeId, target: &TargetPath) -> Result<Option<OwnedFd>, CallError> {
        match self.call(Request::Adopt { volume: volume.clone(), target: target.clone() }).await? {
            (Reply::Volume, fds) => one(fds).map(Some),
            (Reply::NotThere, _) => Ok(None),
            _ => Err(CallError::Answer),
        }
    }

    /// Keeps the volume's record: a JSON value of at most [`MAX_RECORD`](crate::protocol::MAX_RECORD) bytes, no secret.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn put_record(&self, volume: &VolumeId, record: Vec<u8>) -> Result<(), CallError> {
        self.done(Request::PutRecord { volume: volume.clone(), record }).await
    }

    /// Forgets the volume's record. Done twice, it is done.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn drop_record(&self, volume: &VolumeId) -> Result<(), CallError> {
        self.done(Request::DropRecord { volume: volume.clone() }).await
    }

    /// The first record whose volume sorts after the given one. Ask for the next when done with one: a volume over which
    /// this process dies again and again is not handed out any more.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn next_record(&self, after: Option<&VolumeId>) -> Result<Option<(VolumeId, Vec<u8>)>, CallError> {
        match self.call(Request::NextRecord { after: after.cloned() }).await? {
            (Reply::Record { volume, record }, _) => Ok(Some((volume, record))),
            (Reply::NoMoreRecords, _) => Ok(None),
            _ => Err(CallError::Answer),
        }
    }

    /// Keeps the lease group's entry, sealed: at most [`MAX_RECORD`](crate::protocol::MAX_RECORD) bytes, in place of an
    /// earlier one.
    ///
    /// # Errors
    /// [`CallError`]; `NoSpace` on a full disk, or where too many groups have not ended.
    pub async fn put_lease(&self, group: &LeaseGroupId, entry: Vec<u8>) -> Result<(), CallError> {
        self.done(Request::PutLease { group: group.clone(), entry }).await
    }

    /// Forgets the lease group's entry. Done twice, it is done.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn drop_lease(&self, group: &LeaseGroupId) -> Result<(), CallError> {
        self.done(Request::DropLease { group: group.clone() }).await
    }

    /// The first entry whose lease group sorts after the given one.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn next_lease(&self, after: Option<&LeaseGroupId>) -> Result<Option<(LeaseGroupId, Vec<u8>)>, CallError> {
        match self.call(Request::NextLease { after: after.cloned() }).await? {
            (Reply::Lease { group, entry }, _) => Ok(Some((group, entry))),
            (Reply::NoMoreLeases, _) => Ok(None),
            _ => Err(CallError::Answer),
        }
    }

    /// Whether a volume is mounted that was neither made nor adopted here: ask when all records are taken over.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn any_unknown(&self) -> Result<bool, CallError> {
        match self.call(Request::AnyUnknown).await? {
            (Reply::AnyUnknown(yes), _) => Ok(yes),
            _ => Err(CallError::Answer),
        }
    }

    /// Says that this process serves from now on: whatever it dies of later, it is worth starting again soon.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn ready(&self) -> Result<(), CallError> {
        self.done(Request::Ready).await
    }

    /// A file of the credentials directory, open for reading, or `None` while it is the known one.
    ///
    /// # Errors
    /// [`CallError`]; `NotFound`.
    pub async fn open_credential(
        &self,
        name: &CredentialName,
        known: Option<FileIdentity>,
    ) -> Result<Option<(FileIdentity, OwnedFd)>, CallError> {
        match self.call(Request::OpenCredential { name: name.clone(), known }).await? {
            (Reply::Credential { identity }, fds) => Ok(Some((identity, one(fds)?))),
            (Reply::Unchanged, _) => Ok(None),
            _ => Err(CallError::Answer),
        }
    }

    /// A fresh connection to our own CSI socket, not blocking: what the liveness probe calls through.
    ///
    /// # Errors
    /// [`CallError`]; `Busy` when nobody has accepted connections for a while.
    pub async fn probe(&self) -> Result<UnixStream, CallError> {
        match self.call(Request::Probe).await? {
            (Reply::Connection, fds) => one(fds).map(UnixStream::from),
            _ => Err(CallError::Answer),
        }
    }

    async fn attached(&self, body: Request) -> Result<Vec<String>, CallError> {
        match self.call(body).await? {
            (Reply::Attached { options }, _) => Ok(options),
            _ => Err(CallError::Answer),
        }
    }

    async fn done(&self, body: Request) -> Result<(), CallError> {
        match self.call(body).await? {
            (Reply::Done, _) => Ok(()),
            _ => Err(CallError::Answer),
        }
    }

    async fn call(&self, body: Request) -> Result<(Reply, Vec<OwnedFd>), CallError> {
        let _permit = self.link.under_way.acquire().await.map_err(|_| CallError::Gone)?;
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { link: &self.link, id: self.link.expect(answer)? };
        self.link.send(&EngineFrame::Request { id: waiting.id, body }).await?;
        let (result, fds) = answered.await.map_err(|_| CallError::Gone)?;
        Ok((result?, fds))
    }
}

/// A caller that stops waiting is forgotten; its answer is dropped when it comes, and the descriptors in it are closed.
struct Waiting<'a> {
    link: &'a Link,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.link.pending.lock().unwrap_or_else(PoisonError::into_inner).callers.remove(&self.id);
    }
}

impl Link {
    /// Registers a caller and chooses its id.
    fn expect(&self, answer: oneshot::Sender<Answer>) -> Result<u64, CallError> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: `close` either comes later and drops the sender, or has already said so.
        if self.gone.is_cancelled() {
            return Err(CallError::Gone);
        }
        pending.last_id += 1;
        let id = pending.last_id;
        pending.callers.insert(id, answer);
        Ok(id)
    }

    async fn send(&self, frame: &EngineFrame) -> Result<(), CallError> {
        loop {
            let mut ready = self.channel.writable().await.map_err(ChannelError::from)?;
            match ready.try_io(|channel| io_result(channel.get_ref().send(frame, &[]))) {
                Ok(Ok(sent)) => return Ok(sent?),
                // Reset, and not broken, where the warden died with something unread.
                Ok(Err(error))
                    if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
                {
                    return Err(CallError::Gone);
                }
                Ok(Err(error)) => return Err(ChannelError::from(error).into()),
                Err(_would_block) => {}
            }
        }
    }

    async fn receive(&self) -> Result<Option<(WardenFrame, Vec<OwnedFd>)>, ChannelError> {
        loop {
            let mut ready = self.channel.readable().await?;
            match ready.try_io(|channel| io_result(channel.get_ref().receive())) {
                Ok(received) => return received?,
                Err(_would_block) => {}
            }
        }
    }

    /// Nothing will be answered any more.
    fn close(&self) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        self.gone.cancel();
        pending.callers.clear();
    }
}

/// As many of the files as a packet with so much room takes.
fn batch(files: &mut Peekable<impl Iterator<Item = (VolumePath, Owner)>>, mut room: usize) -> Vec<(VolumePath, Owner)> {
    let length = |path: &VolumePath| path.as_str().len() + OWNER;
    let mut batch = Vec::new();
    while batch.len() < MAX_OWN
        && let Some((path, owner)) = files.next_if(|(path, _)| length(path) <= room)
    {
        room -= length(&path);
        batch.push((path, owner));
    }
    batch
}

/// Ends when the channel does, and says so to everyone.
async fn read_answers(link: Arc<Link>) {
    loop {
        match link.receive().await {
            Ok(Some((WardenFrame::Reply { id, result }, fds))) => {
                let caller = link.pending.lock().unwrap_or_else(PoisonError::into_inner).callers.remove(&id);
                if let Some(caller) = caller {
                    // A caller that left in this moment drops the descriptors.
                    let _ = caller.send((result, fds));
                }
            }
            Ok(Some((WardenFrame::Drain, _))) => link.draining.cancel(),
            Ok(Some((WardenFrame::Hello(_), _))) => break tracing::error!("the warden greets twice"),
            Ok(None) => break,
            Err(error) => break tracing::error!(%error, "the warden's channel failed"),
        }
    }
    link.close();
}

#[expect(unsafe_code, reason = "tokio asks for a promise about the descriptor that no type can make")]
fn register(channel: Channel) -> io::Result<AsyncFd<Channel>> {
    // SAFETY: a `Channel` owns its descriptor, never exchanges it, and closes it only when it is dropped, which `AsyncFd`
    // does after it has deregistered it.
    Ok(unsafe { AsyncFd::register(channel) }?)
}

/// tokio's readiness wants an `io::Result`, in which `WouldBlock` means "later".
fn io_result<T>(result: Result<T, ChannelError>) -> io::Result<Result<T, ChannelError>> {
    match result {
        Err(ChannelError::Io(error)) => Err(error),
        other => Ok(other),
    }
}

fn one(fds: Vec<OwnedFd>) -> Result<OwnedFd, CallError> {
    let [fd] = <[OwnedFd; 1]>::try_from(fds).map_err(|_| CallError::Answer)?;
    Ok(fd)
}
