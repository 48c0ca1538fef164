//! What a client knows of a group besides its messages: the members, as far as it is told. No I/O.

use std::collections::BTreeMap;

use beseda_protocol::model::{Member, Role};

use super::frame::Frame;

/// A group as one of its members knows it.
#[derive(Debug, Clone)]
pub(super) struct Membership {
    /// The client's own user.
    own: String,
    pub members: BTreeMap<String, Role>,
    /// True if `members` are all of them, and changes are told.
    pub whole: bool,
    /// True if the list of members must be read by REST: changes are told that were not told before.
    pub is_wanted: bool,
    /// True once the list was read by REST, which may be newer than frames to come.
    pub listed: bool,
    /// `None` until the service has told it.
    pub receipts: Option<bool>,
    pub title: Option<String>,
    own_role: Option<Role>,
    /// True until the first `synced` of a client that began with nothing.
    is_fresh: bool,
    /// True if the user has come back since the client's position: the history is to be read anew, as the
    /// first message that they may see is another.
    pub came_back: bool,
}

impl Membership {
    /// Creates the membership of a client that knows nothing. `from_nothing`: it asks for all changes.
    pub(super) fn new(own: &str, from_nothing: bool) -> Self {
        Self {
            own: own.to_owned(),
            members: BTreeMap::new(),
            whole: false,
            is_wanted: !from_nothing,
            listed: false,
            receipts: None,
            title: None,
            own_role: None,
            is_fresh: from_nothing,
            came_back: false,
        }
    }

    /// True if the user is told of other members' changes.
    fn hears_members(&self) -> bool {
        self.receipts == Some(true) || self.own_role >= Some(Role::Admin)
    }

    /// After a change of what the user is told of.
    fn settle(&mut self) {
        if !self.hears_members() {
            self.whole = false;
        } else if !self.whole && !self.is_fresh {
            self.is_wanted = true;
        }
    }

    pub(super) fn on_synced(&mut self) {
        if std::mem::take(&mut self.is_fresh) {
            // Without receipts the role may have changed between two pages of what was told.
            self.whole = self.receipts == Some(true);
            self.settle();
        }
    }

    /// Applies `member.joined` or `member.updated`. True if the user themselves has come back.
    pub(super) fn on_member(&mut self, member: &Member, joined: bool) -> bool {
        let user = member.user.user_id.as_str();
        self.members.insert(user.to_owned(), member.role);
        if user != self.own {
            return false;
        }
        self.own_role = Some(member.role);
        self.settle();
        if joined && !self.is_fresh {
            self.came_back = true;
        }
        joined && !self.is_fresh
    }

    /// Applies `member.left`. False if it is the user's own leaving, which they are not told by this frame.
    pub(super) fn on_left(&mut self, user: &str) -> bool {
        self.members.remove(user);
        user != self.own
    }

    pub(super) fn on_changed(&mut self, frame: &Frame) {
        self.title.clone_from(&frame.title);
        self.receipts = frame.receipts.as_bool().or(self.receipts);
        self.settle();
    }

    /// Takes the list of members as REST gives it.
    pub(super) fn on_list(&mut self, members: &[Member]) {
        let entry = |member: &Member| (member.user.user_id.as_str().to_owned(), member.role);
        self.members = members.iter().map(entry).collect();
        self.own_role = self.members.get(&self.own).copied().or(self.own_role);
        let with_receipts = members.iter().any(|member| member.read_seq.is_some());
        self.receipts = self.receipts.or(Some(with_receipts));
        self.listed = true;
        self.is_wanted = false;
        self.whole = self.hears_members();
    }
}
