"""People who chat through a balancer while an operator does something to the installation.

    traffic.py [--seconds N] [--retry] URL SECRET -- COMMAND ...

Pairs of people write to each other and follow their rooms over sockets, from before COMMAND starts
until after it has ended. Then everything must add up: each acknowledged message has reached its
follower once, in order. Without --retry every request and every handshake must succeed at the first
try; with it (for crashes) a client may try again, as the documents tell it to.
"""

import argparse
import asyncio
import base64
import hashlib
import hmac
import json
import sys
import time
import uuid

import aiohttp

PAIRS = 8
# Each person stays below the default rate of sends.
PAUSE_S = 0.2
# A person gives up here, and the run fails.
GIVE_UP_S = 60
# What is still under way when the command has ended.
SETTLE_S = 30


def token(user, secret):
    def encode(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    parts = ({"alg": "HS256", "typ": "JWT"}, {"sub": user, "exp": int(time.time()) + 3600})
    signed = b".".join(encode(json.dumps(part).encode()) for part in parts)
    mac = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    return (signed + b"." + encode(mac)).decode()


class Run:
    def __init__(self, session, url, secret, retry):
        self.session, self.url, self.secret, self.retry = session, url, secret, retry
        self.over = asyncio.Event()
        self.failures = []
        self.retried = self.reconnects = self.sent = 0
        self.started = time.monotonic()

    def fail(self, what):
        self.failures.append(f"{time.monotonic() - self.started:.1f}s {what}")

    async def attempt(self, what, action):
        """Does `action` until it succeeds; counts what went wrong on the way."""
        begun = time.monotonic()
        while True:
            try:
                return await action()
            except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
                detail = f"{what}: {type(error).__name__} {error}"
            if not self.retry:
                self.fail(detail)
            self.retried += 1
            if time.monotonic() - begun > GIVE_UP_S:
                self.fail(f"gave up: {detail}")
                raise asyncio.CancelledError
            await asyncio.sleep(0.25)

    async def call(self, method, path, user, body=None):
        async def once():
            headers = {"Authorization": f"Bearer {token(user, self.secret)}"}
            async with self.session.request(
                method, f"{self.url}/api/v1{path}", headers=headers, json=body
            ) as answer:
                text = await answer.text()
                if answer.status == 429:
                    await asyncio.sleep(1)
                if answer.status >= 400:
                    raise aiohttp.ClientError(f"{answer.status} {text}")
                return json.loads(text)

        return await self.attempt(f"{method} {path}", once)

    async def pair(self, number):
        left, right = (f"ops-{uuid.uuid4().hex[:8]}-{number}-{side}" for side in "ab")
        chat = (await self.call("POST", "/chats/", left, {"user_id": right}))["chat_id"]
        acknowledged, seen = {}, []
        follower = asyncio.create_task(self.follow(chat, right, seen))
        number = 0
        while not self.over.is_set():
            number += 1
            body = {"text": f"message {number}", "client_msg_id": str(number)}
            message = await self.call("POST", f"/chats/{chat}/messages/", left, body)
            acknowledged[message["seq"]] = message["message_id"]
            self.sent += 1
            await asyncio.sleep(PAUSE_S)
        deadline = time.monotonic() + SETTLE_S
        while len(seen) < len(acknowledged) and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        follower.cancel()
        wanted = sorted(acknowledged.items())
        if seen != wanted:
            missing = len(set(wanted) - set(seen))
            self.fail(f"{chat}: {len(wanted)} acknowledged, {len(seen)} seen, {missing} missing")
        if [seq for seq, _ in wanted] != list(range(1, len(wanted) + 1)):
            self.fail(f"{chat}: the numbers have holes")

    async def follow(self, chat, user, seen):
        position, epoch = 0, None
        while True:
            async def once():
                headers = {"Authorization": f"Bearer {token(user, self.secret)}"}
                parameters = {"after_ev": position} | ({"epoch": epoch} if epoch else {})
                return await self.session.ws_connect(
                    f"{self.url}/ws/chat/{chat}/", headers=headers, params=parameters
                )

            socket = await self.attempt("socket", once)
            wait = 0.25
            try:
                async for frame in socket:
                    event = json.loads(frame.data)
                    kind = event["type"]
                    if kind == "subscribed":
                        epoch = event["epoch"]
                    elif kind == "message.created":
                        seen.append((event["message"]["seq"], event["message"]["message_id"]))
                    elif kind == "reset":
                        self.fail(f"{chat}: reset, {event['reason']}")
                    elif kind == "bye":
                        wait = event["reconnect_in_ms"] / 1000
                    position = max(position, event.get("ev", 0))
            except (aiohttp.ClientError, OSError):
                pass
            if socket.close_code not in (4200, None, 1006, 1001) and not self.retry:
                self.fail(f"{chat}: closed with {socket.close_code}")
            self.reconnects += 1
            await asyncio.sleep(wait)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=5, help="at least, before and after")
    parser.add_argument("--retry", action="store_true")
    parser.add_argument("url")
    parser.add_argument("secret")
    parser.add_argument("command", nargs="*")
    options = parser.parse_args()
    # Above the service's own limit on a request.
    limits = aiohttp.ClientTimeout(total=20, connect=5)
    async with aiohttp.ClientSession(timeout=limits, connector=aiohttp.TCPConnector(limit=0)) as session:
        run = Run(session, options.url, options.secret, options.retry)
        pairs = [asyncio.create_task(run.pair(number)) for number in range(PAIRS)]
        await asyncio.sleep(options.seconds)
        if options.command:
            process = await asyncio.create_subprocess_exec(*options.command, stdin=asyncio.subprocess.DEVNULL)
            if await process.wait():
                run.fail(f"{options.command}: ended with {process.returncode}")
        await asyncio.sleep(options.seconds)
        run.over.set()
        await asyncio.gather(*pairs, return_exceptions=True)
    seconds = time.monotonic() - run.started
    print(
        f"{run.sent} messages in {seconds:.0f} s, {run.reconnects} reconnects, "
        f"{run.retried} retries, {len(run.failures)} failures"
    )
    for failure in run.failures[:20]:
        print(f"  {failure}")
    # Silence would prove nothing.
    return 1 if run.failures or run.sent < PAIRS * 10 else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
