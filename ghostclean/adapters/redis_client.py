"""The one place that turns a Redis URL into a client and its failures into plain words.

`redis` is imported when a client is made, not before: it costs start-up time that `--help`
and a ledger in a file need not pay.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlencode, urlsplit

from ghostclean.errors import BadSettings, GhostcleanError

SCHEMES = ("redis", "rediss", "unix")
_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 10.0
_RETRIES = 1
_ATTEMPTS = 50  # at a transaction whose keys others change meanwhile
_OPTIONS = ("db", "username", "password", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")

_NO_PERMISSION = "the user of the URL lacks a permission"

# Marks of a failure, what it means for a person, and the cure. A mark is the class that redis-py has for an error,
# whose code it strips from the text, or a piece of the text: where it has no class, or an old server's script quotes.
_REASONS = (
    (("OutOfMemoryError", "OOM command"), "the server is out of memory", "free memory or raise maxmemory"),
    (("ReadOnlyError", "READONLY "), "the server is a read-only replica", "use the URL of the primary"),
    (("MasterDownError", "MASTERDOWN "), "the server is a replica without its primary", "use the URL of the primary"),
    (("BusyLoadingError", "LOADING "), "the server is still loading its data", "wait until it has started"),
    (
        ("NoPermissionError", "NOPERM ", "ACL failure in script", "The user executing the script can't run"),
        _NO_PERMISSION,
        "allow it the key and the command in the ACL",
    ),
    (
        ("AskError", "ClusterError", "ClusterCrossSlotError", "MOVED ", "CLUSTERDOWN ", "CROSSSLOT "),
        "the server is part of a Redis Cluster",
        "use a Redis that is none",
    ),
    (
        ("invalid bulk length", "invalid multibulk length", "max request size", "request size exceeded"),
        "the request is larger than the server takes",
        "raise its limit (proto-max-bulk-len), or keep the ledger in a hash: ghostclean migrate --layout hash",
    ),
    (("MISCONF ",), "the server cannot save to disk and refuses writes", "look at its log and disk"),
    (("NOREPLICAS ",), "the server has too few replicas and refuses writes", "look at its replicas"),
    (("BUSY ",), "the server is busy with a script", "wait, or look at what else uses it"),
    (("max number of clients",), "the server has no connection left", "close idle clients or raise maxclients"),
    (("CERTIFICATE_VERIFY_FAILED",), "its TLS certificate is not trusted", "add ?ssl_ca_certs=FILE to the URL"),
    (("WRONGTYPE ",), "a key holds another type of value", "check the key and GHOSTCLEAN_KEY_PREFIX"),
    (
        ("unknown command",),
        "the server lacks a command that is needed (scripting: EVAL)",
        "use Redis 6 or newer, or Valkey",
    ),
)


Command = tuple[Any, ...]


class RedisServer:
    """A Redis and how to reach it; `place` names it without a secret."""

    def __init__(self, url: str, *, client: Any = None) -> None:
        """`client` stands in for a connection made from the URL (tests use fakeredis)."""
        self.place = redis_place(url)
        self._secrets = _secrets(url)
        self.client = client if client is not None else _connect(url)

    def send(self, commands: Sequence[Command], *, transaction: bool = False) -> list[Any]:
        """The answers to several commands, in one round trip."""
        with self.client.pipeline(transaction=transaction) as batch:
            for command in commands:
                batch.execute_command(*command)
            answers: list[Any] = batch.execute()
        return answers

    def transact(
        self,
        watched: Sequence[str],
        questions: Sequence[Command],
        commands: Callable[[Sequence[Any]], Sequence[Command]],
    ) -> None:
        """Asks, then sends what `commands` makes of the answers, unless a watched key changed in between: then again.

        Two round trips; redis-py's own WATCH needs one for each question. All or nothing is
        written. After a lost answer it is done again: `commands` must see what stands already.
        A question may have a failure for an answer, see `checked`.
        """
        from redis import exceptions

        lost = 0
        for _ in range(_ATTEMPTS):
            try:
                if self._attempt(watched, questions, commands):
                    return
            except (exceptions.ConnectionError, exceptions.TimeoutError):
                lost += 1
                if lost > _RETRIES:
                    raise
        raise exceptions.WatchError("its keys are changed by somebody else all the time")

    def _attempt(
        self,
        watched: Sequence[str],
        questions: Sequence[Command],
        commands: Callable[[Sequence[Any]], Sequence[Command]],
    ) -> bool:
        """One try at a transaction, on a connection of its own; False when another was quicker."""
        with self.client.client() as own:
            connection, executed = own.connection, False
            try:
                # Where the server refuses WATCH or MULTI, nothing may follow: it would be carried out unguarded.
                watching, *answers, multi = _exchange(connection, [("WATCH", *watched), *questions, ("MULTI",)])
                checked((watching, multi))
                sending = commands(answers)
                if not sending:
                    return True
                outcome = checked(_exchange(connection, [*sending, ("EXEC",)]))[-1]
                executed = True
            finally:
                if not executed:
                    connection.disconnect()  # so it watches nothing when it is used again
        return outcome is not None and bool(checked(outcome))

    @contextlib.contextmanager
    def speaking(
        self,
        doing: str,
        raising: type[GhostcleanError],
        effect: str = "nothing was changed",
        *,
        refused: str = "",
        asked: str = "",
    ) -> Iterator[None]:
        """Translates every Redis failure inside into one line of `raising`.

        `doing` says what failed ("reading the ledger"), `effect` what that means for the ledger, and
        `refused` what it means when the server has answered that it does not do it. `asked` names
        commands and keys ("GET on k"), for a user who may not use them.
        """
        from redis.exceptions import RedisError

        try:
            yield
        except (RedisError, OSError) as error:
            reason, cure = self._explain(error)
            if asked and reason == _NO_PERMISSION:
                named = re.search(r"the '([^' ]+)' command", str(error))
                reason += f" ({named[1].upper()} on {asked.partition(' on ')[2]})" if named else f" ({asked})"
            meaning = refused if refused and _is_refusal(error) else effect
            raise raising(f"{doing} at {self.place} failed: {reason}; {meaning}. Cure: {cure}.") from None

    def _explain(self, error: Exception) -> tuple[str, str]:
        from redis import exceptions

        said = " ".join(str(error).split()).rstrip(".")
        if isinstance(error, exceptions.AuthenticationError) or said.startswith(("NOAUTH", "WRONGPASS")):
            return "the server refused the user or password", "check the credentials in the Redis URL"
        if isinstance(error, exceptions.TimeoutError | TimeoutError):
            return "the server gave no answer in time", "check that it is up and the network reaches it"
        marked = " ".join((*(kind.__name__ for kind in type(error).__mro__), said))
        for marks, reason, cure in _REASONS:
            if any(mark in marked for mark in marks):
                return reason, cure
        return (
            _masked(said, self._secrets)[:200] or type(error).__name__,
            "check that the server is up and the Redis URL is right",
        )

    def close(self) -> None:
        """Gives the connections back."""
        self.client.close()


def checked(answers: Sequence[Any]) -> Sequence[Any]:
    """These answers; raises the first failure among them."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def _exchange(connection: Any, commands: Sequence[Command]) -> list[Any]:
    """Sends all commands at once and reads every answer, failures included."""
    from redis.exceptions import ResponseError

    answers: list[Any] = []
    connection.send_packed_command(connection.pack_commands(commands))
    for _ in commands:
        try:
            answers.append(connection.read_response())
        except ResponseError as error:
            answers.append(error)
    return answers


def _is_refusal(error: Exception) -> bool:
    """Whether the server has answered, or was never reached: what was asked is not done, for certain."""
    from redis import exceptions

    answers = (exceptions.ResponseError, exceptions.AuthenticationError, exceptions.BusyLoadingError)
    return isinstance(error, (*answers, exceptions.MasterDownError)) or "connecting to" in str(error)


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
    """Every spelling of user information in the URL, the longest first."""
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
    from redis.backoff import ExponentialBackoff
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
            retry=Retry(ExponentialBackoff(cap=0.5, base=0.1), _RETRIES),
            protocol=2,
            **unnamed,
            **verified,
        )
    except (ValueError, TypeError) as error:
        raise BadSettings(f"The Redis URL is wrong: {_masked(str(error), _secrets(url))[:160]}") from None
