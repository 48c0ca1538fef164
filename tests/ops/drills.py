"""Fire drills: each part of an installation is stopped, and the alert that must fire is named, with its
time. Meanwhile clients come through the balancer: what they are answered has to be the service's.

    drills.py PROGRAM              all of them, some ten minutes; PROGRAM is a `beseda`
    drills.py PROGRAM NAME ...     some: postgres, postgres-hangs, one-replica, redis, replica, replicas, haproxy
"""

import asyncio
import json
import re
import signal
import sys
import time

import aiohttp

from lab import Lab, SECRET
from traffic import token

# How long a call may take through an outage: HAProxy's `timeout server` and connecting before.
CALL_CEILING_S = 25
PAUSE_S = 0.2
# From the repair until the alert is gone: ranges of a minute, one of evaluation, one of scraping.
RECOVERY_CEILING_S = 120
# These measure minutes and hours: an outage's errors stay in them, and nobody has to wait for that.
OBJECTIVES = {f"Beseda{of}{how}" for of in ("SendErrors", "ReadErrors", "DeliverySlow") for how in ("Fast", "Slow")}


class Clients:
    """Somebody who writes and reads all the time, and somebody who listens on a socket."""

    def __init__(self, lab):
        self.lab = lab
        self.answers, self.wrong, self.tickets = [], [], []
        self.socket_ended, self.opened = 0, asyncio.Event()

    def headers(self, user):
        return {"Authorization": f"Bearer {token(user, SECRET)}"}

    async def call(self, method, path, user, **options):
        return await self.lab.session.request(
            method, f"{self.lab.url}/api/v1{path}", headers=self.headers(user),
            timeout=aiohttp.ClientTimeout(total=CALL_CEILING_S), **options,
        )

    async def begin(self):
        async with await self.call("POST", "/chats/", "ann", json={"user_id": "ben"}) as answer:
            assert answer.status == 201, await answer.text()
            self.chat = (await answer.json())["chat_id"]
        calls = (("GET", "/chats/unread/", {}), ("POST", f"/chats/{self.chat}/messages/", {"json": {"text": "hi"}}))
        self.tasks = [asyncio.create_task(self.repeat(*call)) for call in calls]
        self.tasks.append(asyncio.create_task(self.listen()))
        await asyncio.wait_for(self.opened.wait(), CALL_CEILING_S)

    async def end(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def repeat(self, method, path, options):
        while True:
            try:
                async with await self.call(method, path, "ann", **options) as answer:
                    self.note(answer.status, answer.headers, await answer.text())
            except (aiohttp.ClientError, asyncio.TimeoutError) as error:
                self.answers.append((time.monotonic(), None, type(error).__name__))
            await asyncio.sleep(PAUSE_S)

    def note(self, status, headers, text):
        detail = ""
        if status >= 400:
            try:
                problem = json.loads(text)
                detail = problem["detail"]
                assert headers["Content-Type"] == "application/problem+json"
                assert problem["status"] == status and problem["request_id"] == headers["X-Request-Id"]
                assert problem["type"] == f"urn:beseda:error:{problem['code']}"
                assert status != 503 or problem["retry_after_ms"] == 1000 * int(headers["Retry-After"])
            except (AssertionError, KeyError, ValueError):
                self.wrong.append(f"{status} {dict(headers)} {text[:300]}")
        self.answers.append((time.monotonic(), status, detail))

    async def listen(self):
        """With a ticket, as browsers do: it must not be found in the balancer's log."""
        while True:
            try:
                async with await self.call("POST", "/connect/", "ben") as answer:
                    url = (await answer.json()).get("ws_url", "")
                self.tickets.append(url.partition("ticket=")[2])
                async with self.lab.session.ws_connect(url.replace("http", "ws", 1)) as open_socket:
                    self.opened.set()
                    async for _ in open_socket:
                        pass
                self.socket_ended += 1
            except (aiohttp.ClientError, asyncio.TimeoutError, ValueError):
                pass
            await asyncio.sleep(1)

    def since(self, moment):
        return [(status, detail) for at, status, detail in self.answers if at > moment]


class Alerts:
    """What fires now, and since when, by this process's clock."""

    def __init__(self, lab):
        self.lab, self.firing = lab, {}

    async def look(self):
        async with self.lab.session.get(f"{self.lab.prometheus}/api/v1/alerts") as answer:
            alerts = (await answer.json())["data"]["alerts"]
        names = {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}
        for name in names - set(self.firing):
            self.firing[name] = time.monotonic()
        for name in set(self.firing) - names:
            del self.firing[name]

    async def until(self, holds, ceiling_s):
        deadline = time.monotonic() + ceiling_s
        while True:
            await self.look()
            if holds(self.firing):
                return True
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.5)


class Drill:
    """One part: how it breaks and is mended, the alert, its ceiling in seconds, what else may fire."""

    def __init__(self, name, alert, ceiling_s, harm, mend, others=(), details=None, served=False, sockets=False):
        self.name, self.alert, self.ceiling_s = name, alert, ceiling_s
        self.harm, self.mend, self.others = harm, mend, set(others)
        # Of the errors that clients get; `served`: they get none; `sockets`: those open stay so.
        self.details, self.served, self.sockets = details, served, sockets


OF_A_REPLICA = {"A part of the service is away; retry.", "This took too long; retry."}


def drills(lab):
    async def each_gate(action):
        for gate in lab.gates:
            await getattr(gate, action)()

    async def stop_postgres():
        # A port that refuses, as without the gates.
        await each_gate("close")
        await lab.stop_postgres()

    async def start_postgres():
        await lab.start_postgres()
        await each_gate("open")

    async def kill_replicas():
        for number in range(len(lab.gates)):
            await lab.stop(f"replica-{number}", signal.SIGKILL)

    async def start_replicas():
        await asyncio.gather(*(lab.start_replica(number) for number in range(len(lab.gates))))

    return [
        Drill("postgres", "BesedaPostgresDown", 60, stop_postgres, start_postgres,
              others=["BesedaBalancerErrors"], details=OF_A_REPLICA, sockets=True),
        Drill("postgres-hangs", "BesedaPostgresDown", 60, lambda: each_gate("hold"), lambda: each_gate("open"),
              others=["BesedaBalancerErrors"], details=OF_A_REPLICA, sockets=True),
        # Scrapes, evaluation and the rule's own minute.
        Drill("one-replica", "BesedaReplicaNotReady", 90, lab.gates[1].close, lab.gates[1].open),
        # The rules' two minutes, with an evaluation before and after.
        Drill("redis", "BesedaRedisDown", 165, lambda: lab.stop("redis"), lab.start_redis, served=True, sockets=True),
        Drill("replica", "BesedaDown", 165, lambda: lab.stop("replica-1", signal.SIGKILL),
              lambda: lab.start_replica(1)),
        Drill("replicas", "BesedaBalancerErrors", 60, kill_replicas, start_replicas,
              details={"No replica answers; retry.", "The answer was lost half-way; retry."}),
        Drill("haproxy", "BesedaBalancerDown", 60, lambda: lab.stop("haproxy", signal.SIGKILL), lab.start_haproxy),
    ]


async def run(drill, lab, clients, alerts):
    """Returns what is wrong, and says how long the alert took."""
    wrong = []
    await alerts.until(lambda firing: not set(firing) - OBJECTIVES, RECOVERY_CEILING_S)
    if early := set(alerts.firing) - OBJECTIVES:
        wrong.append(f"{', '.join(sorted(early))} fires before anything has happened")
    ended = clients.socket_ended
    began = time.monotonic()
    await drill.harm()
    harmed = time.monotonic()
    fired = await alerts.until(lambda firing: drill.alert in firing, drill.ceiling_s)
    seconds = alerts.firing.get(drill.alert, time.monotonic()) - began
    others = set(alerts.firing) - OBJECTIVES - {drill.alert} - drill.others
    errors = [answer for answer in clients.since(harmed) if answer[0] is None or answer[0] >= 400]
    answered = len(clients.since(harmed))
    await drill.mend()
    print(f"drill {drill.name}: {drill.alert} after {seconds:.0f} s, {answered} calls, {len(errors)} errors", flush=True)
    if not fired:
        wrong.append(f"{drill.alert} did not fire within {drill.ceiling_s} s; firing: {sorted(alerts.firing)}")
    if others:
        wrong.append(f"{', '.join(sorted(others))} fired as well")
    if drill.details is not None:
        foreign = {answer for answer in errors if answer[1] not in drill.details}
        if foreign or not errors:
            wrong.append(f"clients did not get the answers they should: {foreign or 'no errors at all'}")
    if drill.served and errors:
        wrong.append(f"clients got errors: {set(errors)}")
    if drill.sockets and clients.socket_ended != ended:
        wrong.append("the open socket was closed")
    if not await alerts.until(lambda firing: drill.alert not in firing, RECOVERY_CEILING_S):
        wrong.append(f"{drill.alert} still fires {RECOVERY_CEILING_S} s after the repair")
    return [f"drill {drill.name}: {each}" for each in wrong]


async def main():
    # However it is ended, its children end with it.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    program, *names = sys.argv[1:]
    wrong = []
    async with Lab(program) as lab:
        chosen = [drill for drill in drills(lab) if not names or drill.name in names]
        assert chosen and len(chosen) >= len(names), f"no such drill among {names}"
        clients, alerts = Clients(lab), Alerts(lab)
        await clients.begin()
        try:
            for drill in chosen:
                wrong += await run(drill, lab, clients, alerts)
        finally:
            await clients.end()
        wrong += [f"not an answer of ours: {each}" for each in clients.wrong[:5]]
        log = lab.log("haproxy")
        tickets = [ticket for ticket in clients.tickets if len(ticket) > 20]
        if not tickets or "/ws/" not in log:
            wrong.append(f"no socket was opened with a ticket ({len(tickets)} tickets)")
        if any(ticket in log for ticket in tickets) or re.search("ticket=", log):
            wrong.append("tickets are in the balancer's log")
        for each in wrong:
            print(each)
        if wrong:
            for name in ("haproxy", "replica-0", "replica-1"):
                print(f"--- {name}\n{lab.log(name)[-1500:]}")
    return 1 if wrong else 0


sys.exit(asyncio.run(main()))
