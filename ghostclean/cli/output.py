"""How a command ends: what is printed where, and the exit code.

Stdout carries the result (with --json one document and nothing else), stderr everything said
about it. In GitHub Actions failures are annotated as well, and a short table is added to the
step summary. A reader that goes away (`| head`) changes nothing about the run or its code.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TextIO

import typer

from ghostclean.errors import BadSettings, BrokerError, BrokerTruthFailed, GhostcleanError
from ghostclean.scrub import scrub

_STOPPED = "interrupted; what was written stays and is journaled, the next run goes on from there"

Document = Mapping[str, Any]
Lines = Callable[[], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Show:
    """The three options that every command has."""

    json: bool
    quiet: bool
    verbose: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command has to say: the JSON document, the lines for people, the exit code.

    `error` and `detail` are set when something failed; `warnings` are said on stderr even then
    when the exit code is 0.
    """

    document: Document
    exit_code: int = 0
    lines: Lines = field(default=tuple)
    error: str | None = None
    detail: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure with its word, its exit code and one line for a person."""

    error: str
    exit_code: int
    detail: str

    def outcome(self, document: Callable[[str, str], Document] | None = None) -> Outcome:
        """As an outcome, in the command's own document where it has one."""
        plain = {"ok": False, "error": self.error, "detail": self.detail}
        return Outcome(
            document(self.error, self.detail) if document else plain,
            self.exit_code,
            error=self.error,
            detail=self.detail,
        )


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: end as on Ctrl-C, so that the lock is given back."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


def perform(
    command: str,
    show: Show,
    body: Callable[[], Outcome],
    *,
    non_fatal: bool = False,
    failed_document: Callable[[str, str], Document] | None = None,
) -> NoReturn:
    """Runs a command's body, prints its outcome and ends with its exit code."""
    prepare(show)
    try:
        outcome = body()
    except GhostcleanError as error:
        outcome = Failure(error.code, error.exit_code, clean(str(error))).outcome(failed_document)
    except BrokerError as error:
        failure = BrokerTruthFailed
        outcome = Failure(failure.code, failure.exit_code, clean(f"the broker cannot be read: {error}")).outcome(
            failed_document
        )
    except KeyboardInterrupt as stop:
        outcome = Failure("reconcile_failed", stopped_code(stop), _STOPPED).outcome(failed_document)
    except typer.Exit:
        raise
    except Exception as error:  # noqa: BLE001 - the last line of defence: one line, never a traceback with secrets
        outcome = _crash(error, show).outcome(failed_document)
    raise typer.Exit(finish(command, show, outcome, non_fatal=non_fatal))


def _crash(error: Exception, show: Show) -> Failure:
    if show.verbose:
        say(clean("".join(traceback.format_exception(error))).rstrip())
    kind = type(error).__name__
    hint = "" if show.verbose else "; --verbose shows where"
    text = f"an unexpected {kind}: {error}; what was written stays and is journaled{hint}"
    return Failure("reconcile_failed", 1, clean(" ".join(text.split())))


def finish(command: str, show: Show, outcome: Outcome, *, non_fatal: bool = False) -> int:
    """Prints an outcome and returns the exit code, softened by --non-fatal."""
    softened = non_fatal and outcome.exit_code in (1, 3, 4, 5, 6, 7)
    if show.json:
        from ghostclean.render.jsondoc import document_text

        put(document_text(_without_secrets(outcome.document), for_person=sys.stdout.isatty()))
    else:
        for line in outcome.lines():
            put(line)
    if outcome.detail and (outcome.error or outcome.exit_code):
        kept = f" (exit code {outcome.exit_code}, made 0 by --non-fatal)" if softened else ""
        say(f"ghostclean: {clean(outcome.detail)}{kept}")
    # What needs a person stays so from run to run: --quiet must not say it every five minutes.
    for warning in () if show.quiet else outcome.warnings:
        say(f"ghostclean: {clean(warning)}")
    if os.environ.get("GITHUB_ACTIONS") == "true":
        _tell_github(command, outcome)
    return 0 if softened else outcome.exit_code


def _without_secrets(document: Document) -> Document:
    """The document with its texts for people cleaned like those on stderr: libraries may have had a hand in them."""
    cleaned = dict(document)
    if isinstance(detail := document.get("detail"), str):
        cleaned["detail"] = clean(detail)
    if isinstance(notes := document.get("notes"), list):
        cleaned["notes"] = [clean(note) if isinstance(note, str) else note for note in notes]
    return cleaned


def _tell_github(command: str, outcome: Outcome) -> None:
    from ghostclean.render.github import annotation, summary

    title = f"ghostclean {command}".strip()
    # The runner reads workflow commands from stderr as well; stdout stays one document.
    if outcome.error:
        say(annotation("error", f"{title}: {clean(outcome.detail or outcome.error)}"))
    for warning in outcome.warnings:
        say(annotation("warning", f"{title}: {clean(warning)}"))
    target = os.environ.get("GITHUB_STEP_SUMMARY")
    if not target:
        return
    try:
        with Path(target).open("a", encoding="utf-8") as file:
            file.write("\n".join(summary(title, outcome.document)) + "\n")
    except OSError as error:
        say(f"ghostclean: the step summary cannot be written: {error.strerror or error}")


# --------------------------------------------------------------------------- streams


def put(text: str) -> None:
    """One line on stdout."""
    _write(sys.stdout, text)


def say(text: str) -> None:
    """One line on stderr."""
    _write(sys.stderr, text)


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text + "\n")
        stream.flush()
    except BrokenPipeError:
        _mute(stream)


def _mute(stream: TextIO) -> None:
    """Sends what is still to come nowhere, so that the interpreter's last flush is calm too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def reader_gone() -> bool:
    """Whether stdout goes nowhere, from the start or since its reader went away."""
    with contextlib.suppress(OSError, ValueError):
        return os.path.samestat(os.fstat(sys.stdout.fileno()), Path(os.devnull).stat())
    return False


def ending(code: int) -> int:
    """The exit code, after a last flush that a closed pipe cannot spoil."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            _mute(stream)
    return code


def interrupted(stop: BaseException | None = None) -> int:
    """Says what an interruption means and returns its exit code."""
    say(f"ghostclean: {_STOPPED}")
    return stopped_code(stop)


def stopped_code(stop: BaseException | None) -> int:
    """The exit code of an interruption, which may have been given another form on its way."""
    cause = stop.__cause__ if stop is not None else None
    return next((s.exit_code for s in (stop, cause) if isinstance(s, Terminated)), 130)


# --------------------------------------------------------------------------- preparing


def prepare(show: Show) -> None:
    """Logs to stderr without secrets, and an orderly end on SIGTERM and SIGHUP."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    from ghostclean.cli.logs import log_to_stderr

    log_to_stderr(clean, verbose=show.verbose)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminate)


def _terminate(number: int, frame: object) -> None:
    del frame
    signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
    raise Terminated(number)


def clean(text: str) -> str:
    """The text without any secret of the environment or of `.env`."""
    from ghostclean.settings import environment_secrets

    return scrub(text, environment_secrets())


def bad_option(name: str, reason: str) -> BadSettings:
    """The error of an option whose value is wrong."""
    return BadSettings(f"{name} is wrong: {reason} (nothing was done)")
