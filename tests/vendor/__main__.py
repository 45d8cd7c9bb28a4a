"""`python -m tests.vendor [--key KEY] [--port PORT]`: the vendor as a process, told what to say over HTTP.

It prints one line of JSON when it serves: `{"url": …, "key": …, "control": …}`; it ends with its standard
input. At `control`, `POST /_script` takes a list of turns, `GET /_requests` answers what was received. With
nothing scripted it says what the user said.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import sys

from aiohttp import web

from tests.vendor.script import Turn
from tests.vendor.server import Vendor


async def serve(key: str | None, port: int) -> None:
    """Serve until standard input ends."""
    vendor = Vendor(key)
    control = web.Application()
    await vendor.start(port)

    async def script(request: web.Request) -> web.Response:
        vendor.script(*(Turn.from_json(each) for each in await request.json()))
        return web.Response()

    async def requests(request: web.Request) -> web.Response:
        return web.json_response([dataclasses.asdict(each) for each in vendor.requests])

    control.router.add_post("/_script", script)
    control.router.add_get("/_requests", requests)
    runner = web.AppRunner(control, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    told = {
        "url": vendor.url,
        "key": vendor.key,
        "control": f"http://127.0.0.1:{runner.addresses[0][1]}",
    }
    print(json.dumps(told), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()
    await vendor.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--key")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.key, arguments.port))
