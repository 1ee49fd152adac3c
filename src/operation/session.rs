//! A chain of requests to one CRIU process.

use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitStatus;
use std::{collections::HashSet, os::fd::AsRawFd};

use protobuf::Message;

use super::reply::{Dumped, PageServer, Restored, decode};
use super::{LOG_LIMIT, Operation};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::proto::rpc::{Criu_opts, Criu_req, Criu_req_type, Criu_resp};
use crate::request::{
    CheckOptions, CpuInfoOptions, DumpOptions, Features, ImageDirectory, Log, PageServerOptions, PreDumpKind,
    PreDumpOptions, RestoreOptions, Version, gate,
};
use crate::swrk::{Channel, Launch, Watch};

/// One `criu swrk` process, started and waiting for requests.
///
/// Starting it early, while other things are being checked, saves the time that CRIU needs to start. It touches nothing until
/// a request arrives. Small requests ([`Session::version`], [`Session::features`], …) leave it waiting for the next one; dump
/// and restore consume it.
///
/// Dropping it ends CRIU.
///
/// ```no_run
/// # async fn features() -> crr::Result<()> {
/// let mut session = crr::operation::Session::start(&crr::swrk::Launch::new("criu"))?;
/// if !session.features().await?.mem_track {
///     println!("CRIU {} cannot track dirty pages on this kernel", session.version().await?);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Session {
    channel: Channel,
    version: Option<Version>,
    inherited: HashSet<i32>,
}

impl Session {
    /// Starts CRIU.
    ///
    /// # Errors
    /// [`Error::Spawn`] when there is no such program or it cannot be run.
    ///
    /// # Panics
    /// Outside a tokio runtime that has I/O enabled.
    pub fn start(launch: &Launch) -> Result<Self> {
        Self::start_inheriting(launch, &[])
    }

    /// Starts CRIU with these descriptors open in it under the same numbers: those that a later request refers to by number
    /// ([`PagesTo::Socket`](crate::request::PagesTo::Socket), [`InheritedFd`](crate::request::InheritedFd),
    /// [`Listen::Socket`](crate::request::Listen::Socket)).
    ///
    /// # Errors
    /// As [`Session::start`].
    pub fn start_inheriting(launch: &Launch, inherited: &[BorrowedFd<'_>]) -> Result<Self> {
        let channel = Channel::open(launch, inherited)?;
        let inherited = inherited.iter().map(AsRawFd::as_raw_fd).collect();
        Ok(Self { channel, version: None, inherited })
    }

    /// CRIU's PID.
    pub fn criu_pid(&self) -> i32 {
        self.channel.pid()
    }

    /// How long CRIU may owe an answer, for this and all later requests.
    pub fn watch(&mut self, watch: Watch) {
        self.channel.watch = watch;
    }

    /// Tells the version where it is known from elsewhere, which saves the question.
    pub fn assume_version(&mut self, version: Version) {
        self.version = Some(version);
    }

    /// CRIU's version; asked once.
    ///
    /// # Errors
    /// [`Error::Hangup`] and the like when CRIU does not answer, which is how a CRIU that does not run on this kernel shows.
    pub async fn version(&mut self) -> Result<Version> {
        if let Some(version) = self.version {
            return Ok(version);
        }
        let mut request = typed(Criu_req_type::VERSION);
        request.set_keep_open(true);
        let response = self.ask("version", &request, Criu_req_type::VERSION, None).await?;
        let Some(version) = response.version.as_ref() else { return Err(nonsense("version", "no version")) };
        let version = Version::from_proto(version);
        self.version = Some(version);
        Ok(version)
    }

    /// Which of the three features the RPC knows this kernel has. Fills CRIU's own cache of kernel features.
    ///
    /// # Errors
    /// As [`Session::version`].
    pub async fn features(&mut self) -> Result<Features> {
        let mut request = typed(Criu_req_type::FEATURE_CHECK);
        request.set_keep_open(true);
        request.features = Some(Features::ask_all()).into();
        let response = self.ask("feature check", &request, Criu_req_type::FEATURE_CHECK, None).await?;
        match response.features.as_ref() {
            Some(features) => Ok(Features::from_proto(features)),
            None => Err(nonsense("feature check", "no features")),
        }
    }

    /// Writes the CPU's features to cpuinfo.img.
    ///
    /// # Errors
    /// [`Error::Refused`] when CRIU cannot.
    pub async fn cpuinfo_dump(&mut self, directory: &ImageDirectory, options: &CpuInfoOptions) -> Result<()> {
        self.cpuinfo("CPU dump", Criu_req_type::CPUINFO_DUMP, directory, options).await
    }

    /// Compares the CPU with cpuinfo.img.
    ///
    /// # Errors
    /// [`Error::Refused`] when it lacks what the image needs.
    pub async fn cpuinfo_check(&mut self, directory: &ImageDirectory, options: &CpuInfoOptions) -> Result<()> {
        self.cpuinfo("CPU check", Criu_req_type::CPUINFO_CHECK, directory, options).await
    }

    async fn cpuinfo(
        &mut self,
        attempt: &'static str,
        kind: Criu_req_type,
        directory: &ImageDirectory,
        options: &CpuInfoOptions,
    ) -> Result<()> {
        let mut request = self.with_opts(kind, options.to_proto(directory)?).await?;
        request.set_keep_open(true);
        self.ask(attempt, &request, kind, Some((directory, &options.log))).await.map(drop)
    }

    /// CRIU's own check of the kernel. "Looks good" of a CRIU before 4.2 says nothing about sockets on Linux 6.16 and later.
    ///
    /// # Errors
    /// [`Error::Refused`] when the kernel lacks something.
    pub async fn check(mut self, directory: &ImageDirectory, options: &CheckOptions) -> Result<()> {
        let request = self.with_opts(Criu_req_type::CHECK, options.to_proto(directory)?).await?;
        let place = Some((directory, &options.log));
        self.ask("check", &request, Criu_req_type::CHECK, place).await?;
        self.channel.wait().await;
        Ok(())
    }

    /// Writes the tree's memory while it runs on, and leaves CRIU waiting for another pre-dump or for the dump. No events.
    ///
    /// # Errors
    /// [`Error::Refused`] when CRIU cannot; it ends then, and this session with it.
    ///
    /// # Cancellation
    /// Dropping the future leaves CRIU at work; drop the session to end it.
    pub async fn pre_dump(&mut self, directory: &ImageDirectory, options: &PreDumpOptions) -> Result<()> {
        self.pre_dump_as(PreDumpKind::Chained, directory, options).await
    }

    /// As [`Session::pre_dump`], but CRIU ends afterwards. From CRIU 3.17.
    ///
    /// # Errors
    /// As [`Session::pre_dump`].
    pub async fn single_pre_dump(mut self, directory: &ImageDirectory, options: &PreDumpOptions) -> Result<()> {
        if self.version().await? < Version::new(3, 17) {
            let option = "SINGLE_PRE_DUMP".into();
            return Err(Error::NeedsNewerCriu { option, since: Version::new(3, 17), running: self.version().await? });
        }
        self.pre_dump_as(PreDumpKind::Single, directory, options).await?;
        self.channel.wait().await;
        Ok(())
    }

    async fn pre_dump_as(
        &mut self,
        kind: PreDumpKind,
        directory: &ImageDirectory,
        options: &PreDumpOptions,
    ) -> Result<()> {
        let kind = match kind {
            PreDumpKind::Chained => Criu_req_type::PRE_DUMP,
            PreDumpKind::Single => Criu_req_type::SINGLE_PRE_DUMP,
        };
        self.must_have_inherited(options.dump.inherited())?;
        let request = self.with_opts(kind, options.to_proto(directory)?).await?;
        let place = Some((directory, &options.dump.log));
        self.ask("pre-dump", &request, kind, place).await.map(drop)
    }

    /// Starts a page server as a child of this CRIU, which is left waiting.
    ///
    /// # Errors
    /// [`Error::Refused`] when it cannot listen.
    pub async fn page_server(&mut self, directory: &ImageDirectory, options: &PageServerOptions) -> Result<PageServer> {
        const ATTEMPT: &str = "page server";
        self.must_have_inherited(options.inherited())?;
        let mut request = self.with_opts(Criu_req_type::PAGE_SERVER_CHLD, options.to_proto(directory)?).await?;
        request.set_keep_open(true);
        // CRIU answers with the other page server's type.
        let place = Some((directory, &options.log));
        let response = self.ask(ATTEMPT, &request, Criu_req_type::PAGE_SERVER, place).await?;
        let Some(server) = response.ps.as_ref().filter(|server| server.pid() > 0) else {
            return Err(nonsense(ATTEMPT, "no PID"));
        };
        Ok(PageServer { pid: server.pid(), port: u16::try_from(server.port()).ok().filter(|port| *port > 0) })
    }

    /// Starts a page server that outlives this CRIU: it becomes a child of PID 1 and ends with its connection. The port.
    ///
    /// # Errors
    /// [`Error::Refused`] when it cannot listen.
    pub async fn page_server_daemon(
        &mut self,
        directory: &ImageDirectory,
        options: &PageServerOptions,
    ) -> Result<Option<u16>> {
        const ATTEMPT: &str = "page server";
        self.must_have_inherited(options.inherited())?;
        let mut request = self.with_opts(Criu_req_type::PAGE_SERVER, options.to_proto(directory)?).await?;
        request.set_keep_open(true);
        let place = Some((directory, &options.log));
        let response = self.ask(ATTEMPT, &request, Criu_req_type::PAGE_SERVER, place).await?;
        // Its PID is always 0 here: a fault of CRIU's.
        Ok(response.ps.as_ref().and_then(|server| u16::try_from(server.port()).ok()).filter(|port| *port > 0))
    }

    /// Waits for a page server's end.
    ///
    /// # Errors
    /// [`Error::Refused`] when `pid` is no child of this CRIU.
    pub async fn wait_pid(&mut self, pid: i32) -> Result<ExitStatus> {
        const ATTEMPT: &str = "wait for a page server";
        let mut request = typed(Criu_req_type::WAIT_PID);
        request.set_pid(pid.unsigned_abs());
        // It may take as long as the transfer does: silence is no sign of a hang here.
        let silence = self.channel.watch.silence.take();
        let response = self.ask(ATTEMPT, &request, Criu_req_type::WAIT_PID, None).await;
        self.channel.watch.silence = silence;
        match response?.status {
            Some(status) => Ok(std::os::unix::process::ExitStatusExt::from_raw(status)),
            None => Err(nonsense(ATTEMPT, "no status")),
        }
    }

    /// Begins a dump.
    ///
    /// # Errors
    /// [`Error::Option`] and [`Error::NeedsNewerCriu`] before anything is sent.
    ///
    /// # Cancellation
    /// Dropping the future ends CRIU; the tree has not been touched.
    pub async fn dump(mut self, directory: ImageDirectory, options: DumpOptions) -> Result<Operation<Dumped>> {
        self.must_have_inherited(options.inherited())?;
        let request = self.with_opts(Criu_req_type::DUMP, options.to_proto(&directory)?).await?;
        // CRIU has its own of the page server's socket: whoever is at the other end must see CRIU's death.
        drop(options.pages_to);
        let kept = options.pidfd_store.into_iter().collect();
        self.begin("dump", &request, directory, options.log, kept).await
    }

    /// Begins a restore.
    ///
    /// ```no_run
    /// use crr::event::EventKind;
    /// use crr::operation::Session;
    /// use crr::request::{ImageDirectory, RestoreOptions};
    /// use crr::swrk::Launch;
    ///
    /// # async fn restore(directory: std::os::fd::OwnedFd) -> crr::Result<i32> {
    /// let session = Session::start(&Launch::new("criu"))?;
    /// let mut restore = session.restore(ImageDirectory::new(directory), RestoreOptions::new()).await?;
    /// while let Some(event) = restore.next().await? {
    ///     match event.kind() {
    ///         // The tree is there and has not run: the last chance to refuse it.
    ///         EventKind::PostRestore if event.pid() == Some(1) => event.refuse().await?,
    ///         _ => event.proceed().await?,
    ///     }
    /// }
    /// Ok(restore.finish().await?.pid)
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Session::dump`].
    ///
    /// # Cancellation
    /// Dropping the future ends CRIU; nothing has been made.
    pub async fn restore(mut self, directory: ImageDirectory, options: RestoreOptions) -> Result<Operation<Restored>> {
        for inherited in &options.inherited {
            self.must_have_inherited(Some(&inherited.descriptor))?;
        }
        let request = self.with_opts(Criu_req_type::RESTORE, options.to_proto(&directory)?).await?;
        let kept = options.inherited.into_iter().map(|inherited| inherited.descriptor).collect();
        self.begin("restore", &request, directory, options.log, kept).await
    }

    async fn begin<R>(
        mut self,
        attempt: &'static str,
        request: &Criu_req,
        directory: ImageDirectory,
        log: Log,
        kept: Vec<OwnedFd>,
    ) -> Result<Operation<R>> {
        let bytes = encode(request)?;
        self.channel.attempt = attempt;
        self.channel.send(&bytes).await?;
        let expected = request.type_();
        Ok(Operation {
            channel: self.channel,
            directory,
            log,
            _kept: kept,
            expected,
            response: None,
            reply: PhantomData,
        })
    }

    /// A request with options that the running CRIU knows, all of them.
    async fn with_opts(&mut self, kind: Criu_req_type, opts: Criu_opts) -> Result<Criu_req> {
        gate(&opts, self.version().await?)?;
        let mut request = typed(kind);
        request.opts = Some(opts).into();
        Ok(request)
    }

    /// Sends a request and waits for its reply; events are all answered with yes.
    async fn ask(
        &mut self,
        attempt: &'static str,
        request: &Criu_req,
        expected: Criu_req_type,
        place: Option<(&ImageDirectory, &Log)>,
    ) -> Result<Criu_resp> {
        let bytes = encode(request)?;
        self.channel.attempt = attempt;
        self.channel.send(&bytes).await?;
        let images = place.map(|(directory, _)| &directory.images);
        let response = loop {
            let packet = self.channel.recv(images).await?;
            let mut response = decode(attempt, &packet.bytes)?;
            match (response.type_(), response.notify.take()) {
                (Criu_req_type::NOTIFY, Some(notify)) => {
                    Event::new(&mut self.channel, &notify, packet.descriptor).proceed().await?;
                }
                _ => break response,
            }
        };
        if response.type_() != expected {
            return Err(nonsense(
                attempt,
                format!("a reply of the type {:?} instead of {expected:?}", response.type_()),
            ));
        }
        if !response.success() {
            let log = place.and_then(|(directory, log)| super::tail_of(directory, log, LOG_LIMIT));
            return Err(Error::Refused { attempt, errno: response.cr_errno, log });
        }
        Ok(response)
    }

    /// Whether CRIU was started with this descriptor.
    pub(crate) fn has_inherited(&self, descriptor: &OwnedFd) -> bool {
        self.inherited.contains(&descriptor.as_fd().as_raw_fd())
    }

    /// A descriptor that CRIU knows by its number must have been given to it at its start.
    fn must_have_inherited(&self, descriptor: Option<&OwnedFd>) -> Result<()> {
        match descriptor.map(|descriptor| descriptor.as_fd().as_raw_fd()) {
            Some(fd) if !self.inherited.contains(&fd) => Err(Error::Option {
                option: "inherit-fd",
                value: fd.to_string(),
                reason: "must be among the descriptors that the session was started with",
            }),
            _ => Ok(()),
        }
    }
}

fn typed(kind: Criu_req_type) -> Criu_req {
    let mut request = Criu_req::new();
    request.set_type(kind);
    request
}

fn encode(request: &Criu_req) -> Result<Vec<u8>> {
    request.write_to_bytes().map_err(|source| Error::Encode { source })
}

fn nonsense(attempt: &'static str, what: impl Into<String>) -> Error {
    Error::Nonsense { attempt, what: what.into() }
}
