"""Sends a message through each replica, and waits for it on a socket of another one.

    across.py NAME[,NAME…] [PORT]    names or addresses; a name may stand for many addresses

JWT_FILE is the file of the HS256 secret; JWT_ISSUER and JWT_AUDIENCE as the service has them. Only
Python itself is needed, so that any small image can run it.
"""

import base64
import hashlib
import hmac
import json
import os
import socket
import sys
import time
import urllib.request
import uuid

# A replica that takes longer has failed the test.
TIMEOUT_S = 15


def token(user):
    def encode(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    claims = {"sub": user, "exp": int(time.time()) + 300}
    for claim, variable in (("iss", "JWT_ISSUER"), ("aud", "JWT_AUDIENCE")):
        if os.environ.get(variable):
            claims[claim] = os.environ[variable]
    with open(os.environ["JWT_FILE"], "rb") as file:
        # Of two secrets, while one takes the place of the other, the first.
        secret = file.read().splitlines()[0]
    signed = encode(b'{"alg":"HS256","typ":"JWT"}') + b"." + encode(json.dumps(claims).encode())
    return (signed + b"." + encode(hmac.new(secret, signed, hashlib.sha256).digest())).decode()


def post(address, path, user, body):
    request = urllib.request.Request(
        f"http://{address}/api/v1{path}",
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {token(user)}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        return json.load(answer)


class Socket:
    """As much of RFC 6455 as listening for a few seconds takes."""

    def __init__(self, address, path, user):
        host, port = address.rsplit(":", 1)
        self.stream = socket.create_connection((host, int(port)), TIMEOUT_S)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = (
            f"GET {path} HTTP/1.1",
            f"Host: {address}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
            f"Authorization: Bearer {token(user)}",
        )
        self.stream.sendall("\r\n".join((*lines, "", "")).encode())
        self.buffer = self.stream.makefile("rb")
        status = self.buffer.readline()
        if b" 101 " not in status:
            raise SystemExit(f"{address}: {status.decode().strip()} for a socket")
        while self.buffer.readline().strip():
            pass

    def wait_for(self, kind):
        while True:
            first, length = self.buffer.read(2)
            if length == 126:
                length = int.from_bytes(self.buffer.read(2), "big")
            elif length == 127:
                length = int.from_bytes(self.buffer.read(8), "big")
            data = self.buffer.read(length)
            if first & 15 == 8:
                raise SystemExit(f"the socket was closed: {data!r}")
            if first & 15 == 1 and (event := json.loads(data))["type"] == kind:
                return event


def main():
    names, port = sys.argv[1].split(","), int(sys.argv[2]) if len(sys.argv) > 2 else 8080
    found = {
        info[4][0] for name in names for info in socket.getaddrinfo(name, port, socket.AF_INET, socket.SOCK_STREAM)
    }
    replicas = [f"{address}:{port}" for address in sorted(found)]
    alice, bob = (f"test-{who}-{uuid.uuid4()}" for who in ("alice", "bob"))
    chat = post(replicas[0], "/chats/", alice, {"user_id": bob})["chat_id"]
    for number, sender in enumerate(replicas):
        follower = replicas[(number + 1) % len(replicas)]
        listening = Socket(follower, f"/ws/chat/{chat}/", bob)
        listening.wait_for("synced")
        sent = post(sender, f"/chats/{chat}/messages/", alice, {"text": f"from {sender}"})
        heard = listening.wait_for("message.created")["message"]
        if heard != sent:
            raise SystemExit(f"{follower} told {heard}, {sender} had sent {sent}")
        print(f"sent through {sender}, heard on {follower}")
    # One replica alone proves nothing about the way between two, but is no failure either.
    print(f"{len(replicas)} replicas: fine")


main()
