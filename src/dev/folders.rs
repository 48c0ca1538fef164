//! Folders of the children, and the account under which they run.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use nix::unistd::{AccessFlags, User, access, geteuid};

use super::DevError;

/// Parent of temporary folders that the account could not reach otherwise.
const ELSEWHERE: &str = "/var/tmp";
/// The same for kept data. The second one, whose old files the system may delete, is used only if the
/// first is not writable.
const KEPT_ELSEWHERE: [&str; 2] = ["/var/lib", ELSEWHERE];

/// An account to run a child under.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// Finds an account for Postgres, which refuses to run as root: its package's own, else `nobody`.
    /// `None` if this process is not root, so that a child runs as the same user.
    pub(super) fn unprivileged() -> Result<Option<Self>, DevError> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(|user| Some(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
            .ok_or(DevError::Missing {
                what: "an account named postgres or nobody",
                hint: "Postgres refuses to run as root; add one, or run this as another user",
            })
    }

    /// Makes `command` run under this account, without supplementary groups.
    pub(super) fn apply(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Whether this account may enter `folder` and all its parents.
    fn reaches(self, folder: &Path) -> bool {
        let passes = |ancestor: &Path| {
            fs::metadata(ancestor).is_ok_and(|meta| {
                let bit = match (meta.uid() == self.uid, meta.gid() == self.gid) {
                    (true, _) => 0o100,
                    (false, true) => 0o010,
                    (false, false) => 0o001,
                };
                meta.mode() & bit != 0
            })
        };
        folder.ancestors().all(passes)
    }
}

/// Creates `dir` if missing and returns its real path. Other users may enter it, so that a child under
/// another account reaches its own folder below.
pub(super) fn create(dir: &Path) -> Result<PathBuf, DevError> {
    if !dir.exists() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(dir)
            .map_err(DevError::io(format!("cannot create {}", dir.display())))?;
    }
    dir.canonicalize().map_err(DevError::io(format!("cannot enter {}", dir.display())))
}

/// Locks `dir` for this process while the returned file is open.
pub(super) fn lock(dir: &Path) -> Result<File, DevError> {
    let path = dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(DevError::io(format!("cannot write {}", path.display())))?;
    take(file, dir)
}

/// Locks the folder itself, not a file in it, because Postgres's folder must be empty at first, and
/// several links may lead to it.
pub(super) fn lock_itself(dir: &Path) -> Result<File, DevError> {
    let folder = File::open(dir).map_err(DevError::io(format!("cannot open {}", dir.display())))?;
    take(folder, dir)
}

fn take(file: File, dir: &Path) -> Result<File, DevError> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DevError::InUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => {
            Err(DevError::Io { what: format!("cannot lock {}", dir.display()), source })
        }
    }
}

/// Returns the folder `name` in `dir` (a real path), which belongs to `account` alone, and creates it if
/// missing.
///
/// If the account can't enter `dir`, for example below `/root`, the folder is created under
/// [`KEPT_ELSEWHERE`], with a link to it in `dir`.
pub(super) fn owned(dir: &Path, name: &str, account: Option<Account>) -> Result<PathBuf, DevError> {
    let path = dir.join(name);
    if path.is_dir() {
        return path
            .canonicalize()
            .map_err(DevError::io(format!("cannot enter {}", path.display())));
    }
    // The path may be a link whose target was deleted.
    let _ = fs::remove_file(&path);
    let real = match account {
        Some(account) if !account.reaches(dir) => {
            let base =
                KEPT_ELSEWHERE.into_iter().find(|base| access(*base, AccessFlags::W_OK).is_ok());
            let real = Path::new(base.unwrap_or(ELSEWHERE)).join(unguessable());
            symlink(&real, &path)
                .map_err(DevError::io(format!("cannot link {}", path.display())))?;
            real
        }
        _ => path,
    };
    make_private(&real, account)?;
    Ok(real)
}

/// Returns the account for the programs that use `folder`. If this process is root, that is the folder's
/// owner, unless it is root; else `account`.
pub(super) fn owner(folder: &Path, account: Option<Account>) -> Result<Option<Account>, DevError> {
    let meta =
        fs::metadata(folder).map_err(DevError::io(format!("cannot enter {}", folder.display())))?;
    let own = Account { uid: meta.uid(), gid: meta.gid() };
    Ok(account.map(|account| if own.uid == 0 { account } else { own }))
}

/// A new folder, deleted when the value is dropped.
#[derive(Debug)]
pub(super) struct Temporary(PathBuf);

impl Temporary {
    pub(super) fn create(account: Option<Account>) -> Result<Self, DevError> {
        let asked = std::env::temp_dir();
        let asked = asked.canonicalize().unwrap_or(asked);
        let base = match account {
            Some(account) if !account.reaches(&asked) => PathBuf::from(ELSEWHERE),
            _ => asked,
        };
        let path = base.join(unguessable());
        make_private(&path, None)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o711))
            .map_err(DevError::io(format!("cannot open {}", path.display())))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns a name that nobody else can have prepared a folder or a link for.
fn unguessable() -> String {
    format!("beseda-{:016x}", rand::random::<u64>())
}

/// Creates a folder that only `account` can enter. Fails if the path exists.
fn make_private(path: &Path, account: Option<Account>) -> Result<(), DevError> {
    let made = DirBuilder::new().mode(0o700).create(path);
    made.and_then(|()| match account {
        Some(Account { uid, gid }) => chown(path, Some(uid), Some(gid)),
        None => Ok(()),
    })
    .map_err(DevError::io(format!("cannot create {}", path.display())))
}
