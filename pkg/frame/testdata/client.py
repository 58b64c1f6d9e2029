"""An independent websocket client: sends messages of many shapes to an echo."""
import asyncio
import os
import sys

import websockets


async def main(url):
    messages = [os.urandom(n) for n in [1, 125, 126, 65535, 65536, 1_000_000, 0, 3]]
    fragments = [os.urandom(n) for n in [10, 0, 70_000, 1]]
    want = b"".join(messages + fragments)

    async with websockets.connect(url, max_size=None, ping_interval=None) as ws:

        async def fragmented():
            for part in fragments:
                yield part
                await (await ws.ping())

        async def send():
            for message in messages:
                await ws.send(message)
            await ws.send(fragmented())

        sender = asyncio.create_task(send())
        got = b""
        while len(got) < len(want):
            got += await ws.recv()
        await sender
        assert got == want, "the echo differs"
        await ws.close(4001, "done")
        assert ws.close_code == 1000, ws.close_code


asyncio.run(asyncio.wait_for(main(sys.argv[1]), 100))
