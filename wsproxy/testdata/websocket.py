"""A websocket server that knows nothing of Converge.

It prints its port and runs until its standard input ends. /text sends a text
message first; every path sends what comes back.
"""

import asyncio
import sys

import websockets


async def serve(websocket, path):
    if path == "/text":
        await websocket.send("text")
    try:
        async for message in websocket:
            await websocket.send(message)
    except websockets.ConnectionClosed:
        pass


async def main():
    loop = asyncio.get_running_loop()
    async with websockets.serve(serve, "127.0.0.1", 0, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await loop.run_in_executor(None, sys.stdin.read)


asyncio.run(main())
