//! Attachments in a bucket of an object store.
//!
//! With S3, clients exchange bytes with the store itself, at URLs that are signed for one object. Large uploads, and
//! all traffic of other stores, pass through a replica, which holds one part of an upload in memory at a time.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{BoxStream, StreamExt};
use http::{HeaderValue, Method, header};
use object_store::{
    Attribute, Attributes, ClientConfigKey, CopyOptions, GetOptions, GetRange, MultipartId,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    multipart::{MultipartStore, PartId},
    path::Path,
    signer::{SignedUrlOptions, Signer},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

use super::{
    bytes::{ByteError, ByteStream, Listed},
    key::{Key, Part},
};
use crate::{
    config::AttachmentConfig,
    store::{Store, StoreError},
};

/// Bytes of a part of an upload that passes through a replica, which is as much memory as it takes. S3 asks for 5 MiB
/// at least.
const PART_BYTES: usize = 8 * 1024 * 1024;

/// Uploads at once that pass through a replica: 128 MiB of memory.
const RELAYS: usize = 16;

/// Largest attachment that a client uploads to the store in one request; a larger one had better be resumable.
pub(super) const MAX_DIRECT_BYTES: u64 = 64 * 1024 * 1024;

/// How long one request to the store may take: a part at 300 KiB/s.
const REQUEST_TIMEOUT: &str = "30s";

/// For how long a request is repeated that failed: clients wait for it.
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);

/// A bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    objects: Arc<dyn ObjectStore>,
    multipart: Arc<dyn Multipart>,
    /// Signs URLs for clients; `None`: all bytes pass through a replica.
    signer: Option<Arc<dyn Sign>>,
    prefix: Path,
    /// Uploads through this replica, each of which takes [`PART_BYTES`] of memory.
    relays: Arc<Semaphore>,
    /// Where the progress of uploads is kept.
    store: Store,
}

/// The same, that can be shown in logs.
trait Multipart: MultipartStore + std::fmt::Debug {}
impl<T: MultipartStore + std::fmt::Debug> Multipart for T {}
trait Sign: Signer + std::fmt::Debug {}
impl<T: Signer + std::fmt::Debug> Sign for T {}

impl From<object_store::Error> for ByteError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::Missing,
            error => Self::away(error),
        }
    }
}

impl From<StoreError> for ByteError {
    fn from(error: StoreError) -> Self {
        Self::away(error)
    }
}

impl Bucket {
    pub(crate) fn open(
        url: &Url,
        config: &AttachmentConfig,
        store: Store,
    ) -> Result<Self, object_store::Error> {
        let retry =
            RetryConfig { max_retries: 3, retry_timeout: RETRY_TIMEOUT, ..Default::default() };
        // Set as one more option, since `with_client_options` would take back those of the environment.
        let timeout = ClientConfigKey::Timeout;
        let prefix = Path::from_url_path(url.path())?;
        let bucket = url.host_str().unwrap_or_default();
        match url.scheme() {
            "gs" => {
                let builder = GoogleCloudStorageBuilder::from_env()
                    .with_bucket_name(bucket)
                    .with_retry(retry)
                    .with_config(GoogleConfigKey::Client(timeout), REQUEST_TIMEOUT);
                let built = builder.build()?;
                Ok(Self::of(Arc::new(built), None, prefix, store))
            }
            "az" => {
                let builder = MicrosoftAzureBuilder::from_env()
                    .with_container_name(bucket)
                    .with_retry(retry)
                    .with_config(AzureConfigKey::Client(timeout), REQUEST_TIMEOUT);
                let built = builder.build()?;
                Ok(Self::of(Arc::new(built), None, prefix, store))
            }
            _ => {
                let mut builder = AmazonS3Builder::from_env()
                    .with_bucket_name(bucket)
                    .with_retry(retry)
                    .with_config(AmazonS3ConfigKey::Client(timeout), REQUEST_TIMEOUT);
                if let Some(endpoint) = &config.aws_endpoint_url {
                    let plain = endpoint.scheme() == "http";
                    builder = builder
                        .with_endpoint(endpoint.as_str().trim_end_matches('/'))
                        .with_allow_http(plain);
                }
                if let Some(region) = &config.aws_region {
                    builder = builder.with_region(region);
                }
                if let (Some(id), Some(secret)) =
                    (&config.aws_access_key_id, &config.aws_secret_access_key)
                {
                    builder = builder
                        .with_access_key_id(id.expose())
                        .with_secret_access_key(secret.expose());
                }
                let s3 = Arc::new(builder.build()?);
                let signer: Arc<dyn Sign> = Arc::clone(&s3) as _;
                Ok(Self::of(s3, Some(signer), prefix, store))
            }
        }
    }

    fn of<T: ObjectStore + MultipartStore>(
        objects: Arc<T>,
        signer: Option<Arc<dyn Sign>>,
        prefix: Path,
        store: Store,
    ) -> Self {
        let relays = Arc::new(Semaphore::new(RELAYS));
        Self {
            objects: Arc::clone(&objects) as _,
            multipart: objects,
            signer,
            prefix,
            relays,
            store,
        }
    }

    fn path(&self, key: Key, part: Part) -> Path {
        self.prefix.clone().join(key.chat_id.to_string()).join(key.file_name(part))
    }

    /// Whether clients may upload so many bytes to the store itself.
    pub(super) fn takes_directly(&self, size: u64) -> bool {
        self.signer.is_some() && size <= MAX_DIRECT_BYTES
    }

    /// Signs a URL at which bytes of this type may be uploaded. Their number is not part of what the library can
    /// sign; the check refuses any other.
    pub(super) async fn upload_url(
        &self,
        key: Key,
        content_type: &HeaderValue,
        lifetime: Duration,
    ) -> Result<Option<Url>, ByteError> {
        let Some(signer) = &self.signer else { return Ok(None) };
        let options =
            SignedUrlOptions::new().with_signed_header(header::CONTENT_TYPE, content_type.clone());
        let path = self.path(key, Part::Upload);
        Ok(Some(signer.signed_url_opts(Method::PUT, &path, lifetime, &options).await?))
    }

    /// Signs a URL at which an object may be read, with these headers of the answer; `None`: a replica has to pass
    /// the bytes on.
    pub(super) async fn download_url(
        &self,
        key: Key,
        part: Part,
        headers: &BTreeMap<&'static str, String>,
        lifetime: Duration,
    ) -> Result<Option<Url>, ByteError> {
        let Some(signer) = &self.signer else { return Ok(None) };
        let query = headers.iter().map(|(name, value)| (format!("response-{name}"), value.clone()));
        let options = SignedUrlOptions::new().with_query(query);
        let path = self.path(key, part);
        Ok(Some(signer.signed_url_opts(Method::GET, &path, lifetime, &options).await?))
    }

    pub(super) async fn size(&self, key: Key, part: Part) -> Result<Option<u64>, ByteError> {
        match self.objects.head(&self.path(key, part)).await {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn read(
        &self,
        key: Key,
        part: Part,
        range: Range<u64>,
    ) -> Result<Bytes, ByteError> {
        Ok(self.objects.get_range(&self.path(key, part), range).await?)
    }

    pub(super) async fn stream(
        &self,
        key: Key,
        part: Part,
        range: Range<u64>,
    ) -> Result<ByteStream, ByteError> {
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..Default::default() };
        let found = self.objects.get_opts(&self.path(key, part), options).await?;
        Ok(found.into_stream().map(|bytes| bytes.map_err(ByteError::from)).boxed())
    }

    pub(super) async fn write(
        &self,
        key: Key,
        part: Part,
        bytes: Bytes,
        content_type: &'static str,
    ) -> Result<(), ByteError> {
        let options = PutOptions { attributes: typed(content_type), ..Default::default() };
        self.objects.put_opts(&self.path(key, part), bytes.into(), options).await?;
        Ok(())
    }

    pub(super) async fn promote(&self, key: Key) -> Result<(), ByteError> {
        let (from, to) = (self.path(key, Part::Upload), self.path(key, Part::Whole));
        self.objects.copy_opts(&from, &to, CopyOptions::default()).await?;
        self.delete(key, &[Part::Upload]).await
    }

    pub(super) async fn delete(&self, key: Key, parts: &[Part]) -> Result<(), ByteError> {
        if parts.contains(&Part::Upload) {
            self.abort(key).await?;
        }
        for part in parts {
            match self.objects.delete(&self.path(key, *part)).await {
                Err(object_store::Error::NotFound { .. }) | Ok(()) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Gives up an upload in parts, if there is one: the store would keep its parts.
    async fn abort(&self, key: Key) -> Result<(), ByteError> {
        let Some(begun) = self.store.get_attachment_upload(key.chat_id, key.attachment_id).await?
        else {
            return Ok(());
        };
        let path = self.path(key, Part::Upload);
        match self.multipart.abort_multipart(&path, &begun.upload_id).await {
            Err(object_store::Error::NotFound { .. }) | Ok(()) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.store.end_attachment_upload(key.chat_id, key.attachment_id).await?)
    }

    pub(super) fn list(&self) -> BoxStream<'static, Result<Listed, ByteError>> {
        let found = self.objects.list(Some(&self.prefix));
        let listed = found.filter_map(async |object| match object {
            Ok(object) => {
                let mut names = object.location.parts().rev();
                let (name, chat) = (names.next()?, names.next()?);
                let (key, part) = Key::parse(chat.as_ref(), name.as_ref())?;
                Some(Ok(Listed { key, part, modified: object.last_modified.into() }))
            }
            Err(error) => Some(Err(error.into())),
        });
        listed.boxed()
    }

    /// Returns how many bytes of an upload are there.
    pub(super) async fn received(&self, key: Key) -> Result<u64, ByteError> {
        match self.store.get_attachment_upload(key.chat_id, key.attachment_id).await? {
            Some(begun) => Ok((begun.part_ids.len() * PART_BYTES) as u64),
            None => Ok(self.size(key, Part::Upload).await?.unwrap_or(0)),
        }
    }

    /// Begins or continues an upload through this replica.
    pub(super) async fn upload(
        &self,
        key: Key,
        content_type: &str,
        size: u64,
    ) -> Result<BucketUpload, ByteError> {
        let relay = Arc::clone(&self.relays).try_acquire_owned().map_err(|_| ByteError::Busy)?;
        let (chat_id, attachment_id) = (key.chat_id, key.attachment_id);
        let begun = self.store.get_attachment_upload(chat_id, attachment_id).await?;
        // Whole already, if an answer was lost.
        let whole = begun.is_none() && self.size(key, Part::Upload).await? == Some(size);
        let (upload_id, parts) = match begun {
            Some(begun) => (Some(begun.upload_id), begun.part_ids),
            None if whole => (None, Vec::new()),
            None => {
                let path = self.path(key, Part::Upload);
                // What a replica passes on has the type of its row. Azure takes none here.
                let attributes = self.signer.as_ref().map(|_| typed(content_type));
                let options = PutMultipartOptions {
                    attributes: attributes.unwrap_or_default(),
                    ..Default::default()
                };
                let new = self.multipart.create_multipart_opts(&path, options).await?;
                if !self.store.begin_attachment_upload(chat_id, attachment_id, &new).await? {
                    // Another replica was faster.
                    let _ = self.multipart.abort_multipart(&path, &new).await;
                    return Err(ByteError::Busy);
                }
                (Some(new), Vec::new())
            }
        };
        let stored = if whole { size } else { (parts.len() * PART_BYTES) as u64 };
        Ok(BucketUpload {
            bucket: self.clone(),
            key,
            upload_id,
            parts,
            stored,
            size,
            waiting: BytesMut::new(),
            _relay: relay,
        })
    }
}

fn typed(content_type: &str) -> Attributes {
    Attributes::from_iter([(Attribute::ContentType, content_type.to_owned())])
}

/// An upload in progress. Two at once do no harm: a part counts once, and the store refuses parts that are not those
/// that were counted.
#[derive(Debug)]
pub(crate) struct BucketUpload {
    bucket: Bucket,
    key: Key,
    /// The store's name for it, with Azure an empty one; `None`: it is complete.
    upload_id: Option<MultipartId>,
    parts: Vec<String>,
    /// Bytes in parts that the store has.
    stored: u64,
    size: u64,
    /// Up to [`PART_BYTES`] bytes of the next part.
    waiting: BytesMut,
    _relay: OwnedSemaphorePermit,
}

impl BucketUpload {
    pub(super) fn received(&self) -> u64 {
        self.stored + self.waiting.len() as u64
    }

    pub(super) async fn write(&mut self, mut bytes: Bytes) -> Result<(), ByteError> {
        while !bytes.is_empty() {
            let room = PART_BYTES - self.waiting.len();
            self.waiting.extend_from_slice(&bytes.split_to(bytes.len().min(room)));
            if self.waiting.len() == PART_BYTES {
                self.put_part().await?;
            }
        }
        Ok(())
    }

    async fn put_part(&mut self) -> Result<(), ByteError> {
        let Some(upload_id) = &self.upload_id else { return Ok(()) };
        let (Bucket { multipart, store, .. }, Key { chat_id, attachment_id }) =
            (&self.bucket, self.key);
        let part = std::mem::take(&mut self.waiting).freeze();
        let path = self.bucket.path(self.key, Part::Upload);
        let (at, size) = (self.parts.len(), part.len() as u64);
        let PartId { content_id } = multipart.put_part(&path, upload_id, at, part.into()).await?;
        let counted =
            store.add_attachment_part(chat_id, attachment_id, upload_id, at, &content_id).await?;
        if !counted {
            return Err(ByteError::Busy);
        }
        self.parts.push(content_id);
        self.stored += size;
        Ok(())
    }

    /// Completes the upload if all of it is there; else forgets what is less than a part. Returns how much is there.
    pub(super) async fn finish(mut self) -> Result<u64, ByteError> {
        if self.received() < self.size {
            return Ok(self.stored);
        }
        if !self.waiting.is_empty() {
            self.put_part().await?;
        }
        let Some(upload_id) = &self.upload_id else { return Ok(self.stored) };
        let path = self.bucket.path(self.key, Part::Upload);
        let parts = self.parts.iter().cloned().map(|content_id| PartId { content_id }).collect();
        self.bucket.multipart.complete_multipart(&path, upload_id, parts).await?;
        let Key { chat_id, attachment_id } = self.key;
        self.bucket.store.end_attachment_upload(chat_id, attachment_id).await?;
        Ok(self.size)
    }
}
