//! The socket protocol `chat.v1`, frame by frame.

mod commands;
mod delivery;
mod faults;
mod fragments;
mod frames;
mod handshake;
mod inbox;
mod lifecycle;
mod presence;
mod redis_forms;
mod resume;

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::Socket;

/// The names of an object's members.
fn names(object: &Value) -> BTreeSet<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// Asserts that an object has exactly these members.
#[track_caller]
fn assert_members(object: &Value, expected: &[&str]) {
    assert_eq!(names(object), expected.iter().copied().collect(), "{object}");
}

fn kind(frame: &Value) -> &str {
    frame["type"].as_str().unwrap_or_default()
}

fn kinds(frames: &[Value]) -> Vec<&str> {
    frames.iter().map(kind).collect()
}

fn ev(frame: &Value) -> i64 {
    frame["ev"].as_i64().unwrap_or_else(|| panic!("no ev in {frame}"))
}

/// What a client does that was given everything up to `after_ev`: reads up to `head_ev`, and relies
/// on what the protocol promises. Live, every `ev` comes, one by one; after `catchup` they ascend,
/// superseded ones left out, up to `synced`. Gives the frames that carried an `ev` of a change.
async fn follow(socket: &mut Socket, after_ev: i64, head_ev: i64) -> Vec<Value> {
    let (mut at, mut catching_up, mut changes) = (after_ev, false, Vec::new());
    let mut caught_up = false;
    while at < head_ev || catching_up {
        let frame = socket.next_frame().await;
        match kind(&frame) {
            "presence" | "typing" | "ack" | "pong" => {}
            "catchup" => {
                assert_eq!(frame["after_ev"], at, "{frame}");
                catching_up = true;
            }
            "synced" => {
                assert!(catching_up && ev(&frame) >= at, "at {at} came {frame}");
                (at, catching_up, caught_up) = (ev(&frame), false, true);
            }
            "message.created" | "message.updated" | "message.deleted" | "chat.read" => {
                let fits = if catching_up { ev(&frame) > at } else { ev(&frame) == at + 1 };
                assert!(fits, "at {at} came {frame}");
                at = ev(&frame);
                changes.push(frame);
            }
            _ => panic!("at {at} came {frame}"),
        }
    }
    // What is read goes as far as there is something.
    assert!(at == head_ev || caught_up && at > head_ev, "{at} is not {head_ev}");
    changes
}

/// The numbers of the messages among frames, in the order in which they came.
fn seqs(frames: &[Value]) -> Vec<i64> {
    frames.iter().filter_map(|frame| frame["message"]["seq"].as_i64()).collect()
}
