"""An installation made of processes on this machine, for drills: Postgres, Redis, two replicas, HAProxy
and Prometheus, the last two with the files that we ship.

What needs Docker in those files is exchanged: ports, and the name `beseda`, which a DNS server in here
knows. Each replica has an address of its own and reaches Postgres through a gate that can be closed.
"""

import asyncio
import contextlib
import glob
import os
import pathlib
import pwd
import random
import shutil
import signal
import socket
import struct
import subprocess
import tempfile

import aiohttp
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
SECRET = "drills-only-secret-never-in-production-4c1b"
REPLICAS = ("127.83.0.1", "127.83.0.2")
# Everything starts within seconds; a busy machine takes its time.
START_CEILING_S = 60
# The longest that a part may take to end after SIGTERM; a replica's grace is 10 s here.
STOP_CEILING_S = 20


def free_port(kind=socket.SOCK_STREAM):
    """A port that is free on every address, below those that systems give to clients."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket(socket.AF_INET, kind) as probe, contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port))
            return port


def postgres_folder():
    named = os.environ.get("BESEDA_DEV_POSTGRES")
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(path.split("/")[-2]))
    return pathlib.Path(named or (found[-1] if found else os.path.dirname(shutil.which("postgres") or "")))


class Gate:
    """A port that leads to another one: `open`, `closed` (refuses and cuts) or `held` (passes nothing on)."""

    def __init__(self, port, target):
        self.port, self.target = port, target
        self.server, self.writers = None, set()
        self.flowing = asyncio.Event()

    async def open(self):
        self.flowing.set()
        if not self.server:
            self.server = await asyncio.start_server(self.pass_on, "127.0.0.1", self.port)

    async def close(self):
        if self.server:
            self.server.close()
            self.server = None
        for writer in list(self.writers):
            writer.transport.abort()

    async def hold(self):
        self.flowing.clear()

    async def pass_on(self, reader, writer):
        self.writers.add(writer)
        with contextlib.suppress(OSError):
            there_reader, there = await asyncio.open_connection("127.0.0.1", self.target)
            self.writers.add(there)
            await asyncio.gather(self.copy(reader, there), self.copy(there_reader, writer))
            self.writers.discard(there)
        writer.transport.abort()
        self.writers.discard(writer)

    async def copy(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self.flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


class Names(asyncio.DatagramProtocol):
    """A DNS server that knows one name, with the addresses of the replicas."""

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, query, address):
        end = query.index(b"\0", 12) + 5
        kind = struct.unpack(">H", query[end - 4 : end - 2])[0]
        # Of type A; there are none of others.
        addresses = [socket.inet_aton(address) for address in REPLICAS] if kind == 1 else []
        header = query[:2] + struct.pack(">HHHHH", 0x8580, 1, len(addresses), 0, 0)
        # The name is the question's, the answer good for a second.
        answers = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + each for each in addresses)
        self.transport.sendto(header + query[12:end] + answers, address)


class Lab:
    def __init__(self, program):
        self.program = program
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="beseda-drills-", dir="/var/tmp"))
        # Postgres runs as somebody else, where this is root.
        self.folder.chmod(0o755)
        self.children = {}
        names = ("postgres", "redis", "public", "internal", "clients", "haproxy", "prometheus")
        self.ports = {name: free_port() for name in names}
        self.gates = [Gate(free_port(), self.ports["postgres"]) for _ in REPLICAS]
        self.url = f"http://127.0.0.1:{self.ports['clients']}"
        self.prometheus = f"http://127.0.0.1:{self.ports['prometheus']}"

    async def __aenter__(self):
        loop = asyncio.get_running_loop()
        self.dns_port = free_port(socket.SOCK_DGRAM)
        self.dns, _ = await loop.create_datagram_endpoint(Names, local_addr=("127.0.0.1", self.dns_port))
        self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=25))
        for gate in self.gates:
            await gate.open()
        await self.make_database()
        await self.start_postgres()
        await self.run_once([self.program, "migrate"], env=self.environment(0))
        await self.start_redis()
        await asyncio.gather(*(self.start_replica(number) for number in range(len(REPLICAS))))
        await self.start_haproxy()
        await self.start_prometheus()
        return self

    async def __aexit__(self, *_):
        await self.session.close()
        self.dns.close()
        for name in reversed(list(self.children)):
            await self.stop(name)
        for gate in self.gates:
            await gate.close()
        shutil.rmtree(self.folder)

    def account(self):
        if os.geteuid() != 0:
            return {}
        entry = pwd.getpwnam("postgres")
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    async def run_once(self, command, **options):
        # Beside us: it may need a gate of ours.
        result = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, **options)
        assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"

    async def spawn(self, name, command, ready, **options):
        log = open(self.folder / f"{name}.log", "ab")
        child = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, **options,
        )
        log.close()
        self.children[name] = child
        async with asyncio.timeout(START_CEILING_S):
            while not await ready():
                assert child.poll() is None, f"{name} ended:\n{self.log(name)[-2000:]}"
                await asyncio.sleep(0.1)

    async def stop(self, name, how=signal.SIGTERM):
        child = self.children.pop(name)
        child.send_signal(how)
        try:
            await asyncio.to_thread(child.wait, STOP_CEILING_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")

    async def answers(self, url):
        try:
            async with self.session.get(url) as answer:
                return answer.status < 400
        except aiohttp.ClientError:
            return False

    async def takes_connections(self, port):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return True
        except OSError:
            return False

    async def make_database(self):
        cluster = self.folder / "cluster"
        cluster.mkdir(mode=0o700)
        account = self.account()
        if account:
            os.chown(cluster, account["user"], account["group"])
        command = [postgres_folder() / "initdb", "-D", cluster, "--auth=trust", "--username=beseda"]
        await self.run_once([*command, "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"], cwd="/", **account)

    async def start_postgres(self):
        port = self.ports["postgres"]
        settings = (f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off")
        command = [postgres_folder() / "postgres", "-D", self.folder / "cluster"]
        command += [word for setting in settings for word in ("-c", setting)]
        await self.spawn("postgres", command, lambda: self.takes_connections(port), cwd="/", **self.account())

    async def stop_postgres(self):
        # A fast shutdown: a smart one, SIGTERM, waits for sessions.
        await self.stop("postgres", signal.SIGINT)

    async def start_redis(self):
        port = self.ports["redis"]
        program = os.environ.get("BESEDA_DEV_REDIS") or "redis-server"
        command = [program, "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", self.folder]
        await self.spawn("redis", command, lambda: self.takes_connections(port))

    def environment(self, number):
        database = f"postgresql://beseda@127.0.0.1:{self.gates[number].port}/postgres"
        return {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": database,
            "REDIS_URL": f"redis://127.0.0.1:{self.ports['redis']}",
            "BESEDA_LISTEN": f"{REPLICAS[number]}:{self.ports['public']}",
            "BESEDA_INTERNAL_LISTEN": f"{REPLICAS[number]}:{self.ports['internal']}",
            "BESEDA_JWT_HS256_SECRET": SECRET,
            "BESEDA_PUBLIC_URL": self.url,
            "BESEDA_TRUSTED_PROXIES": "127.0.0.0/8",
            "BESEDA_RATE_LIMITS": "off",
            "BESEDA_SHUTDOWN_GRACE": "10s",
            "BESEDA_DRAIN_DELAY": "5s",
        }

    async def start_replica(self, number):
        ready = f"http://{REPLICAS[number]}:{self.ports['internal']}/readyz"
        await self.spawn(
            f"replica-{number}", [self.program, "serve"], lambda: self.answers(ready), env=self.environment(number)
        )

    async def start_haproxy(self):
        text = (ROOT / "deploy/haproxy.cfg").read_text()
        exchanged = {
            "bind :8080": f"bind 127.0.0.1:{self.ports['clients']}",
            "bind :8404": f"bind 127.0.0.1:{self.ports['haproxy']}",
            "127.0.0.11:53": f"127.0.0.1:{self.dns_port}",
            "beseda:8080": f"beseda:{self.ports['public']}",
            "check port 9090": f"check port {self.ports['internal']}",
        }
        for ours, here in exchanged.items():
            assert ours in text, f"deploy/haproxy.cfg has no `{ours}`"
            text = text.replace(ours, here)
        config = self.folder / "haproxy.cfg"
        config.write_text(text)
        environment = {"PATH": os.environ["PATH"], "HAPROXY_MAXCONN": "500"}
        # The first answers come once the name was looked up and a check has passed.
        ready = lambda: self.answers(f"{self.url}/readyz")  # noqa: E731
        await self.spawn("haproxy", ["haproxy", "-W", "-db", "-f", config], ready, env=environment)

    async def start_prometheus(self):
        settings = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
        settings["rule_files"] = [str(ROOT / "helm/beseda/files/rules/*.yaml"), str(ROOT / "deploy/*-rules.yaml")]
        here = {
            "beseda": [f"{address}:{self.ports['internal']}" for address in REPLICAS],
            "haproxy": [f"127.0.0.1:{self.ports['haproxy']}"],
        }
        for job in settings["scrape_configs"]:
            job.pop("dns_sd_configs", None)
            job["static_configs"] = [{"targets": here.pop(job["job_name"])}]
        assert not here, f"deploy/prometheus.yml does not ask {here}"
        config = self.folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(settings))
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={self.folder / 'tsdb'}"]
        command.append(f"--web.listen-address=127.0.0.1:{self.ports['prometheus']}")
        await self.spawn("prometheus", command, lambda: self.answers(f"{self.prometheus}/-/ready"))
