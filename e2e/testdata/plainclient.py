"""A plain websocket client as a ProxyCommand: standard input and output on a
websocket, binary messages, nothing of Converge. Independent of our code."""

import asyncio
import os
import sys

import websockets


async def main(url):
    async with websockets.connect(url, max_size=None, compression=None) as ws:
        loop = asyncio.get_running_loop()

        async def up():
            while data := await loop.run_in_executor(None, os.read, 0, 65536):
                await ws.send(data)
            await ws.close()

        async def down():
            async for message in ws:
                view = memoryview(message)
                while view:
                    view = view[os.write(1, view):]

        tasks = [asyncio.create_task(up()), asyncio.create_task(down())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    # The read of standard input cannot be cancelled.
    os._exit(0)


asyncio.run(main(sys.argv[1]))
