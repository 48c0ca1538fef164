"""Tests the import of the small chat of old.sql, with a running `beseda dev`.

DATABASE_URL is its database, BESEDA_URL a replica, BESEDA the program, BESEDA_JWT_HS256_SECRET the secret.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import Request, urlopen

HERE = Path(__file__).resolve().parent
DATABASE_URL, BESEDA_URL, BESEDA = (os.environ[name] for name in ("DATABASE_URL", "BESEDA_URL", "BESEDA"))
OLD_URL = DATABASE_URL.rsplit("/", 1)[0] + "/old_chat"
# Longest wait for the sweeper, which notifies the replicas within seconds.
SECONDS = 15


def run(*command, **options):
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, **options).stdout


def psql(url, *arguments, **options):
    return run("psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", url, *arguments, **options)


def get(user, path):
    token = run(BESEDA, "token", "--user", user).strip()
    request = Request(f"{BESEDA_URL}/api/v1{path}", headers={"Authorization": f"Bearer {token}"})
    with urlopen(request) as answer:
        return json.load(answer)


def same(what, found, expected):
    if found != expected:
        sys.exit(f"{what}: {found!r}, expected {expected!r}")


# Caches alice's counters in Redis, so that the import must update them.
same("unread before", get("1", "/chats/unread/")["total"], 0)

psql(DATABASE_URL, "-c", "SET client_min_messages = warning", "-c", "DROP DATABASE IF EXISTS old_chat", "-c", "CREATE DATABASE old_chat")
with tempfile.TemporaryDirectory() as folder:
    psql(OLD_URL, "-v", "ON_ERROR_STOP=1", "-f", str(HERE / "old.sql"))
    psql(OLD_URL, "-f", str(HERE / "export.sql"), cwd=folder)
    first = psql(DATABASE_URL, "-f", str(HERE / "import.sql"), cwd=folder).strip()
    again = psql(DATABASE_URL, "-f", str(HERE / "import.sql"), cwd=folder).strip()
same("imported", first, "2|6|1|2|1")
same("imported once more", again.split("|")[:2], ["0", "0"])

deadline = time.monotonic() + SECONDS
while (total := get("1", "/chats/unread/")["total"]) != 2:
    if time.monotonic() > deadline:
        sys.exit(f"unread after: {total}, expected 2")
    time.sleep(0.1)
chats = get("1", "/chats/")["results"]
same("rooms of alice", [(chat["other_user"]["name"], chat["last_seq"], chat["last_ev"]) for chat in chats], [("bob", 6, 8)])
history = get("2", f"/chats/{chats[0]['chat_id']}/messages/")
same("messages", [(m["seq"], m["sender_id"], m["text"][:12], bool(m["deleted_at"])) for m in history["results"]], [
    (1, "1", "Привет, Боб!", False),
    (2, "2", "Hello", False),
    (3, "1", "", True),
    (4, "2", "a second roo", False),
    (5, "2", "back in the ", False),
    (6, "1", "long long lo", False),
])
same("cut", len(history["results"][5]["text"]), 4000)
same("old id", history["results"][0]["metadata"], {"imported_id": 1})
same("markers", (history["read_seq"], history["peer_read_seq"]), (6, 2))

same("a room without messages", get("10", "/chats/")["results"][0]["last_message"], None)
print(run(BESEDA, "verify").strip())
