//! Whether the bytes of a file bear out the type that it claims, by their beginning, and what browsers may show.

/// Bytes at the beginning of a file that are looked at.
pub(super) const HEAD_BYTES: u64 = 8 * 1024;

/// Returns the type without its parameters, in lower case.
pub(crate) fn essence(content_type: &str) -> String {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

/// Checks the syntax of a content type: `type/subtype`, with or without parameters.
pub(super) fn check_content_type(content_type: &str) -> Result<(), &'static str> {
    const REASON: &str = "must be a type like image/png, of 255 characters at most";
    let is_token = |part: &str| {
        let extra = b"!#$&^_.+-";
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
    };
    let (essence, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    let fits = essence
        .trim_end()
        .split_once('/')
        .is_some_and(|(kind, sub)| is_token(kind) && is_token(sub) && content_type.len() <= 255);
    let plain = parameters.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    if fits && plain { Ok(()) } else { Err(REASON) }
}

/// Whether the image is one of which size and thumbnail are made.
pub(super) fn image_format(essence: &str) -> Option<image::ImageFormat> {
    match essence {
        "image/png" => Some(image::ImageFormat::Png),
        "image/jpeg" => Some(image::ImageFormat::Jpeg),
        "image/gif" => Some(image::ImageFormat::Gif),
        "image/webp" => Some(image::ImageFormat::WebP),
        _ => None,
    }
}

/// Whether a browser may show a file of this type in a page, instead of saving it: types without scripts, which must
/// have been borne out.
pub(crate) fn may_be_inline(essence: &str) -> bool {
    image_format(essence).is_some()
        || Family::of(essence).is_some_and(|family| {
            !matches!(family, Family::Pdf | Family::Zip) && !essence.starts_with("application/")
        })
}

/// Whether the file may say how long it lasts. One of Matroska, such as a browser records, mostly does not.
pub(super) fn has_duration(essence: &str) -> bool {
    Family::of(essence)
        .is_some_and(|family| !matches!(family, Family::Matroska | Family::Pdf | Family::Zip))
}

/// Types that share a container, and so a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    IsoMedia,
    Matroska,
    Ogg,
    Mp3,
    Wave,
    Flac,
    Aac,
    Pdf,
    Zip,
}

impl Family {
    fn of(essence: &str) -> Option<Self> {
        Some(match essence {
            "video/mp4" | "audio/mp4" | "audio/m4a" | "audio/x-m4a" | "video/x-m4v"
            | "video/quicktime" | "video/3gpp" | "audio/3gpp" => Self::IsoMedia,
            "video/webm" | "audio/webm" | "video/x-matroska" => Self::Matroska,
            "audio/ogg" | "video/ogg" | "application/ogg" | "audio/opus" => Self::Ogg,
            "audio/mpeg" | "audio/mp3" => Self::Mp3,
            "audio/wav" | "audio/x-wav" | "audio/wave" | "audio/vnd.wave" => Self::Wave,
            "audio/flac" | "audio/x-flac" => Self::Flac,
            "audio/aac" | "audio/aacp" => Self::Aac,
            "application/pdf" => Self::Pdf,
            "application/zip" | "application/x-zip-compressed" | "application/epub+zip" => {
                Self::Zip
            }
            other if other.starts_with("application/vnd.openxmlformats-officedocument.") => {
                Self::Zip
            }
            other if other.starts_with("application/vnd.oasis.opendocument.") => Self::Zip,
            _ => return None,
        })
    }

    fn matches(self, head: &[u8]) -> bool {
        let at = |from: usize, signature: &[u8]| {
            head.get(from..).is_some_and(|rest| rest.starts_with(signature))
        };
        match self {
            Self::IsoMedia => {
                [&b"ftyp"[..], b"moov", b"wide", b"mdat"].iter().any(|kind| at(4, kind))
            }
            Self::Matroska => at(0, &[0x1a, 0x45, 0xdf, 0xa3]),
            Self::Ogg => at(0, b"OggS"),
            // A tag, or the synchronisation word of a frame of layer 3.
            Self::Mp3 => {
                at(0, b"ID3") || at(0, &[0xff]) && head.get(1).is_some_and(|b| b & 0xe6 == 0xe2)
            }
            Self::Wave => at(0, b"RIFF") && at(8, b"WAVE"),
            Self::Flac => at(0, b"fLaC"),
            Self::Aac => {
                at(0, b"ADIF") || at(0, &[0xff]) && head.get(1).is_some_and(|b| b & 0xf6 == 0xf0)
            }
            Self::Pdf => at(0, b"%PDF-"),
            Self::Zip => at(0, b"PK\x03\x04") || at(0, b"PK\x05\x06"),
        }
    }
}

/// Checks that the beginning of a file bears out its type.
pub(super) fn check_content(content_type: &str, head: &[u8]) -> Result<(), &'static str> {
    const OTHER: &str = "have other content than content_type says";
    let essence = essence(content_type);
    if image_format(&essence).is_some() {
        return if infer::is_mime(head, &essence) { Ok(()) } else { Err(OTHER) };
    }
    if let Some(family) = Family::of(&essence) {
        return if family.matches(head) { Ok(()) } else { Err(OTHER) };
    }
    if is_program(head) && !names_program(&essence) {
        return Err("are a program, and content_type does not say so");
    }
    let declares_markup = matches!(
        essence.as_str(),
        "text/html" | "application/xhtml+xml" | "image/svg+xml" | "text/xml" | "application/xml"
    );
    if is_active_markup(head) && !declares_markup {
        return Err("are HTML or SVG, and content_type does not say so");
    }
    // Whatever encoding a text has: no browser takes one with U+0000 for a text.
    let is_text = essence.starts_with("text/") || essence == "application/json" || declares_markup;
    if is_text && head.contains(&0) && !is_utf16(head) {
        return Err(OTHER);
    }
    Ok(())
}

fn is_program(head: &[u8]) -> bool {
    // A certificate is among what the library counts as programs.
    infer::get(head).is_some_and(|kind| {
        kind.matcher_type() == infer::MatcherType::App
            && kind.mime_type() != "application/x-x509-ca-cert"
    }) || head.starts_with(b"#!")
}

fn names_program(essence: &str) -> bool {
    matches!(
        essence,
        "application/x-msdownload"
            | "application/x-dosexec"
            | "application/x-executable"
            | "application/x-elf"
            | "application/x-mach-binary"
            | "application/x-sh"
            | "text/x-shellscript"
            | "text/x-python"
            | "application/java-vm"
            | "application/wasm"
            | "application/vnd.microsoft.portable-executable"
            | "application/vnd.android.dex"
    )
}

/// Whether a browser that guesses would take it for a page: HTML, or SVG, which may have scripts.
fn is_active_markup(head: &[u8]) -> bool {
    if infer::is_mime(head, "text/html") {
        return true;
    }
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let begins = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n', '\u{c}']);
    begins.starts_with('<') && ["<svg", "<html", "<script"].iter().any(|tag| begins.contains(tag))
}

fn is_utf16(head: &[u8]) -> bool {
    head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff])
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    const PAGE: &[u8] = b"\n <!doctype html><script>alert(1)</script>";
    const SVG: &[u8] = b"\xef\xbb\xbf<?xml version='1.0'?><!-- x --><svg onload='alert(1)'/>";
    const PROGRAM: &[u8] = b"MZ\x90\0\x03";

    #[test]
    fn content_must_be_what_it_claims() {
        for (claim, head) in [
            ("image/png", PNG),
            ("IMAGE/PNG", PNG),
            ("text/html; charset=utf-8", PAGE),
            ("image/svg+xml", SVG),
            ("text/plain", b"just words"),
            ("text/plain", b""),
            ("text/csv", b"\xff\xfea\0,\0b\0"),
            ("application/octet-stream", b"\0\x01\x02"),
            ("application/x-executable", PROGRAM),
            ("application/pdf", b"%PDF-1.7"),
            ("video/mp4", b"\0\0\0\x20ftypisom"),
            ("audio/mpeg", b"\xff\xfb\x90\x44"),
            ("application/vnd.oasis.opendocument.text", b"PK\x03\x04\x14\0"),
            ("application/x-unheard-of", b"anything"),
        ] {
            assert_eq!(check_content(claim, head), Ok(()), "{claim}");
        }
        for (claim, head) in [
            ("image/png", PAGE),
            ("image/jpeg", PNG),
            ("image/png", b""),
            ("text/plain", PAGE),
            ("text/plain", SVG),
            ("application/octet-stream", SVG),
            ("application/json", PAGE),
            ("application/octet-stream", PROGRAM),
            ("text/plain", b"#!/bin/sh\nrm -rf /"),
            ("text/plain", b"a\0b"),
            ("application/pdf", PAGE),
            ("video/mp4", PNG),
            ("audio/mpeg", PAGE),
            ("application/zip", PNG),
        ] {
            assert!(check_content(claim, head).is_err(), "{claim}");
        }
    }

    #[test]
    fn nothing_with_scripts_is_shown_in_a_page() {
        for shown in ["image/png", "image/webp", "video/mp4", "audio/ogg"] {
            assert!(may_be_inline(shown), "{shown}");
        }
        for saved in
            ["image/svg+xml", "text/html", "text/plain", "application/pdf", "application/ogg", ""]
        {
            assert!(!may_be_inline(saved), "{saved}");
        }
    }

    #[test]
    fn a_content_type_has_two_parts() {
        for good in ["image/png", "text/plain; charset=\"utf-8\"", "application/vnd.x+json"] {
            assert_eq!(check_content_type(good), Ok(()), "{good}");
        }
        let long = format!("text/{}", "x".repeat(255));
        for bad in ["", "png", "/png", "image/", "image/png\r\nX: 1", "a b/c", "ä/b", &long] {
            assert!(check_content_type(bad).is_err(), "{bad:?}");
        }
    }
}
