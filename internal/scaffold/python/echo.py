"""The echo plugin of the protocol's page, by which `pentrough plugin check --echo` holds pentrough.py against it."""

import logging
from dataclasses import dataclass, field

import pentrough


@dataclass
class Config:
    limit: int = field(default=0, metadata={"min": 0, "doc": "Nothing depends on it."})


KINDS = {k.kind: k for k in (pentrough.Retryable, pentrough.Permanent, pentrough.Drop, pentrough.Unavailable)}
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}


def handle(message, context):
    asked = {key[5:]: value for key, value in message.metadata.items() if key.startswith("echo.")}
    if asked.get("wait") == "cancel":
        context.wait()
    if "log" in asked:
        logging.getLogger().log(LEVELS[asked["log"]], "%s", message.text, extra={"fields": {"id": message.id}})
    if "print" in asked:
        print(asked["print"], flush=True)
    if "error" in asked:
        after = asked.get("retry_after_ms")
        raise KINDS[asked["error"]](message.text, int(after) / 1000 if after else None)
    payload = b"x" * int(asked["size"]) if "size" in asked else message.payload
    return [pentrough.Message(payload, message.metadata, to=asked.get("to", ""))] * int(asked.get("copies", 1))


if __name__ == "__main__":
    pentrough.serve(handle, name="echo", version="1.0.0", config=Config, window=8)
