"""Turns a Redis URL into a client, imported only then, and its failures into plain words."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, TypeVar
from urllib.parse import SplitResult, parse_qs, unquote, urlencode, urlsplit

from ghostclean.app.ports import Trouble
from ghostclean.errors import BadSettings, GhostcleanError

from .redis_reasons import Reason, is_definite, reason_of

T = TypeVar("T")

SCHEMES = ("redis", "rediss", "unix")
_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 10.0
_RETRIES = 1
_PAUSE = 0.1  # before asking again
_MOVES = 2  # from node to node of a Redis Cluster, for one request
_ATTEMPTS = 50  # at a transaction whose keys others change meanwhile
_OPTIONS = ("db", "username", "password", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")

Command = tuple[Any, ...]


class Conversation:
    """One connection, given back clean; `doubtful` when an earlier one was lost, whose commands may have been done."""

    def __init__(self, client: Any, *, doubtful: bool) -> None:
        self._own = client.client()
        self._doubtful = doubtful
        self._clean = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None or not self._clean:
            self._own.connection.disconnect()  # so it watches and queues nothing when it is used again
        self._own.close()

    def ask(self, *commands: Command) -> list[Any]:
        """Every answer in one round trip, a refusal in the place of its answer; MovedError when another node has it."""
        from redis import exceptions

        answers: list[Any] = []
        connection = self._own.connection
        connection.send_packed_command(connection.pack_commands(commands))
        for command in commands:
            self._clean = command[0] == "EXEC" or (self._clean and command[0] not in ("WATCH", "MULTI"))
            try:
                answer = connection.read_response()
                parse = self._own.response_callbacks.get(command[0])
                answers.append(parse(answer) if parse and answer not in (None, b"QUEUED") else answer)
            except exceptions.ResponseError as error:
                vars(error).update(asked=command, doubtful=self._doubtful)
                answers.append(error)
        for answer in answers:
            if isinstance(answer, exceptions.MovedError):
                raise answer
        return answers


class RedisServer:
    """A Redis and how to reach it; `place` names it without a secret. In a cluster all our keys share a hash tag."""

    def __init__(self, url: str, *, client: Any = None) -> None:
        """`client` stands in for a connection made from the URL (tests use fakeredis)."""
        self.place = redis_place(url)
        self._secrets = _secrets(url)
        self.client = client if client is not None else _connect(url)

    def ask(self, *commands: Command) -> list[Any]:
        """The answers to several commands, in one round trip, a refusal in the place of its answer."""
        return self.talk(lambda own: own.ask(*commands))

    def answer(self, *command: Any) -> Any:
        """The answer to one command."""
        return checked(self.ask(command))[0]

    def talk(self, talk: Callable[[Conversation], T]) -> T:
        """What `talk` returns on one connection; repeated once after a lost one, and at the keys' node of a cluster.

        So it must bear that its last command stands already.
        """
        from redis import exceptions

        lost = moved = 0
        doubtful = False
        while True:
            try:
                with Conversation(self.client, doubtful=doubtful) as own:
                    return talk(own)
            except exceptions.MovedError as error:
                moved += 1
                if moved > _MOVES or not self._follow(error):
                    raise
            except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
                vars(error).update(doubtful=doubtful)
                doubtful = doubtful or not is_definite(error)
                lost += 1
                if lost > _RETRIES or _is_final(error):
                    raise
                time.sleep(_PAUSE)

    def transact(
        self,
        watched: Sequence[str],
        questions: Sequence[Command],
        commands: Callable[[Sequence[Any]], Sequence[Command]],
    ) -> None:
        """Asks, then sends what `commands` makes of the answers, all or nothing, until no watched key changes between.

        After a lost answer it runs again: `commands` must see what stands already.
        """
        from redis import exceptions

        def attempt(own: Conversation) -> bool:
            # Where the server refuses WATCH or MULTI, nothing may follow: it would be carried out unguarded.
            watching, *answers, multi = own.ask(("WATCH", *watched), *questions, ("MULTI",))
            checked((watching, multi))
            sending = commands(answers)
            if not sending:
                return True
            outcome = checked(own.ask(*sending, ("EXEC",)))[-1]
            return outcome is not None and bool(checked(outcome))

        for _ in range(_ATTEMPTS):
            if self.talk(attempt):
                return
        raise exceptions.WatchError("its keys are changed by somebody else all the time")

    def rehearse(self, *commands: Command) -> list[Trouble]:
        """Why the server would refuse any of these, none of which is carried out, and whether it drops keys."""

        def refused(own: Conversation) -> list[Any]:
            watching = own.ask(("WATCH", commands[0][1]))
            checked(own.ask(("MULTI",)))
            return watching + own.ask(*commands)

        answers = self.talk(refused) + self.ask(("MULTI",), ("EXEC",))
        troubles = [Trouble(*self.explain(answer)) for answer in answers if isinstance(answer, Exception)]
        return [*dict.fromkeys(troubles), *self._eviction()]

    def _eviction(self) -> Iterator[Trouble]:
        info = self.ask(("INFO", "memory"))[0]  # a user who may not ask is told nothing
        policy = info.get("maxmemory_policy") if isinstance(info, dict) else None
        if policy not in (None, "noeviction"):
            found = f"{self.place} drops keys when its memory is full (maxmemory-policy {policy})"
            yield Trouble(found, "CONFIG SET maxmemory-policy noeviction", fails=False)

    @contextlib.contextmanager
    def speaking(
        self, doing: str, raising: type[GhostcleanError], effect: str = "nothing was changed", *, refused: str = ""
    ) -> Iterator[None]:
        """Translates every Redis failure inside into one line of `raising`: `doing` failed, with `effect` on the
        ledger.

        `refused` is the effect when the server has answered that it does not do it.
        """
        from redis.exceptions import RedisError

        try:
            yield
        except (RedisError, OSError) as error:
            reason, cure = self.explain(error)
            meaning = refused if refused and is_definite(error) else effect
            raise raising(f"{doing} at {self.place} failed: {reason}; {meaning}. Cure: {cure}.") from None

    def explain(self, error: Exception) -> Reason:
        """Why that failed, and the cure."""
        pool = getattr(self.client, "connection_pool", None)
        target = getattr(pool, "connection_kwargs", {})
        is_sentinel = "unknown command" in str(error) and self._is_sentinel()
        known = reason_of(error, target, is_sentinel=is_sentinel)
        if known is not None:
            return known
        said = _masked(" ".join(str(error).split()).rstrip("."), self._secrets)[:200]
        return said or type(error).__name__, "check that the server is up and the Redis URL is right"

    def _is_sentinel(self) -> bool:
        from redis.exceptions import RedisError

        client = self._elsewhere(db=0)  # a Sentinel knows no databases
        with contextlib.suppress(RedisError, OSError), Conversation(client, doubtful=False) as own:
            return bool(checked(own.ask(("ROLE",)))[0][0] == b"sentinel")
        return False

    def _elsewhere(self, **target: Any) -> Any:
        """A client that differs in where it connects to."""
        import redis

        pool = self.client.connection_pool
        options = {**pool.connection_kwargs, **target}
        return redis.Redis.from_pool(redis.ConnectionPool(connection_class=pool.connection_class, **options))

    def _follow(self, moved: Any) -> bool:
        """Turns to the node of a Redis Cluster that has the keys; False where that can't be."""
        here = self.client.connection_pool.connection_kwargs
        if "host" not in here:
            return False
        same = moved.host in ("", "?")  # the node that has answered does not know its own name
        self.client, left = self._elsewhere(host=here["host"] if same else moved.host, port=moved.port), self.client
        left.close()
        return True

    def close(self) -> None:
        """Gives the connections back."""
        self.client.close()


def checked(answers: Sequence[Any]) -> Sequence[Any]:
    """These answers; raises the first failure among them."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def _is_final(error: Exception) -> bool:
    from redis import exceptions

    silent = isinstance(error, exceptions.TimeoutError) and "connecting to" in str(error)
    return silent or isinstance(error, exceptions.AuthenticationError)


def redis_place(url: str) -> str:
    """The identity of a Redis database for people and comparisons: no user, password or option."""
    parts = _parts(url)
    query = parse_qs(parts.query)
    if parts.scheme == "unix":
        return f"unix://{unquote(parts.path)}?db={query.get('db', ['0'])[0]}"
    path = parts.path.strip("/")
    database = query.get("db", [path if path.isdigit() else "0"])[0]  # redis-py's own order
    return f"{parts.scheme}://{parts.hostname or 'localhost'}:{parts.port or 6379}/{database}"


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url.strip())
        _ = parts.port
    except ValueError:
        raise BadSettings("The Redis URL has no usable host and port. Cure: write redis://host:6379/0.") from None
    if parts.scheme not in SCHEMES:
        raise BadSettings("The Redis URL must start with redis://, rediss:// or unix://.")
    return parts


def _secrets(url: str) -> tuple[str, ...]:
    parts = _parts(url)
    raw = [parts.password or "", *parse_qs(parts.query).get("password", [])]
    found = {text for secret in raw for text in (secret, unquote(secret)) if text}
    return (url, *sorted(found, key=len, reverse=True))


def _masked(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _connect(url: str) -> Any:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    parts = _parts(url)
    # The app shares this URL; options meant for its own client are none of ours, and none of
    # them can weaken TLS or lift the time-outs.
    options = {name: values[-1] for name, values in parse_qs(parts.query).items() if name in _OPTIONS}
    # To name the library to the server takes two round trips.
    unnamed = {"driver_info": None} if hasattr(redis, "DriverInfo") else {"lib_name": None, "lib_version": None}
    verified = {"ssl_cert_reqs": "required", "ssl_check_hostname": True} if parts.scheme == "rediss" else {}
    try:
        return redis.Redis.from_url(
            f"{parts.scheme}://{parts.netloc}{parts.path}?{urlencode(options)}",
            socket_connect_timeout=_CONNECT_SECONDS,
            socket_timeout=_ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),  # `talk` knows what a lost answer leaves in doubt
            protocol=2,
            **unnamed,
            **verified,
        )
    except (ValueError, TypeError) as error:
        raise BadSettings(f"The Redis URL is wrong: {_masked(str(error), _secrets(url))[:160]}") from None
