//! Attachments: announced, uploaded, read.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::Time;

/// A file that is to be uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewAttachment {
    /// The file's name, without a path.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 255))]
    pub name: String,
    /// Like `image/png`; the content must bear it out.
    #[cfg_attr(feature = "openapi", schema(min_length = 3, max_length = 255))]
    pub content_type: String,
    /// In bytes.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub size: u64,
}

/// An announced attachment, and where its bytes go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AttachmentTicket {
    pub attachment_id: Uuid,
    pub upload: UploadLink,
}

/// A request that uploads the bytes. It takes no token: the URL is the right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UploadLink {
    /// `PUT`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub method: Cow<'static, str>,
    pub url: String,
    /// Headers that the request must have, with these values.
    pub headers: BTreeMap<String, String>,
    pub expires_at: Time,
}

/// A URL of an attachment's bytes, for whoever has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AttachmentLink {
    pub url: String,
    pub expires_at: Time,
}
