"""Answers visitors, as an agent of the desk."""

import asyncio

from imd.client.asyncio import Client

ANSWERS = {
    "open": "We are open from nine to five.",
    "price": "All prices are on the price list.",
}
OTHERWISE = "Somebody will write to you soon."


async def main():
    async with Client("ws://127.0.0.1:9000/ws", user_id="faq", customer_service=True) as client:
        async for message in client.messages():
            words = message.msg.lower()
            answers = [answer for word, answer in ANSWERS.items() if word in words]
            client.reply(message, " ".join(answers) or OTHERWISE)


asyncio.run(main())
