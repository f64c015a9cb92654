"""Handlers of Pentrough in Python: one file, nothing but the standard library, Python 3.9 or later.

    import pentrough

    def handle(message, context):
        return message.text.upper()

    if __name__ == "__main__":
        pentrough.serve(handle, name="shout")

The host starts the program and speaks with it over standard input and output, as the protocol of process plugins says
(docs/process-protocol.md of Pentrough). `print` is safe: while `serve` runs it goes to standard error, and so to the host's log.

A handler returns what the message becomes: nothing, a Message, bytes, a str, or several of these. It raises Permanent, Drop,
Unavailable or Retryable to say what is to become of a message that it can't handle; any other exception is retryable, and its
traceback is in the host's log. The module `logging` writes to the host's log.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
import typing
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Mapping, NoReturn, Optional, Union

VERSION = 1
START_MAX_LINE = 1 << 20
LARGEST_ID = 2**53 - 1


class Retryable(Exception):
    """The message may work later. `retry_after` is how many seconds nothing is gained by another try."""

    kind = "retryable"

    def __init__(self, text: str, retry_after: Optional[float] = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class Permanent(Retryable):
    """The message will never work: it goes to poison."""

    kind = "permanent"


class Drop(Retryable):
    """The message needs nothing: it is done with, on purpose."""

    kind = "drop"


class Unavailable(Retryable):
    """Something that every message needs doesn't work: the pipeline waits, and tries this message again until it does."""

    kind = "unavailable"


class ConfigError(ValueError):
    """A problem with the config: the dotted key ("" for the whole) and what is wrong with it."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(f"{key} {text}".strip())
        self.problems = [(key, text)]


@dataclass
class Message:
    """What comes, and what is produced. Produced ones need no id; `to` is a topic instead of the pipeline's."""

    payload: bytes = b""
    metadata: dict[str, str] = field(default_factory=dict)
    id: str = ""
    to: str = ""

    @property
    def text(self) -> str:
        """The payload as UTF-8; what isn't is a permanent error."""
        try:
            return self.payload.decode()
        except UnicodeDecodeError as e:
            raise Permanent(f"the payload isn't UTF-8: {e}") from e

    def json(self) -> Any:
        """The payload as JSON; what isn't is a permanent error."""
        try:
            return json.loads(self.payload)
        except ValueError as e:
            raise Permanent(f"the payload isn't JSON: {e}") from e


class Context:
    """What a handler knows beside the message."""

    def __init__(self, config: Any, pipeline: str, host: str, seconds: float) -> None:
        self.config = config
        self.pipeline = pipeline
        self.host = host
        self._end = time.monotonic() + seconds
        self._cancelled = threading.Event()

    @property
    def remaining(self) -> float:
        """Seconds that are left; 0 when the time is over or nobody waits any more."""
        return 0.0 if self._cancelled.is_set() else max(0.0, self._end - time.monotonic())

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits any more."""
        return self.remaining == 0

    def wait(self, seconds: float = float("inf")) -> bool:
        """Sleeps, but no longer than somebody waits; returns whether nobody does."""
        self._cancelled.wait(min(seconds, self.remaining))
        return self.cancelled


Produced = Union[None, Message, bytes, str, Iterable[Union[Message, bytes, str]]]
Handler = Callable[[Message, Context], Produced]


def serve(handle: Handler, *, name: str, version: str = "", config: Optional[type] = None, window: int = 1) -> NoReturn:
    """Handles the messages of the host at standard input and output until it has enough, and ends the program.

    `config` is a dataclass: its fields are what the host's file may say, with their types and defaults; a field's metadata may have
    "doc", "min" and "max", and `__post_init__` may raise ConfigError. `window` is how many messages are handled at a time, each in a
    thread of its own.
    """
    if "PENTROUGH_PLUGIN" not in os.environ and sys.stdin.isatty():
        print(f"This is the handler {name!r} as a plugin of Pentrough, which speaks with a host and not with people.", file=sys.stderr)
        sys.exit(2)
    session = _Session(handle, name, version, config, window)
    try:
        status = session.run()
    except _Broken as e:
        print(f"{name}: {e}", file=sys.stderr)
        status = 1
    except BrokenPipeError:
        status = 0
    sys.stderr.flush()
    os._exit(status)  # threads that still run don't matter any more


class _Broken(Exception):
    """The host did what is none of the protocol."""


class _Session:
    def __init__(self, handle: Handler, name: str, version: str, config: Optional[type], window: int) -> None:
        self.handle, self.name, self.version, self.config_type, self.window = handle, name, version, config, window
        self.config: Any = None
        self.hello: dict[str, Any] = {}
        self.most = START_MAX_LINE
        self.writing = threading.Lock()
        self.running: dict[int, Context] = {}
        self.lock = threading.Condition()
        self.todo: queue.SimpleQueue[tuple[int, Message, Context]] = queue.SimpleQueue()
        # The protocol has the standard files for itself; whoever prints writes to standard error.
        self.input = os.fdopen(os.dup(0), "rb", buffering=1 << 16)
        self.output = os.dup(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        # The host says when it is enough. Unlike ignored signals, these come back for programs that are started from here.
        for s in (signal.SIGINT, signal.SIGTERM):
            signal.signal(s, lambda *_: None)

    def run(self) -> int:
        if not self.greet():
            return 0
        for _ in range(self.window):
            threading.Thread(target=self.work, daemon=True).start()
        draining = False
        while True:
            line = self.read()
            if line is None:
                return 0
            kind = line["type"]
            if kind == "request":
                if draining:
                    raise _Broken("a request after drain")
                self.request(line)
            elif kind == "cancel":
                with self.lock:
                    context = self.running.get(_id(line))
                if context is not None:
                    context._cancelled.set()
            elif kind == "ping":
                self.say({"type": "pong", "id": _id(line)})
            elif kind == "drain":
                draining = True
                threading.Thread(target=self.drain, daemon=True).start()
            elif kind == "hello":
                raise _Broken("a second hello")

    def greet(self) -> bool:
        line = self.read()
        if line is None:
            return False
        if line["type"] != "hello":
            raise _Broken(f"a {line['type']!r} comes first, where the host's hello was waited for")
        self.hello = line
        if VERSION not in line.get("versions", []):
            spoken = ", ".join(str(v) for v in line.get("versions", []))
            self.say({"type": "refuse", "text": f"this is {self.name} {self.version}, which speaks version {VERSION} of the protocol; the host speaks {spoken}"})
            return False
        hello = {"type": "hello", "version": VERSION, "name": self.name, "features": ["cancel", "drain"], "window": self.window, "schema": _schema(self.config_type)}
        if self.version:
            hello["plugin_version"] = self.version
        self.say(hello)
        self.most = line.get("max_line", START_MAX_LINE)
        level = {"debug": logging.DEBUG, "warn": logging.WARNING, "error": logging.ERROR}.get(line.get("log_level", "debug"), logging.INFO)
        logging.basicConfig(handlers=[_Log(self)], level=level, force=True)
        try:
            self.config = _settings(self.config_type, line.get("config", {}))
        except ConfigError as e:
            self.say({"type": "refuse", "problems": [{"key": key, "text": text} for key, text in e.problems]})
            return False
        self.say({"type": "ready"})
        return True

    def read(self) -> Optional[dict[str, Any]]:
        """The next line, None at the end."""
        while True:
            text = self.input.readline(self.most + 2)
            if not text.endswith(b"\n"):
                if len(text) > self.most:
                    raise _Broken(f"a line of more than {self.most} bytes")
                return None
            if len(text) - 1 > self.most:
                raise _Broken(f"a line of more than {self.most} bytes")
            if not text.strip(b" \t\r\n"):
                continue
            try:
                line = json.loads(text.decode(), parse_constant=_no_constant)
            except (ValueError, RecursionError) as e:
                raise _Broken(f"a line that isn't JSON: {e}") from e
            if not isinstance(line, dict) or not isinstance(line.get("type"), str):
                raise _Broken("a line that isn't an object with a type")
            return line

    def say(self, line: Mapping[str, Any]) -> None:
        self.write(_encode(line))

    def write(self, text: bytes, answered: Optional[int] = None) -> None:
        with self.writing:
            if answered is not None:
                with self.lock:
                    del self.running[answered]
                    self.lock.notify_all()
            while text:
                text = text[os.write(self.output, text) :]

    def request(self, line: Mapping[str, Any]) -> None:
        id_ = _id(line)
        remaining = line.get("remaining_ms")
        if not isinstance(remaining, int):
            raise _Broken(f"request {id_}: its remaining_ms is {remaining!r}")
        message = _message(line.get("message"), id_)
        context = Context(self.config, self.hello.get("pipeline", ""), self.hello.get("host", {}).get("name", ""), remaining / 1000)
        with self.lock:
            if id_ in self.running:
                raise _Broken(f"a second request with the id {id_}")
            self.running[id_] = context
        self.todo.put((id_, message, context))

    def work(self) -> None:
        """Handles one message after the other."""
        while True:
            id_, message, context = self.todo.get()
            text = self.respond(id_, message, context)
            try:
                self.write(text, answered=id_)
            except OSError:
                return  # nobody is there any more

    def respond(self, id_: int, message: Message, context: Context) -> bytes:
        try:
            text = _encode({"type": "response", "id": id_, "messages": [_line(m) for m in _list(self.handle(message, context))]})
            if len(text) - 1 <= self.most:
                return text
            error = {"kind": "permanent", "text": f"the response is a line of {len(text) - 1} bytes, and the host takes {self.most}"}
        except Retryable as e:
            error = {"kind": e.kind, "text": str(e)}
            if e.retry_after is not None and e.retry_after > 0:
                error["retry_after_ms"] = max(1, int(e.retry_after * 1000))
        except BaseException as e:
            logging.getLogger(__name__).error("%s while handling a message\n%s", type(e).__name__, traceback.format_exc())
            error = {"kind": "retryable", "text": f"{type(e).__name__}: {e}"}
        if len(error["text"]) > 10_000:
            error["text"] = error["text"][:10_000] + "..."
        return _encode({"type": "response", "id": id_, "error": error})

    def drain(self) -> None:
        with self.lock:
            self.lock.wait_for(lambda: not self.running)
        with self.writing:
            pass  # the last response is written
        self.say({"type": "drained"})
        sys.stderr.flush()
        os._exit(0)


class _Log(logging.Handler):
    """Writes to the host's log."""

    def __init__(self, session: _Session) -> None:
        super().__init__()
        self.session = session

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = "error" if record.levelno >= logging.ERROR else "warn" if record.levelno >= logging.WARNING else "info" if record.levelno >= logging.INFO else "debug"
            line = {"type": "log", "level": level, "text": record.getMessage(), "fields": {"logger": record.name, **getattr(record, "fields", {})}}
            text = _encode(line)
            if len(text) - 1 > self.session.most:
                text = _encode({"type": "log", "level": level, "text": record.getMessage()[:1000] + "... (a line that is too long)"})
            self.session.write(text)
        except Exception:
            self.handleError(record)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _encode(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line, ensure_ascii=False, separators=(",", ":"), default=str).encode(errors="replace") + b"\n"


def _id(line: Mapping[str, Any]) -> int:
    id_ = line.get("id")
    if not isinstance(id_, int) or isinstance(id_, bool) or not 1 <= id_ <= LARGEST_ID:
        raise _Broken(f"a {line['type']} with the id {id_!r}")
    return id_


def _message(line: Any, id_: int) -> Message:
    try:
        if "payload" in line and "payload_b64" in line:
            raise ValueError("it has two payloads")
        if "payload_b64" in line:
            payload = base64.b64decode(line["payload_b64"].encode("ascii"), validate=True)
        else:
            payload = line.get("payload", "").encode()
        metadata = line.get("metadata", {})
        for key, value in metadata.items():
            (key + value).encode()
        return Message(payload, dict(metadata), line.get("id", ""))
    except (AttributeError, TypeError, ValueError) as e:  # half a surrogate pair is a ValueError too
        raise _Broken(f"request {id_}: its message: {e}") from e


def _line(m: Message) -> dict[str, Any]:
    line: dict[str, Any] = {}
    if m.id:
        line["id"] = m.id
    try:
        line["payload"] = m.payload.decode()
    except UnicodeDecodeError:
        line["payload_b64"] = base64.b64encode(m.payload).decode()
    if m.metadata:
        line["metadata"] = {str(key): str(value) for key, value in m.metadata.items()}
    if m.to:
        line["to"] = m.to
    return line


def _list(produced: Produced) -> list[Message]:
    if produced is None:
        return []
    if isinstance(produced, (Message, bytes, bytearray, str)):
        produced = [produced]
    return [m if isinstance(m, Message) else Message(m.encode(errors="replace") if isinstance(m, str) else bytes(m)) for m in produced]


# What stands for a field's type in the schema, and what it is called.
_TYPES = {bool: ("boolean", "true or false"), int: ("integer", "a whole number"), float: ("number", "a number"), str: ("string", "a text")}


def _fields(config: type) -> list[tuple[dataclasses.Field, Any]]:
    hints = typing.get_type_hints(config)
    return [(f, hints[f.name]) for f in dataclasses.fields(config) if f.init]


def _required(f: dataclasses.Field) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _schema(config: Optional[type]) -> dict[str, Any]:
    """The JSON Schema of a dataclass."""
    if config is None:
        return {"type": "object", "additionalProperties": False}
    schema: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": {}}
    for f, hint in _fields(config):
        s = _schema_of(hint)
        for ours, theirs in (("doc", "description"), ("min", "minimum"), ("max", "maximum")):
            if ours in f.metadata:
                s[theirs] = f.metadata[ours]
        schema["properties"][f.name] = s
    required = [f.name for f, _ in _fields(config) if _required(f)]
    if required:
        schema["required"] = required
    return schema


def _schema_of(hint: Any) -> dict[str, Any]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _schema(typing.cast(type, hint))
    if hint in _TYPES:
        return {"type": _TYPES[hint][0]}
    if origin is list:
        return {"type": "array", "items": _schema_of(args[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema_of(args[1])}
    if origin is Union and type(None) in args and len(args) == 2:
        return _schema_of(next(a for a in args if a is not type(None)))
    return {}


def _settings(config: Optional[type], given: Any) -> Any:
    """The dataclass with what was given; raises ConfigError with all problems."""
    problems: list[tuple[str, str]] = []
    made = _make(config, given, "", problems)
    if problems:
        e = ConfigError(*problems[0])
        e.problems = problems
        raise e
    return made


def _make(config: Optional[type], given: Any, path: str, problems: list[tuple[str, str]]) -> Any:
    if not isinstance(given, dict):
        problems.append((path, "must be a table"))
        return None
    fields = {f.name: (f, hint) for f, hint in (_fields(config) if config else [])}
    prefix = path + "." if path else ""
    before = len(problems)
    for key in given:
        if key not in fields:
            allowed = ", ".join(fields) or "nothing"
            problems.append((prefix + key, f"is unknown; allowed: {allowed}"))
    values = {}
    for name, (f, hint) in fields.items():
        if name in given:
            values[name] = _value(hint, given[name], prefix + name, problems)
            if isinstance(values[name], (int, float)) and not isinstance(values[name], bool):
                for word, wrong in (("min", lambda v, m: v < m), ("max", lambda v, m: v > m)):
                    if word in f.metadata and wrong(values[name], f.metadata[word]):
                        problems.append((prefix + name, f"is {values[name]}, must be at {'least' if word == 'min' else 'most'} {f.metadata[word]}"))
        elif _required(f):
            problems.append((prefix + name, "is missing"))
    if config is None or len(problems) > before:
        return None
    try:
        return config(**values)
    except ConfigError as e:
        problems.extend((prefix + key if key else path, text) for key, text in e.problems)
    except ValueError as e:
        problems.append((path, str(e)))
    return None


def _value(hint: Any, given: Any, path: str, problems: list[tuple[str, str]]) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _make(typing.cast(type, hint), given, path, problems)
    if origin is Union and type(None) in args and len(args) == 2:
        return _value(next(a for a in args if a is not type(None)), given, path, problems)
    if origin is list and isinstance(given, list):
        return [_value(args[0], v, f"{path}.{i}", problems) for i, v in enumerate(given)]
    if origin is dict and isinstance(given, dict):
        return {key: _value(args[1], v, f"{path}.{key}", problems) for key, v in given.items()}
    wanted = {list: "a list", dict: "a table"}.get(origin) or (_TYPES[hint][1] if hint in _TYPES else "")
    fits = not wanted or (
        hint in _TYPES
        and (isinstance(given, hint) or hint is float and isinstance(given, int))
        and (hint is bool or not isinstance(given, bool))
    )
    if not fits:
        problems.append((path, f"is {given!r}, must be {wanted}"))
    return float(given) if fits and hint is float else given
