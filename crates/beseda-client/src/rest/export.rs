//! What is kept of a person, line by line.

use beseda_protocol::model::ExportLine;

use crate::Error;

/// An export on its way.
#[derive(Debug)]
pub struct Export {
    response: reqwest::Response,
    bytes: Vec<u8>,
    complete: bool,
}

impl Export {
    pub(super) fn new(response: reqwest::Response) -> Self {
        Self { response, bytes: Vec::new(), complete: false }
    }

    /// The next line; `None` after the last one, which is [`ExportLine::End`].
    ///
    /// # Errors
    /// The export broke off: ask for it again.
    pub async fn next(&mut self) -> Result<Option<ExportLine>, Error> {
        loop {
            if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                let line = std::str::from_utf8(&line).map_err(Error::network)?;
                let line = ExportLine::decode(line).map_err(Error::network)?;
                self.complete = matches!(line, ExportLine::End(_));
                return Ok(Some(line));
            }
            match self.response.chunk().await.map_err(Error::network)? {
                Some(chunk) => self.bytes.extend_from_slice(&chunk),
                None if self.complete => return Ok(None),
                None => return Err(Error::network(std::io::Error::other("the export broke off"))),
            }
        }
    }
}
