//! The names of an attachment's objects.

use std::fmt;

use uuid::Uuid;

use crate::model::ChatId;

/// An attachment has up to three objects, side by side under its chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// The bytes, whole and checked. They never change.
    Whole,
    /// What the client uploads. It becomes [`Part::Whole`] before it is checked, so that nobody can change what was
    /// checked.
    Upload,
    /// The smaller image.
    Thumbnail,
}

impl Part {
    pub(crate) const ALL: [Self; 3] = [Self::Whole, Self::Upload, Self::Thumbnail];

    fn suffix(self) -> &'static str {
        match self {
            Self::Whole => "",
            Self::Upload => ".part",
            Self::Thumbnail => ".thumbnail",
        }
    }
}

/// Names an attachment's objects: `<chat_id>/<attachment_id>`, with a suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) chat_id: ChatId,
    pub(crate) attachment_id: Uuid,
}

impl Key {
    pub(crate) fn file_name(self, part: Part) -> String {
        format!("{}{}", self.attachment_id, part.suffix())
    }

    /// Reads the two last parts of a path back; `None`: it is not the name of an attachment's object.
    pub(crate) fn parse(folder: &str, file_name: &str) -> Option<(Self, Part)> {
        let (id, part) = Part::ALL.iter().rev().find_map(|part| {
            let id = file_name.strip_suffix(part.suffix())?;
            Some((Uuid::try_parse(id).ok()?, *part))
        })?;
        Some((Self { chat_id: Uuid::try_parse(folder).ok()?, attachment_id: id }, part))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.chat_id, self.attachment_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back() {
        let key = Key { chat_id: Uuid::now_v7(), attachment_id: Uuid::now_v7() };
        for part in Part::ALL {
            let read = Key::parse(&key.chat_id.to_string(), &key.file_name(part));
            assert_eq!(read, Some((key, part)));
        }
        assert_eq!(Key::parse(&key.chat_id.to_string(), "lost+found"), None);
        assert_eq!(Key::parse("lost+found", &key.file_name(Part::Whole)), None);
    }
}
