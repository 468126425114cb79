"""The meaning of a Redis failure for a person, and the cure; a silent port is asked what it speaks."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Reason = tuple[str, str]

_PROBE_SECONDS = 1.0
_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")

_PRIMARY = "use the URL of the primary"
_NO_PERMISSION = "the user of the URL lacks a permission"
_CREDENTIALS = "check the credentials in the Redis URL"
_SERVED = "check that the server is up and the Redis URL is right"
_NO_ANSWER = ("the server gave no answer in time", "check that it is up and the network reaches it")
_NO_COMMAND = "the server lacks a command that is needed"
_SENTINEL = (
    "this is a Sentinel, which keeps no data",
    f"{_PRIMARY} that it watches (redis-cli -p PORT sentinel masters)",
)
_SPEAKS_TLS = ("the port speaks TLS", "write rediss:// instead of redis://")
_SPEAKS_PLAIN = ("the port does not speak TLS", "use the TLS port, or redis:// where the network is your own")
_WANTS_CERTIFICATE = (
    "the server wants a certificate of the client",
    "add ?ssl_certfile=FILE&ssl_keyfile=FILE to the URL",
)

# Marks of a failure, what it means for a person, and the cure; the first that matches. A mark is the class that
# redis-py has for an error, whose code it strips from the text, or a piece of the text: where it has no class, or
# an old server's script quotes.
_REASONS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("NOAUTH", "Authentication required"), "the server wants a password", "write it into the Redis URL"),
    (("without any password configured",), "the server knows no password", "take it out of the Redis URL"),
    (("AuthenticationError", "WRONGPASS"), "the server refused the user or password", _CREDENTIALS),
    (("protected mode",), "the server is in protected mode: it serves its own machine only", "give it a password"),
    (("OutOfMemoryError", "OOM command"), "the server is out of memory", "free memory or raise maxmemory"),
    (("ReadOnlyError", "READONLY "), "the server is a read-only replica", _PRIMARY),
    (("MasterDownError", "MASTERDOWN "), "the server is a replica without its primary", _PRIMARY),
    (("BusyLoadingError", "LOADING "), "the server is still loading its data", "wait until it has started"),
    (
        ("NoPermissionError", "NOPERM ", "ACL failure in script", "The user executing the script can't run"),
        _NO_PERMISSION,
        "allow it the key and the command in the ACL",
    ),
    (
        ("MovedError", "MOVED ", "ClusterCrossSlotError", "CROSSSLOT "),
        "the server is part of a Redis Cluster, where all keys of a ledger must have one hash tag",
        "name them so: GHOSTCLEAN_LEDGER_KEY={bot}:trades and GHOSTCLEAN_KEY_PREFIX={bot}:",
    ),
    (
        ("AskError", "TryAgainError", "TRYAGAIN "),
        "the server is part of a Redis Cluster that is moving these keys to another node",
        "run again when they have arrived",
    ),
    (
        ("ClusterDownError", "ClusterError", "CLUSTERDOWN "),
        "the server is part of a Redis Cluster that is down, or without a node for these keys",
        "look at its nodes (redis-cli cluster info)",
    ),
    (
        ("DB index is out of range", "invalid DB index", "SELECT is not allowed"),
        "the server has no database of that number",
        "end the Redis URL with /0, the only one of a Redis Cluster, or with one it has",
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
    (("certificate has expired",), "its TLS certificate has expired", "renew it, or set this machine's clock"),
    (("certificate is not yet valid",), "its TLS certificate is not valid yet", "set this machine's clock"),
    (
        ("Hostname mismatch", "IP address mismatch"),
        "its TLS certificate is for another host name",
        "write the name that stands in the certificate into the Redis URL",
    ),
    (("CERTIFICATE_VERIFY_FAILED",), "its TLS certificate is not trusted", "add ?ssl_ca_certs=FILE to the URL"),
    (("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE"), *_WANTS_CERTIFICATE),
    (
        ("ALERT_UNKNOWN_CA", "ALERT_BAD_CERTIFICATE", "ALERT_CERTIFICATE_"),
        "the server does not accept the certificate of the client",
        "check ssl_certfile in the Redis URL",
    ),
    (("KEY_VALUES_MISMATCH",), "ssl_keyfile is not the key of ssl_certfile", "check both in the Redis URL"),
    (
        ("[X509", "PEM lib", "[PEM", "[ASN1"),
        "a file that the URL names holds no certificate or key",
        "check ssl_… in the URL",
    ),
    (("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"), *_SPEAKS_PLAIN),
    (("WRONGTYPE ",), "a key holds another type of value", "check the key and GHOSTCLEAN_KEY_PREFIX"),
)


def reason_of(error: Exception, target: Mapping[str, Any], *, is_sentinel: bool = False) -> Reason | None:
    """Why that failed and the cure, None where only its own words say it.

    `target` are the arguments of the connection; `is_sentinel` what the server has said of itself.
    """
    said = str(error)
    missing = _missing_file(said, target)
    if missing is not None:
        return missing
    marked = " ".join((*(kind.__name__ for kind in type(error).__mro__), said))
    for marks, reason, cure in _REASONS:
        if any(mark in marked for mark in marks):
            return _named(reason, error), cure
    if "unknown command" in said:
        return _SENTINEL if is_sentinel else (_lacking(error), "use Redis 6 or newer, or Valkey, with all its commands")
    return _spoken(error, target)


def is_definite(error: Exception) -> bool:
    """Whether the server has answered, or was never reached: what was asked is not done, for certain."""
    from redis import exceptions

    answers = (exceptions.ResponseError, exceptions.AuthenticationError, exceptions.BusyLoadingError)
    known = isinstance(error, answers) or "connecting to" in str(error)
    return known and not getattr(error, "doubtful", False)


def _named(reason: str, error: Exception) -> str:
    asked = _asked(error)
    if reason != _NO_PERMISSION or not asked:
        return reason
    inside = re.search(r"the '([^' ]+)' command", str(error))  # of a script, or of the command itself
    command, _, keys = asked.partition(" on ")
    return f"{reason} ({' on '.join(filter(None, (inside[1].upper() if inside else command, keys)))})"


def _lacking(error: Exception) -> str:
    found = re.search(r"unknown command [`'\"]?([A-Za-z.]+)", str(error))
    return f"{_NO_COMMAND}: {found[1].upper()}" if found else _NO_COMMAND


def _asked(error: Exception) -> str:
    name, *rest = getattr(error, "asked", ("",))
    keys: Sequence[Any] = rest[2 : 2 + rest[1]] if name == "EVAL" else rest if name in ("WATCH", "MGET") else rest[:1]
    return f"{name} on {' and '.join(map(str, keys))}" if keys else name


def _missing_file(said: str, target: Mapping[str, Any]) -> Reason | None:
    if "connecting to" not in said or not any(word in said for word in ("No such file", "Permission denied")):
        return None
    if "path" in target:
        return f"no server listens at the socket {target['path']}", _SERVED
    for option in _FILES:
        path = target.get(option)
        with contextlib.suppress(OSError):
            if path and not Path(path).exists():
                return f"the file of {option} is missing: {path}", "restore it, or correct the Redis URL"
    return "a certificate file of the Redis URL cannot be read", "make it readable for this user"


def _spoken(error: Exception, target: Mapping[str, Any]) -> Reason | None:
    """What is wrong with a connection that ended or stays silent, by what the port speaks."""
    from redis import exceptions

    silent = isinstance(error, exceptions.TimeoutError | TimeoutError)
    if "host" in target and (silent or isinstance(error, exceptions.ConnectionError | exceptions.InvalidResponse)):
        secure = "ssl_cert_reqs" in target
        place = (str(target["host"]), int(target.get("port", 6379)))
        found = _of_tls_client(place, target) if secure else _of_plain_client(place)
        if found is not None:
            return found
    return _NO_ANSWER if silent else None


def _of_plain_client(place: tuple[str, int]) -> Reason | None:
    return _SPEAKS_TLS if _handshake(place) is not None else None


def _of_tls_client(place: tuple[str, int], target: Mapping[str, Any]) -> Reason | None:
    if _answers_plainly(place):
        return _SPEAKS_PLAIN
    wanting = _handshake(place) == "CERTIFICATE" and not target.get("ssl_certfile")
    return _WANTS_CERTIFICATE if wanting else None


def _answers_plainly(place: tuple[str, int]) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(place, _PROBE_SECONDS) as plain:
        plain.sendall(b"PING\r\n")
        return plain.recv(1) in (b"+", b"-")
    return False


def _handshake(place: tuple[str, int]) -> str | None:
    """`TLS`, `CERTIFICATE` if a client certificate is wanted, None for no TLS; sends the handshake alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(place, _PROBE_SECONDS) as plain, context.wrap_socket(plain) as secure:
            with contextlib.suppress(TimeoutError):  # a server waits for us to speak
                secure.recv(1)
            return "TLS"
    except ssl.SSLError as error:
        said = str(error)
        wanted = "CERTIFICATE_REQUIRED" in said or "HANDSHAKE_FAILURE" in said
        return "CERTIFICATE" if wanted else "TLS" if "ALERT" in said else None
    except OSError:
        return None
