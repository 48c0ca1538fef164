"""Two nodes of Postgres under Patroni, etcd, Redis and two replicas, as processes on this machine."""

import asyncio
import os
import pathlib
import shutil
import signal

import aiohttp
import yaml

from lab import SECRET, Gate, Lab, free_port, postgres_folder

NODES = ("one", "two")
REPLICAS = 2
# Until Patroni has made two nodes out of nothing, or has a node back in its place: copies, rewinds.
CLUSTER_CEILING_S = 90
# Documented minima; `primary_start_timeout: 0` fails over at once in place of a restart.
TIMES = {"ttl": 20, "loop_wait": 2, "retry_timeout": 3, "primary_start_timeout": 0}


class Cluster(Lab):
    """Two nodes, of which Patroni makes a primary and a standby, and two replicas that know both."""

    def __init__(self, program, synchronous):
        super().__init__(program)
        self.synchronous = synchronous
        # Of those who write and listen.
        self.tasks = []
        names = [f"{kind}-{node}" for kind in ("postgres", "patroni") for node in NODES]
        names += [f"{kind}-{number}" for kind in ("public", "internal") for number in range(REPLICAS)]
        self.ports |= {name: free_port() for name in (*names, "etcd", "etcd-peers")}
        # Standbys reach primaries through these, clients do not.
        self.gates = {node: Gate(free_port(), self.ports[f"postgres-{node}"]) for node in NODES}

    async def __aenter__(self):
        self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
        for gate in self.gates.values():
            await gate.open()
        try:
            await self.start_all()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_):
        for task in self.tasks:
            task.cancel()
        await self.session.close()
        # Before etcd, since without it Patroni waits. Ended by Patroni, Postgres goes in order.
        for name in [name for name in self.children if name.startswith("patroni")]:
            await self.stop(name)
        for node in NODES:
            self.kill_postgres(node)
        for name in reversed(list(self.children)):
            await self.stop(name)
        for gate in self.gates.values():
            await gate.close()
        shutil.rmtree(self.folder)

    async def start_all(self):
        await self.start_etcd()
        for node in NODES:
            await self.start_node(node)
            await self.until(lambda: self.has_leader(), CLUSTER_CEILING_S, "no leader")
        await self.until_whole()
        # Replicas need no more than this.
        await self.sql(
            "CREATE ROLE service LOGIN IN ROLE pg_read_all_data, pg_write_all_data",
        )
        await self.run_once([self.program, "migrate"], env=self.environment(0) | {"DATABASE_URL": self.database("beseda")})
        await self.start_redis()
        for number in range(REPLICAS):
            await self.start_replica(number)

    async def start_etcd(self):
        client, peers = (f"http://127.0.0.1:{self.ports[name]}" for name in ("etcd", "etcd-peers"))
        command = ["etcd", "--data-dir", self.folder / "etcd", "--listen-client-urls", client]
        command += ["--advertise-client-urls", client, "--listen-peer-urls", peers]
        command += ["--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}"]
        command += ["--unsafe-no-fsync"]
        await self.spawn("etcd", command, lambda: self.answers(f"{client}/health"))

    def settings(self, node):
        postgres, rest = self.ports[f"postgres-{node}"], self.ports[f"patroni-{node}"]
        local = "127.0.0.1/32"
        bootstrap = {
            "dcs": TIMES
            | {
                "synchronous_mode": self.synchronous,
                # What a standby may lack, in bytes, and still be promoted.
                "maximum_lag_on_failover": 1_048_576,
                "postgresql": {"use_pg_rewind": True, "parameters": {"wal_log_hints": "on"}},
            },
            "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "no-sync"],
        }
        return {
            "scope": "drill",
            "name": node,
            "restapi": {"listen": f"127.0.0.1:{rest}", "connect_address": f"127.0.0.1:{rest}"},
            "etcd3": {"host": f"127.0.0.1:{self.ports['etcd']}"},
            "bootstrap": bootstrap,
            "postgresql": {
                "listen": f"127.0.0.1:{postgres}",
                "connect_address": f"127.0.0.1:{self.gates[node].port}",
                "data_dir": str(self.folder / f"node-{node}" / "data"),
                "bin_dir": str(postgres_folder()),
                "pgpass": str(self.folder / f"node-{node}" / "pgpass"),
                "authentication": {
                    "superuser": {"username": "beseda", "password": "drill"},
                    "replication": {"username": "replicator", "password": "drill"},
                },
                "pg_hba": [f"host all all {local} trust", f"host replication all {local} trust"],
                "parameters": {"unix_socket_directories": "", "fsync": "off"},
                "basebackup": [{"checkpoint": "fast"}, "no-sync"],
            },
        }

    async def start_node(self, node):
        folder = self.folder / f"node-{node}"
        if not folder.exists():
            folder.mkdir(mode=0o700)
            account = self.account()
            if account:
                os.chown(folder, account["user"], account["group"])
        config = self.folder / f"{node}.yml"
        config.write_text(yaml.safe_dump(self.settings(node)))
        config.chmod(0o644)
        alive = lambda: self.answers(f"http://127.0.0.1:{self.ports[f'patroni-{node}']}/liveness")  # noqa: E731
        # PGHOST and the like would lead elsewhere.
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8"}
        await self.spawn(f"patroni-{node}", ["patroni", config], alive, cwd="/", env=environment, **self.account())

    def kill_postgres(self, node):
        """As a crash of the whole server, which nothing announces."""
        data = self.folder / f"node-{node}" / "data"
        try:
            postmaster = int((data / "postmaster.pid").read_text().split("\n")[0])
            process = pathlib.Path(f"/proc/{postmaster}")
            # A file that a killed one has left may hold the id of another program by now.
            if str(data) not in (process / "cmdline").read_text():
                return
            children = (process / f"task/{postmaster}/children").read_text().split()
        except FileNotFoundError:
            return
        for pid in (postmaster, *map(int, children)):
            os.kill(pid, signal.SIGKILL)

    async def kill_machine(self, node):
        """Patroni and Postgres at once, so that nobody gives the leader's key back."""
        child = self.children.pop(f"patroni-{node}")
        child.kill()
        self.kill_postgres(node)
        child.wait()

    async def members(self):
        for node in NODES:
            try:
                async with self.session.get(f"http://127.0.0.1:{self.ports[f'patroni-{node}']}/cluster") as answer:
                    return (await answer.json())["members"]
            except aiohttp.ClientError:
                pass
        return []

    async def leader(self):
        return next((one["name"] for one in await self.members() if one["role"] == "leader"), None)

    async def has_leader(self):
        return await self.leader() is not None

    async def until_whole(self):
        """Until both nodes are there, and where so set the standby is a synchronous one."""
        wanted = "sync_standby" if self.synchronous else "replica"

        async def is_whole():
            roles = {(one["role"], one["state"]) for one in await self.members()}
            # Patroni says "running" before the standby has connected, in later versions "streaming" after.
            expected = [{("leader", "running"), (wanted, state)} for state in ("running", "streaming")]
            streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
            return roles in expected and await self.sql(streaming) == "1"

        await self.until(is_whole, CLUSTER_CEILING_S, "the cluster is not whole")

    async def until_copied(self):
        """Until the standby has all that the primary has, while nobody writes."""

        async def is_copied():
            return await self.sql("SELECT replay_lsn = pg_current_wal_lsn() FROM pg_stat_replication") == "t"

        await self.until(is_copied, CLUSTER_CEILING_S, "the standby lags")

    async def until(self, holds, ceiling_s, what):
        try:
            async with asyncio.timeout(ceiling_s):
                while not await holds():
                    await asyncio.sleep(0.1)
        except TimeoutError:
            logs = "\n".join(self.log(f"patroni-{node}")[-3000:] for node in NODES if f"patroni-{node}" in self.children)
            raise AssertionError(f"{what}: {await self.members()}\n{logs}") from None

    async def sql(self, statement):
        command = [postgres_folder() / "psql", self.database("beseda"), "-X", "-A", "-t", "-c", statement]
        child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        out, _ = await child.communicate()
        assert child.returncode == 0, statement
        return out.decode().strip()

    def database(self, role):
        hosts = ",".join(f"127.0.0.1:{self.ports[f'postgres-{node}']}" for node in NODES)
        return f"postgresql://{role}@{hosts}/postgres?target_session_attrs=read-write"

    def environment(self, number):
        standbys = " ".join(f"postgresql://service@127.0.0.1:{self.ports[f'postgres-{node}']}/postgres" for node in NODES)
        return {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": self.database("service"),
            "DATABASE_REPLICA_URLS": standbys,
            "REDIS_URL": f"redis://127.0.0.1:{self.ports['redis']}",
            "BESEDA_LISTEN": f"127.0.0.1:{self.ports[f'public-{number}']}",
            "BESEDA_INTERNAL_LISTEN": f"127.0.0.1:{self.ports[f'internal-{number}']}",
            "BESEDA_JWT_HS256_SECRET": SECRET,
            "BESEDA_RATE_LIMITS": "off",
        }

    async def start_replica(self, number):
        ready = lambda: self.answers(f"http://127.0.0.1:{self.ports[f'internal-{number}']}/readyz")  # noqa: E731
        await self.spawn(f"replica-{number}", [self.program, "serve"], ready, env=self.environment(number))

    async def standby_reads(self):
        count = 0
        for number in range(REPLICAS):
            async with self.session.get(f"http://127.0.0.1:{self.ports[f'internal-{number}']}/metrics") as answer:
                lines = (await answer.text()).splitlines()
            name = 'beseda_standby_reads_total{outcome="read"} '
            count += sum(int(line.removeprefix(name)) for line in lines if line.startswith(name))
        return count
