//! Reads Redis without the program, by the necessary part of its protocol.

use std::{collections::HashMap, io};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

/// An answer (RESP2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Nil,
    Int(i64),
    Text(String),
    List(Vec<Reply>),
}

impl Reply {
    pub(crate) fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            other => panic!("expected a string, got {other:?}"),
        }
    }

    pub(crate) fn list(self) -> Vec<Reply> {
        match self {
            Self::List(list) => list,
            other => panic!("expected a list, got {other:?}"),
        }
    }
}

/// A connection, limited to the keys of one prefix.
#[derive(Debug)]
pub(crate) struct Redis {
    stream: BufReader<TcpStream>,
    prefix: String,
}

impl Redis {
    pub(crate) async fn connect(port: u16, prefix: &str) -> Self {
        Self::try_connect(port, prefix).await.expect("Redis listens")
    }

    pub(crate) async fn try_connect(port: u16, prefix: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        Ok(Self { stream: BufReader::new(stream), prefix: prefix.to_owned() })
    }

    pub(crate) async fn command(&mut self, words: &[&str]) -> Reply {
        self.try_command(words).await.expect("Redis answers")
    }

    /// For a server that may close the connection, as one that changes its role does.
    pub(crate) async fn try_command(&mut self, words: &[&str]) -> io::Result<Reply> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.stream.write_all(request.as_bytes()).await?;
        Box::pin(self.reply()).await
    }

    async fn reply(&mut self) -> io::Result<Reply> {
        let line = self.line().await?;
        let (kind, rest) = line.split_at(1);
        Ok(match kind {
            "+" => Reply::Text(rest.to_owned()),
            ":" => Reply::Int(number(rest)),
            "$" | "*" if number(rest) < 0 => Reply::Nil,
            "$" => {
                // With the line's end behind it.
                let mut bytes = vec![0; usize::try_from(number(rest)).expect("a length") + 2];
                self.stream.read_exact(&mut bytes).await?;
                bytes.truncate(bytes.len() - 2);
                Reply::Text(String::from_utf8_lossy(&bytes).into_owned())
            }
            "*" => {
                let mut list = Vec::new();
                for _ in 0..number(rest) {
                    list.push(Box::pin(self.reply()).await?);
                }
                Reply::List(list)
            }
            _ => panic!("Redis refused: {line}"),
        })
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Lists the keys, without the prefix.
    pub(crate) async fn keys(&mut self) -> Vec<String> {
        let (mut cursor, mut keys) = ("0".to_owned(), Vec::new());
        let pattern = format!("{}*", self.prefix);
        loop {
            let scan = ["SCAN", &cursor, "MATCH", &pattern, "COUNT", "1000"];
            let mut answer = self.command(&scan).await.list();
            let page = answer.pop().expect("a page").list();
            keys.extend(page.into_iter().map(|key| key.text().split_off(self.prefix.len())));
            cursor = answer.pop().expect("a cursor").text();
            if cursor == "0" {
                return keys;
            }
        }
    }

    /// Lists the channels with subscribers, with the prefix.
    pub(crate) async fn channels(&mut self) -> Vec<String> {
        let pattern = format!("{}*", self.prefix);
        let channels = self.command(&["PUBSUB", "CHANNELS", &pattern]).await.list();
        channels.into_iter().map(Reply::text).collect()
    }

    /// Deletes the keys.
    pub(crate) async fn flush(&mut self) {
        for key in self.keys().await {
            let key = format!("{}{key}", self.prefix);
            self.command(&["DEL", &key]).await;
        }
    }

    /// The value of a key; `None`: there is none.
    pub(crate) async fn get(&mut self, key: &str) -> Option<String> {
        let key = format!("{}{key}", self.prefix);
        match self.command(&["GET", &key]).await {
            Reply::Text(value) => Some(value),
            _ => None,
        }
    }

    pub(crate) async fn hash(&mut self, key: &str) -> HashMap<String, String> {
        let key = format!("{}{key}", self.prefix);
        let flat = self.command(&["HGETALL", &key]).await.list();
        let mut flat = flat.into_iter().map(Reply::text);
        std::iter::from_fn(|| Some((flat.next()?, flat.next()?))).collect()
    }
}

fn number(text: &str) -> i64 {
    text.parse().unwrap_or_else(|_| panic!("expected a number, got {text:?}"))
}
