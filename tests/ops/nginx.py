"""The recipe for nginx in docs/run/operations.md, in a real nginx: it is read, passes requests on, and writes
no ticket into its logs, whether a replica answers, refuses the socket or is not there."""

import asyncio
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

from lab import ROOT, free_port

TICKET = "eyJ0aWNrZXQiOiJzZWNyZXQifQ"
# nginx starts in milliseconds.
START_CEILING_S = 20


async def main():
    text = (ROOT / "docs/run/operations.md").read_text()
    recipe = re.search(r"```nginx\n(.*?)```", text, re.DOTALL).group(1)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="beseda-nginx-", dir="/var/tmp"))
    port, replica = free_port(), free_port()
    answers = {"/ws/": "404 Not Found", "/ws/chat/a/": "503 Service Unavailable"}

    async def answer(reader, writer):
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode().partition("?")[0]
        writer.write(f"HTTP/1.1 {answers[path]}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", replica)
    exchanged = {
        "server 10.0.0.1:8080": f"server 127.0.0.1:{replica}",
        "server 10.0.0.2:8080": f"server 127.0.0.1:{free_port()}",
        "/var/log/nginx": str(folder),
        "    location / {": f"    listen 127.0.0.1:{port};\n    location / {{",
    }
    for ours, here in exchanged.items():
        assert ours in recipe, f"the recipe has no `{ours}`"
        recipe = recipe.replace(ours, here)
    config = folder / "nginx.conf"
    frame = f"daemon off; pid {folder}/pid; error_log {folder}/start.log; events {{}} http {{\naccess_log off;\n{recipe}\n}}\n"
    config.write_text(frame)
    nginx = subprocess.Popen(["nginx", "-c", config], stdin=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(START_CEILING_S):
            while await asyncio.to_thread(status, f"{url}/ws/") != 404:
                assert nginx.poll() is None, (folder / "start.log").read_text()
                await asyncio.sleep(0.05)
        seen = [await asyncio.to_thread(status, f"{url}{path}?ticket={TICKET}") for path in answers]
        server.close()
        await server.wait_closed()
        # Nobody is there: nginx has to say so, in its own words.
        seen.append(await asyncio.to_thread(status, f"{url}/ws/?ticket={TICKET}"))
    finally:
        nginx.terminate()
        nginx.wait()
    logs = {path.name: path.read_text() for path in folder.glob("*.log")}
    assert seen[0] == 404 and seen[1] in (502, 503) and seen[2] == 502, seen
    lines = logs["beseda.log"].splitlines()
    assert len(lines) >= 4 and '"GET /ws/chat/a/"' in logs["beseda.log"], f"what is logged: {lines}"
    for name, log in logs.items():
        assert "ticket" not in log and TICKET not in log, f"{name} has a ticket: {log}"
    shutil.rmtree(folder)
    print("nginx: the recipe works, and logs no tickets")


def status(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


sys.exit(asyncio.run(main()))
