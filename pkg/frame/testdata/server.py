"""An independent websocket server: prints its port, echoes, reports the end."""
import asyncio

import websockets


async def main():
    ended = asyncio.get_running_loop().create_future()

    async def echo(ws):
        try:
            async for message in ws:
                assert isinstance(message, bytes)
                await ws.send(message)
        finally:
            ended.set_result((ws.close_code, ws.close_reason))

    async with websockets.serve(echo, "127.0.0.1", 0, max_size=None, ping_interval=0.01) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        code, reason = await ended
        print(code, reason, flush=True)


asyncio.run(asyncio.wait_for(main(), 100))
