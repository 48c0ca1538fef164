"""Failovers of Postgres under load, with Patroni and etcd as processes on this machine.

    failover.py PROGRAM              all of them, some four minutes; PROGRAM is a `beseda`
    failover.py PROGRAM NAME ...     some: switchover, postgres, machine, asynchronous

People write, read and listen through two replicas all the time. What was acknowledged must be read at
once, from a standby too. Then everything must add up: what was acknowledged is there, once, under its number,
unless the failover was to lose it, and sockets have been told of the new epoch and stayed open.
"""

import asyncio
import json
import signal
import sys
import time

import aiohttp

from lab import SECRET
from patroni_cluster import CLUSTER_CEILING_S, REPLICAS, Cluster
from traffic import token

PAIRS = 4
# Each person stays well below what a replica writes.
PAUSE_S = 0.02
# How long sends may be refused. Patroni notices by itself that Postgres has died, at its next look; that a
# machine has died it notices when the leader's key has run out, of which the smallest is 20 s.
REFUSED_CEILING_S = {"switchover": 10, "postgres": 10, "machine": 30, "asynchronous": 30}
# Writers go on so long before and after.
BESIDE_S = 3
# What is acknowledged by a primary that is cut off from its standby, and lost with it.
LOST = 20


class Pair:
    """Somebody who writes all the time, each message until it is acknowledged, and somebody who listens."""

    def __init__(self, lab, number):
        self.lab, self.users = lab, (f"writer-{number}", f"reader-{number}")
        self.replica = number % REPLICAS
        self.acknowledged, self.gaps, self.wrong = {}, [], []
        self.heard, self.resets, self.closed = {}, [], 0
        self.sent, self.last = 0, time.monotonic()

    def url(self, replica, path):
        return f"http://127.0.0.1:{self.lab.ports[f'public-{replica}']}/api/v1{path}"

    async def call(self, method, path, user=0, **options):
        headers = {"Authorization": f"Bearer {token(self.users[user], SECRET)}"}
        async with self.lab.session.request(method, self.url(self.replica, path), headers=headers, **options) as answer:
            return answer.status, await answer.json()

    async def begin(self):
        status, chat = await self.call("POST", "/chats/", json={"user_id": self.users[1]})
        assert status == 201, chat
        self.chat = chat["chat_id"]
        self.opened = asyncio.Event()
        self.lab.tasks.append(asyncio.create_task(self.listen()))
        await asyncio.wait_for(self.opened.wait(), 20)

    async def send(self):
        key = f"{self.users[0]}-{self.sent}"
        self.sent += 1
        while True:
            try:
                body = {"text": key, "client_msg_id": key}
                status, answer = await self.call("POST", f"/chats/{self.chat}/messages/", json=body)
            except (aiohttp.ClientError, asyncio.TimeoutError) as error:
                status, answer = None, repr(error)
            now = time.monotonic()
            if status in (200, 201):
                self.acknowledged[key] = answer["seq"]
                self.gaps.append((now - self.last, self.last))
                self.last = now
                return
            if status != 503 or answer.get("code") != "unavailable":
                self.wrong.append(f"{status} {answer}")
            await asyncio.sleep(0.1)

    async def write(self, until):
        self.last = time.monotonic()
        while not until.is_set():
            await self.send()
            await self.read()
            await asyncio.sleep(PAUSE_S)

    async def read(self):
        """What was just acknowledged must be on the newest page, whichever server it comes from."""
        try:
            status, page = await self.call("GET", f"/chats/{self.chat}/messages/?limit=3")
        except (aiohttp.ClientError, asyncio.TimeoutError):
            return
        key, seq = list(self.acknowledged.items())[-1]
        if status == 200 and {one["seq"]: one["text"] for one in page["results"]}.get(seq) != key:
            self.wrong.append(f"{key} was acknowledged, and is not read: {page}")

    async def listen(self):
        status, opened = await self.call("GET", f"/chats/{self.chat}/connect/", user=1)
        assert status == 200, opened
        async with self.lab.session.ws_connect(opened["ws_url"]) as ws:
            async for frame in ws:
                frame = json.loads(frame.data)
                if frame["type"] == "synced":
                    self.opened.set()
                if frame["type"] == "reset":
                    self.resets.append((time.monotonic(), frame))
                    # Numbers of before mean nothing any more.
                    self.heard.clear()
                if frame["type"] == "message.created":
                    message = frame["message"]
                    self.heard[message["seq"]] = message["text"]
        self.closed += 1

    async def history(self):
        """All messages by pages, by number, and the epoch."""
        messages, after = {}, 0
        while True:
            status, page = await self.call("GET", f"/chats/{self.chat}/messages/?after={after}&limit=100", user=1)
            assert status == 200, page
            for message in page["results"]:
                messages[message["seq"]] = message["text"]
            if not page["has_more_after"]:
                return messages, page["epoch"]
            after = page["after"]


async def drill(lab, name, pairs):
    """Returns what is wrong, and says what was measured."""
    wrong = []
    await lab.until_whole()
    old = await lab.leader()
    await until_read(lab, pairs)
    _, epoch = await pairs[0].history()
    resets = [len(pair.resets) for pair in pairs]
    done, writing = start_writing(lab, pairs)
    await asyncio.sleep(BESIDE_S)
    before = set()
    if name == "asynchronous":
        done.set()
        await asyncio.gather(*writing)
        before = await lose(lab, old, pairs)
        done, writing = start_writing(lab, pairs)
    began = time.monotonic()
    if name == "switchover":
        body = {"leader": old}
        async with lab.session.post(f"http://127.0.0.1:{lab.ports[f'patroni-{old}']}/switchover", json=body,
                                    timeout=aiohttp.ClientTimeout(total=60)) as answer:
            assert answer.status == 200, await answer.text()
    elif name == "postgres":
        lab.kill_postgres(old)
    elif name == "machine":
        await lab.kill_machine(old)

    async def has_changed():
        return await lab.leader() not in (None, old)

    await lab.until(has_changed, CLUSTER_CEILING_S, "nobody took over")
    await lab.until(lambda: all_reset(pairs, resets), CLUSTER_CEILING_S, "sockets were not told")
    moment = time.monotonic()
    await lab.until(lambda: all_wrote(pairs, moment), CLUSTER_CEILING_S, "sends are still refused")
    await asyncio.sleep(BESIDE_S)
    done.set()
    await asyncio.gather(*writing)
    refused = max(gap for pair in pairs for gap, at in pair.gaps if at + gap > began)
    told = max(at for pair in pairs for at, _ in pair.resets[-1:]) - began
    for gate in lab.gates.values():
        await gate.open()
    if f"patroni-{old}" not in lab.children:
        await lab.start_node(old)
    await lab.until_whole()
    lost = 0
    for pair in pairs:
        messages, now = await pair.history()
        if now == epoch:
            wrong.append(f"the epoch is still {epoch}")
        texts = list(messages.values())
        if sorted(messages) != list(range(1, len(messages) + 1)) or len(set(texts)) != len(texts):
            wrong.append("there are holes, or messages twice")
        missing = {key for key, seq in pair.acknowledged.items() if messages.get(seq) != key}
        lost += len(missing)
        if missing - before:
            wrong.append(f"acknowledged and lost: {sorted(missing - before)[:5]}")
        for key in missing:
            del pair.acknowledged[key]
        heard = {seq: text for seq, text in pair.heard.items() if messages.get(seq) != text}
        if heard:
            wrong.append(f"told on a socket, and not there: {heard}")
        if pair.closed:
            wrong.append("a socket was closed")
        wrong += pair.wrong[:3]
    if name == "asynchronous" and not lost:
        wrong.append("nothing was lost, so this run shows nothing")
    if name != "asynchronous" and lost:
        wrong.append(f"{lost} acknowledged messages were lost")
    if refused > REFUSED_CEILING_S[name]:
        wrong.append(f"sends were refused for {refused:.1f} s")
    # The old primary is a standby now, and read from.
    await until_read(lab, pairs)
    total = sum(len(pair.acknowledged) for pair in pairs)
    print(f"failover {name}: no send for {refused:.1f} s at most, sockets told after {told:.1f} s,"
          f" {total} messages acknowledged, {lost} lost", flush=True)
    return [f"failover {name}: {each}" for each in wrong]


async def lose(lab, old, pairs):
    """Has a primary acknowledge what its standby does not get, and die. Returns the keys."""
    await lab.until_copied()
    await lab.gates[old].hold()
    known = {key for pair in pairs for key in pair.acknowledged}
    for pair in pairs:
        for _ in range(LOST):
            await pair.send()
    await lab.kill_machine(old)
    await lab.gates[old].close()
    return {key for pair in pairs for key in pair.acknowledged} - known


async def until_read(lab, pairs):
    """Until a standby answers reads."""
    before = await lab.standby_reads()

    async def is_read():
        await asyncio.gather(*(pair.history() for pair in pairs))
        return await lab.standby_reads() > before

    await lab.until(is_read, CLUSTER_CEILING_S, "no standby is read from")


async def all_reset(pairs, before):
    return all(len(pair.resets) > count for pair, count in zip(pairs, before))


async def all_wrote(pairs, since):
    return all(pair.last > since for pair in pairs)


def start_writing(lab, pairs):
    """Returns what ends it, and the tasks."""
    done = asyncio.Event()
    writing = [asyncio.create_task(pair.write(done)) for pair in pairs]
    lab.tasks += writing
    return done, writing


async def main():
    # However it is ended, its children end with it.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    program, *names = sys.argv[1:]
    wrong = []
    for synchronous, drills in ((True, ("switchover", "postgres", "machine")), (False, ("asynchronous",))):
        chosen = [name for name in drills if not names or name in names]
        if not chosen:
            continue
        async with Cluster(program, synchronous) as lab:
            pairs = [Pair(lab, number) for number in range(PAIRS)]
            await asyncio.gather(*(pair.begin() for pair in pairs))
            for pair in pairs:
                await pair.send()
            for name in chosen:
                wrong += await drill(lab, name, pairs)
    for each in wrong:
        print(each)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
