import asyncio

from imd.client.asyncio import Client


async def main():
    async with Client("ws://127.0.0.1:9000/ws", user_id="echo") as client:
        async for message in client.messages():
            client.reply(message, message.msg)


asyncio.run(main())
