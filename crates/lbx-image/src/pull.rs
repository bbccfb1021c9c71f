//! The order of things: reference, manifest, configuration, layers; each verified before it is used, each looked
//! for in the store before a registry is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lbx_net::ProxyOptions;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;

use crate::download::{Retry, Transfer};
use crate::manifest::{self, CONFIG_LIMIT, Config, Document, LayerDescriptor, MANIFEST_LIMIT, Manifest};
use crate::overlay;
use crate::registry::Registry;
use crate::store::{Scratch, Store, StoredLayer};
use crate::unpack::{self, Limits, UnpackError};
use crate::{Digest, Error, Event, Image, Layer, LayerSize, Origin, Platform, Reference};

/// Progress is told at most once per this many bytes.
const PROGRESS_STEP: u64 = 256 << 10;

/// How to pull.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// What the image must run on.
    pub platform: Platform,
    /// How many layers are transferred at once.
    pub concurrency: usize,
    /// How many layers are unpacked at once.
    pub unpack_concurrency: usize,
    /// Open no socket: everything must be in the store.
    pub offline: bool,
    /// CA certificates to trust besides the system's, each a PEM file's bytes. Certificates in them that can't be
    /// used are left out; a file without a single good one is an error.
    pub extra_ca_pem: Vec<Vec<u8>>,
    /// The proxy. Without one, connections are direct: the environment is read by whoever fills this in.
    pub proxy: Option<ProxyOptions>,
    /// Plain HTTP and nothing else, also for a registry that is not on this machine. Without it, a registry that
    /// is gets HTTPS when it wants TLS, and any other always does.
    pub plain_http: bool,
    /// How long a connection may take to open.
    pub connect_timeout: Duration,
    /// How long a transfer may go without a byte.
    pub stall_timeout: Duration,
    /// How often a request is made before its failure counts; progress starts the count anew.
    pub attempts: u32,
    /// The pause after the first failure; it doubles with each further one.
    pub backoff: Duration,
    /// What a layer may do to this machine.
    pub limits: Limits,
}

impl PullOptions {
    /// The defaults for a platform: four transfers at once, as many unpackers as processors.
    pub fn new(platform: Platform) -> Self {
        Self {
            platform,
            concurrency: 4,
            unpack_concurrency: std::thread::available_parallelism().map_or(1, usize::from),
            offline: false,
            extra_ca_pem: Vec::new(),
            proxy: None,
            plain_http: false,
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            attempts: 5,
            backoff: Duration::from_millis(500),
            limits: Limits::default(),
        }
    }
}

/// Pulls an image from the registry its reference names; what the store has is not fetched again.
///
/// An image pinned by digest that is in the store opens no socket. Dropping the future stops the pull: what was
/// finished stays in the store, the rest leaves no trace under a final name.
pub async fn pull(
    store: &Store,
    reference: &Reference,
    options: &PullOptions,
    observer: &(dyn Fn(Event) + Send + Sync),
) -> Result<Image, Error> {
    let registry = Arc::new(Registry::remote(reference, options));
    pull_from(&registry, store, reference, options, observer).await
}

/// [`pull()`] from a given registry.
pub async fn pull_from(
    registry: &Arc<Registry>,
    store: &Store,
    reference: &Reference,
    options: &PullOptions,
    observer: &(dyn Fn(Event) + Send + Sync),
) -> Result<Image, Error> {
    let scratch = store.scratch()?;
    let context = Context {
        registry: Arc::clone(registry),
        store: store.clone(),
        reference: reference.clone(),
        options: options.clone(),
        scratch: scratch.clone(),
        downloads: Semaphore::new(options.concurrency.max(1)),
        unpacks: Semaphore::new(options.unpack_concurrency.max(1)),
        cancelled: Arc::new(AtomicBool::new(false)),
    };
    let result = run(Arc::new(context), observer).await;
    if result.is_err() {
        scratch.alone().await;
    }
    result.map_err(|error| error.in_store(store.root()))
}

async fn run(context: Arc<Context>, observer: &(dyn Fn(Event) + Send + Sync)) -> Result<Image, Error> {
    observer(Event::Resolving);
    let resolved = context.resolve().await?;
    let sizes = resolved.manifest.layers.iter();
    let sizes = sizes.map(|layer| LayerSize { digest: layer.digest.clone(), size: layer.size }).collect();
    observer(Event::Resolved { digest: resolved.manifest_digest.clone(), layers: sizes });
    let reference = context.reference.clone();
    let layers = fetch_layers(context, &resolved, observer).await?;
    Ok(Image {
        reference,
        manifest_digest: resolved.manifest_digest,
        index_digest: resolved.index_digest,
        config_digest: resolved.manifest.config.digest,
        config: resolved.config.image,
        layers,
    })
}

/// What a reference turned out to be.
struct Resolved {
    manifest_digest: Digest,
    index_digest: Option<Digest>,
    manifest: Manifest,
    config: Config,
}

/// What every part of one pull shares.
struct Context {
    registry: Arc<Registry>,
    store: Store,
    reference: Reference,
    options: PullOptions,
    scratch: Scratch,
    downloads: Semaphore,
    unpacks: Semaphore,
    cancelled: Arc<AtomicBool>,
}

impl Context {
    async fn resolve(&self) -> Result<Resolved, Error> {
        let (top, document) = self.top().await?;
        let (manifest_digest, index_digest, manifest) = match document {
            Document::Manifest(manifest) => (top, None, manifest),
            Document::Index(entries) => {
                let chosen = manifest::choose(&entries, &self.options.platform);
                let chosen = chosen.map_err(|available| self.platform_error(&available))?;
                let document =
                    self.document(&chosen.digest, Some(&chosen.media_type), Some(chosen.size)).await?;
                let Document::Manifest(manifest) = document else {
                    let what = self.what(&chosen.digest);
                    return Err(Error::Unsupported { what: format!("{what}: an index within an index") });
                };
                (chosen.digest.clone(), Some(top), manifest)
            }
        };
        self.check_sizes(&manifest)?;
        let config = self.config(&manifest).await?;
        Ok(Resolved { manifest_digest, index_digest, manifest, config })
    }

    /// A layer that is larger than it may become is not worth its download.
    fn check_sizes(&self, manifest: &Manifest) -> Result<(), Error> {
        let limit = self.options.limits.total_bytes;
        match manifest.layers.iter().find(|layer| layer.size > limit) {
            Some(layer) => Err(Error::TooLarge { what: format!("layer {}", layer.digest), limit }),
            None => Ok(()),
        }
    }

    /// The document the reference names, by digest or by tag.
    async fn top(&self) -> Result<(Digest, Document), Error> {
        if let Some(digest) = self.reference.digest() {
            return Ok((digest.clone(), self.document(digest, None, None).await?));
        }
        if self.options.offline {
            let known = self.store.tag(&self.reference)?;
            let digest = known.ok_or_else(|| Error::Offline { what: self.reference.to_string() })?;
            let document = self.document(&digest, None, None).await?;
            return Ok((digest, document));
        }
        let raw = self.fetch_manifest(self.reference.tag().unwrap_or("latest")).await?;
        let digest = Digest::of(&raw);
        let document = manifest::parse(&self.what(&digest), &raw, None)?;
        self.store.put_document(&self.scratch, &digest, &raw)?;
        self.store.put_tag(&self.scratch, &self.reference, &digest)?;
        Ok((digest, document))
    }

    /// A manifest or an index by digest: from the store, or else from the registry.
    async fn document(
        &self,
        digest: &Digest,
        media_type: Option<&str>,
        size: Option<u64>,
    ) -> Result<Document, Error> {
        let what = self.what(digest);
        let check = |found: u64| match size.filter(|size| *size != found) {
            Some(expected) => Err(Error::SizeMismatch { what: what.clone(), expected, found }),
            None => Ok(()),
        };
        if let Some(bytes) = self.whole(self.store.read_document(digest, MANIFEST_LIMIT))? {
            check(bytes.len() as u64)?;
            return manifest::parse(&what, &bytes, media_type);
        }
        self.online(&what)?;
        let raw = self.fetch_manifest(digest.as_str()).await?;
        let found = Digest::of(&raw);
        if found != *digest {
            return Err(Error::DigestMismatch { what, expected: digest.clone(), found });
        }
        check(raw.len() as u64)?;
        let document = manifest::parse(&what, &raw, media_type)?;
        self.store.put_document(&self.scratch, digest, &raw)?;
        Ok(document)
    }

    async fn fetch_manifest(&self, name: &str) -> Result<Vec<u8>, Error> {
        let mut retry = Retry::new(&self.options);
        loop {
            match self.registry.manifest(&self.reference, name).await {
                Ok(raw) => return Ok(raw),
                Err(failure) => retry.pause(failure, |_| ()).await?,
            }
        }
    }

    async fn config(&self, manifest: &Manifest) -> Result<Config, Error> {
        let descriptor = &manifest.config;
        let what = format!("the configuration {}", descriptor.digest);
        if descriptor.size > CONFIG_LIMIT {
            return Err(Error::TooLarge { what, limit: CONFIG_LIMIT });
        }
        let bytes = match self.whole(self.store.read_document(&descriptor.digest, CONFIG_LIMIT))? {
            Some(bytes) => bytes,
            None => self.fetch_config(descriptor, &what).await?,
        };
        if bytes.len() as u64 != descriptor.size {
            let found = bytes.len() as u64;
            return Err(Error::SizeMismatch { what, expected: descriptor.size, found });
        }
        let config = manifest::parse_config(&what, &bytes, manifest.layers.len())?;
        let platform = Platform {
            os: config.image.os.clone(),
            architecture: config.image.architecture.clone(),
            // Many images with a variant in their index have none here.
            variant: config.image.variant.clone().or_else(|| self.options.platform.variant.clone()),
        };
        if self.options.platform.accepts(&platform) {
            Ok(config)
        } else {
            Err(self.platform_error(&[platform.to_string()]))
        }
    }

    async fn fetch_config(&self, descriptor: &manifest::Descriptor, what: &str) -> Result<Vec<u8>, Error> {
        self.online(what)?;
        let path = self.transfer(&descriptor.digest, descriptor.size).run(|_| (), |_| ()).await?;
        let bytes = fs_err::read(&path)?;
        self.store.commit_blob(&path, &descriptor.digest)?;
        Ok(bytes)
    }

    fn transfer<'a>(&'a self, digest: &'a Digest, size: u64) -> Transfer<'a> {
        Transfer {
            registry: &self.registry,
            reference: &self.reference,
            digest,
            size,
            scratch: &self.scratch,
            options: &self.options,
        }
    }

    fn online(&self, what: &str) -> Result<(), Error> {
        if self.options.offline { Err(Error::Offline { what: what.to_owned() }) } else { Ok(()) }
    }

    /// What the store has, where what can't be read counts as absent: the registry has it whole, and what is fetched
    /// replaces it. Without a registry, the error says what to remove.
    fn whole<T>(&self, found: Result<Option<T>, Error>) -> Result<Option<T>, Error> {
        match found {
            Err(error) if !self.options.offline => {
                tracing::debug!(error = one_line(&error), "made anew");
                Ok(None)
            }
            found => found,
        }
    }

    fn what(&self, digest: &Digest) -> String {
        format!("{}/{}@{digest}", self.reference.registry(), self.reference.repository())
    }

    fn platform_error(&self, available: &[String]) -> Error {
        let (reference, wanted) = (self.reference.to_string(), self.options.platform.clone());
        // The image's own words, on their way to a terminal.
        let available = available.iter().map(|platform| platform.escape_debug().to_string()).collect();
        Error::Platform { reference, wanted, available }
    }
}

/// Stops the threads of a pull whose future is dropped.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn fetch_layers(
    context: Arc<Context>,
    resolved: &Resolved,
    observer: &(dyn Fn(Event) + Send + Sync),
) -> Result<Vec<Layer>, Error> {
    let guard = CancelOnDrop(Arc::clone(&context.cancelled));
    let (reporter, mut events) = mpsc::unbounded_channel();
    let mut jobs = JoinSet::new();
    let layers = &resolved.manifest.layers;
    let mut order: Vec<usize> = (0..layers.len()).collect();
    // The largest first: the last one to finish decides how long it takes.
    order.sort_by_key(|index| std::cmp::Reverse(layers[*index].size));
    for index in order {
        let job = Job {
            context: Arc::clone(&context),
            index,
            layer: layers[index].clone(),
            diff_id: resolved.config.diff_ids[index].clone(),
            reporter: reporter.clone(),
        };
        jobs.spawn(async move { (index, job.run().await) });
    }
    drop(reporter);
    let outcome = collect(&mut jobs, &mut events, observer, layers.len()).await;
    drop(guard);
    let stored = outcome?;
    (0..stored.len()).map(|index| as_layer(resolved, index, &stored)).collect()
}

fn as_layer(resolved: &Resolved, index: usize, stored: &[StoredLayer]) -> Result<Layer, Error> {
    let (descriptor, layer) = (&resolved.manifest.layers[index], &stored[index]);
    let below = &stored[..index];
    Ok(Layer {
        digest: descriptor.digest.clone(),
        diff_id: resolved.config.diff_ids[index].clone(),
        overlay_ready: layer.record.overlay_ready && overlay::fits(layer, below)?,
        tree: layer.tree.clone(),
        size: descriptor.size,
    })
}

/// Passes events on until every job is done, or one has failed.
async fn collect(
    jobs: &mut JoinSet<(usize, Result<StoredLayer, Error>)>,
    events: &mut UnboundedReceiver<Event>,
    observer: &(dyn Fn(Event) + Send + Sync),
    count: usize,
) -> Result<Vec<StoredLayer>, Error> {
    let mut done: Vec<Option<StoredLayer>> = vec![None; count];
    loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => observer(event),
            finished = jobs.join_next() => match finished {
                Some(Ok((index, result))) => done[index] = Some(result?),
                Some(Err(error)) => return Err(std::io::Error::from(error).into()),
                None => break,
            },
        }
    }
    while let Ok(event) = events.try_recv() {
        observer(event);
    }
    done.into_iter().map(|layer| layer.ok_or(Error::Cancelled)).collect()
}

/// One layer's way into the store.
struct Job {
    context: Arc<Context>,
    index: usize,
    layer: LayerDescriptor,
    diff_id: Digest,
    reporter: UnboundedSender<Event>,
}

impl Job {
    async fn run(&self) -> Result<StoredLayer, Error> {
        let (stored, origin) = match self.context.whole(self.context.store.layer(&self.diff_id))? {
            Some(stored) => (stored, Origin::Cached),
            None if self.context.store.has_blob(&self.layer.digest, self.layer.size) => {
                match self.unpack().await {
                    Ok(stored) => (stored, Origin::Unpacked),
                    Err(error) => {
                        self.only_if_damaged(error).await?;
                        (self.download_and_unpack().await?, Origin::Downloaded)
                    }
                }
            }
            None => (self.download_and_unpack().await?, Origin::Downloaded),
        };
        self.report(Event::LayerDone { index: self.index, origin });
        Ok(stored)
    }

    async fn download_and_unpack(&self) -> Result<StoredLayer, Error> {
        let (context, index) = (&self.context, self.index);
        context.online(&format!("layer {}", self.layer.digest))?;
        let permit = context.downloads.acquire().await.map_err(|_| Error::Cancelled)?;
        self.report(Event::LayerStarted { index });
        let step = Step::default();
        let progress = |bytes| {
            if step.reached(bytes, self.layer.size) {
                self.report(Event::LayerProgress { index, bytes });
            }
        };
        let retrying = |error: &Error| self.report(Event::Retrying { index, reason: one_line(error) });
        let file = context.transfer(&self.layer.digest, self.layer.size).run(progress, retrying).await?;
        context.store.commit_blob(&file, &self.layer.digest)?;
        drop(permit);
        self.unpack().await
    }

    async fn unpack(&self) -> Result<StoredLayer, Error> {
        let permit = self.context.unpacks.acquire().await.map_err(|_| Error::Cancelled)?;
        self.report(Event::UnpackStarted { index: self.index });
        let work = UnpackWork {
            store: self.context.store.clone(),
            scratch: self.context.scratch.clone(),
            layer: self.layer.clone(),
            diff_id: self.diff_id.clone(),
            limits: self.context.options.limits.clone(),
            cancelled: Arc::clone(&self.context.cancelled),
            reporter: self.reporter.clone(),
            index: self.index,
        };
        let stored = tokio::task::spawn_blocking(move || work.run()).await.map_err(std::io::Error::from)?;
        drop(permit);
        stored
    }

    /// Lets a blob that is no longer what it was when it was stored pass; any other failure is returned. The blob
    /// stays until a good one replaces it: another process may be doing just that.
    async fn only_if_damaged(&self, error: Error) -> Result<(), Error> {
        let path = self.context.store.blob_path(&self.layer.digest);
        let file = path.clone();
        let hash = tokio::task::spawn_blocking(move || unpack::hash_file(&file)).await;
        let hash = hash.map_err(std::io::Error::from)??;
        if matches!(error, Error::Cancelled) || hash == self.layer.digest {
            return Err(error);
        }
        if self.context.options.offline {
            return Err(Error::Damaged { path, problem: "its bytes no longer have its digest".to_owned() });
        }
        Ok(())
    }

    fn report(&self, event: Event) {
        // Nobody listens any more when the pull was given up.
        let _ = self.reporter.send(event);
    }
}

/// What an unpacking thread takes along.
struct UnpackWork {
    store: Store,
    scratch: Scratch,
    layer: LayerDescriptor,
    diff_id: Digest,
    limits: Limits,
    cancelled: Arc<AtomicBool>,
    reporter: UnboundedSender<Event>,
    index: usize,
}

impl UnpackWork {
    fn run(self) -> Result<StoredLayer, Error> {
        let directory = self.scratch.path("layer");
        fs_err::create_dir(&directory)?;
        let step = Step::default();
        let index = self.index;
        let progress = |bytes| {
            if step.reached(bytes, self.layer.size) {
                let _ = self.reporter.send(Event::UnpackProgress { index, bytes });
            }
        };
        let source = unpack::Source {
            blob: &self.store.blob_path(&self.layer.digest),
            gzip: self.layer.compression == manifest::Compression::Gzip,
            diff_id: &self.diff_id,
        };
        let unpacked =
            unpack::unpack(&source, &directory.join("tree"), &self.limits, &progress, &self.cancelled);
        let record = unpacked.map_err(|error| match error {
            UnpackError::Cancelled => Error::Cancelled,
            source => Error::Unpack { layer: self.layer.digest.clone(), source },
        })?;
        self.store.commit_layer(&self.scratch, &directory, &self.diff_id, &record)?;
        let stored = self.store.layer(&self.diff_id)?;
        stored.ok_or_else(|| Error::Store {
            path: self.store.root().to_path_buf(),
            problem: format!("layer {} vanished after it was stored", self.diff_id),
        })
    }
}

/// Says when enough has happened to be worth telling.
#[derive(Default)]
struct Step(std::sync::atomic::AtomicU64);

impl Step {
    fn reached(&self, bytes: u64, total: u64) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        let reached = bytes >= last + PROGRESS_STEP || bytes >= total;
        if reached {
            self.0.store(bytes, Ordering::Relaxed);
        }
        reached
    }
}

fn one_line(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
