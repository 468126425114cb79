"""How a command ends: the result on stdout (with --json one document), the rest on stderr, the exit code.

GitHub Actions also gets annotations and a step summary.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self, TextIO

import typer

from ghostclean.cli.not_begun import not_begun
from ghostclean.cli.process import hold_signals, lost_output, stopped_code
from ghostclean.errors import BadSettings, BrokerError, BrokerTruthFailed, GhostcleanError
from ghostclean.lines import printable
from ghostclean.scrub import scrub

if TYPE_CHECKING:
    from ghostclean.result import ManageResult, Result
    from ghostclean.settings import Settings

_STOPPED = "interrupted; what was written stays and is journaled, the next run goes on from there"

_REPEATED = frozenset({"reconcile", "auto-manage"})  # what a schedule runs again and again
_SOFTENED = frozenset({1, 3, 4, 5, 6, 7})  # by --non-fatal

Document = Mapping[str, Any]
Lines = Callable[[], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Common:
    """The options that every command has."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    env_file: str | None = None
    log_format: str = "text"

    LOOK_SECONDS: ClassVar[float] = 20.0  # for commands that only look
    COUNTED_FROM_START: ClassVar[bool] = True  # whether the process began for this command alone

    @classmethod
    def guessed(cls, arguments: Sequence[str]) -> Self:
        """Of a command line that was not parsed: how the failure to do so is to be said."""
        joined = " ".join(arguments).replace("--log-format=", "--log-format ")
        return cls(json="--json" in arguments, log_format="json" if "--log-format json" in joined else "text")

    def settings(self) -> Settings:
        """The settings of the environment and the file; raises BadSettings."""
        from ghostclean.settings import Settings

        return Settings.load(env_file=self.env_file)

    def clean(self, text: str) -> str:
        """The text without any secret of the environment or of the file."""
        from ghostclean.settings import environment_secrets

        return scrub(text, environment_secrets(self.env_file))

    def say(self, text: str, level: str = "error") -> None:
        """One line on stderr, without secrets; an object where logs are JSON."""
        text = self.clean(text)
        if self.log_format == "json":
            from ghostclean.cli.logs import log_line

            say(log_line(level, text))
        else:
            from ghostclean.render.terminal import folded

            # Only a traceback has lines of its own: what others wrote must not look like a line of ours.
            text = f"ghostclean: {text}"
            lines = text.splitlines() if level == "debug" else [text]
            for line in folded((printable(line, None) for line in lines), stream=sys.stderr):
                say(line)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A command's JSON document, lines for people and exit code; `error` and `detail` say what failed."""

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

    def outcome(self, command: str, given: Mapping[str, Any]) -> Outcome:
        document = not_begun(command, self.error, self.detail, given)
        return Outcome(document, self.exit_code, error=self.error, detail=self.detail)


def perform(
    command: str,
    common: Common,
    body: Callable[[], Outcome],
    given: Mapping[str, Any],
    *,
    non_fatal: bool = False,
) -> NoReturn:
    from ghostclean.cli.logs import log_to_stderr

    log_to_stderr(common.clean, verbose=common.verbose, as_json=common.log_format == "json")
    try:
        outcome = body()
    except (typer.Exit, typer.TyperException):
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last line of defence
        outcome = failure_of(error, common).outcome(command, given)
    hold_signals()
    raise typer.Exit(finish(command, common, outcome, non_fatal=non_fatal))


def carried_out(run: Callable[[], Result | ManageResult]) -> tuple[dict[str, Any], int]:
    """The document and the exit code of a run, also of one that was interrupted."""
    from ghostclean.result import Interrupted

    try:
        result = run()
    except Interrupted as stop:
        return stop.result.to_dict(), stopped_code(stop)
    return result.to_dict(), result.exit_code


def interrupted(arguments: Sequence[str], stop: BaseException) -> int:
    """Says that a command was stopped before it began or after it ended; returns its exit code."""
    common, command = Common.guessed(arguments), arguments[0] if arguments else ""
    return finish(command, common, failure_of(stop, common).outcome(command, {}))


def failure_of(error: BaseException, common: Common) -> Failure:
    """An exception as one line, never a traceback with secrets."""
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return Failure("interrupted", stopped_code(error), _STOPPED)
    if isinstance(error, BrokerError):
        error = BrokerTruthFailed(f"{error.line}; {error.cure}", cause=error.cause)
    if isinstance(error, GhostcleanError):
        return Failure(error.code, error.exit_code, common.clean(str(error)))
    if common.verbose:
        common.say("".join(traceback.format_exception(error)).rstrip(), "debug")
    hint = "" if common.verbose else "; --verbose shows where"
    text = f"an unexpected {type(error).__name__}: {error}; what was written stays and is journaled{hint}"
    return Failure("reconcile_failed", 1, common.clean(" ".join(text.split())))


def finish(command: str, common: Common, outcome: Outcome, *, non_fatal: bool = False) -> int:
    softened = non_fatal and outcome.exit_code in _SOFTENED
    _print(common, outcome)
    detail = _quietly(command, common, outcome) if common.quiet and command in _REPEATED else outcome.detail
    if detail:
        kept = f" (exit code {outcome.exit_code}, made 0 by --non-fatal)" if softened else ""
        common.say(f"{detail}{kept}")
    # What needs a person stays so from run to run: --quiet must not say it every five minutes.
    for warning in () if common.quiet else outcome.warnings:
        common.say(warning, "warning")
    if os.environ.get("GITHUB_ACTIONS") == "true":
        _annotate(command, common, outcome)
    return 0 if softened else outcome.exit_code


def _quietly(command: str, common: Common, outcome: Outcome) -> str | None:
    """What --quiet says of a failure, and of its end; one that repeats is said now and then."""
    from ghostclean.cli.repeated import REPEATED_INSIDE, Memo
    from ghostclean.core.alerts import NOT_LOOKED
    from ghostclean.core.attention import told_by

    document, error, detail = outcome.document, outcome.error, outcome.detail or ""
    if error == "interrupted" or document.get("dryRun"):
        return outcome.detail
    word, failing = document.get("cause") or error, document.get("failing")
    inside = document.get("reconcile") or {}
    if error is None and inside.get("error"):
        word, failing = REPEATED_INSIDE, inside["failing"]
        detail = f"the reconcile before it failed: {inside['detail']}"
    looked = document.get("reason") != NOT_LOOKED
    said = Memo(command, common.env_file).judged(word, detail, looked=looked, counted=failing is not None)
    is_told = said == detail and any(item["new"] for item in told_by(document))  # as what needs a person
    return None if is_told else said


def _print(common: Common, outcome: Outcome) -> None:
    if common.json:
        sys.stdout.writelines(_document(outcome, common))
        put("")
    else:
        for line in outcome.lines():
            put(line)
    if (why := lost_output()) is not None:
        common.say(f"stdout cannot be written ({why}): what it was to hold is lost, what was done stands", "warning")


def _document(outcome: Outcome, common: Common) -> list[str]:
    from ghostclean.render.jsondoc import document_pieces

    return document_pieces(cleaned(outcome.document, common), for_person=sys.stdout.isatty())


def cleaned(document: Document, common: Common) -> Document:
    """The document; what libraries may have had a hand in is cleaned like that on stderr."""
    document = dict(document)
    if isinstance(detail := document.get("detail"), str):
        document["detail"] = common.clean(detail)
    if isinstance(notes := document.get("notes"), list):
        document["notes"] = [common.clean(note) if isinstance(note, str) else note for note in notes]
    return document


def _annotate(command: str, common: Common, outcome: Outcome) -> None:
    from ghostclean.render.github import annotation, summary

    title = f"ghostclean {command}".strip()
    # The runner reads workflow commands from stderr as well; stdout stays one document.
    if outcome.error:
        say(annotation("error", f"{title}: {common.clean(outcome.detail or outcome.error)}"))
    for warning in outcome.warnings:
        say(annotation("warning", f"{title}: {common.clean(warning)}"))
    target = os.environ.get("GITHUB_STEP_SUMMARY")
    if not target:
        return
    try:
        with Path(target).open("a", encoding="utf-8") as file:
            file.write("\n".join(summary(title, outcome.document)) + "\n")
    except OSError as error:
        common.say(f"the step summary cannot be written: {error.strerror or error}", "warning")


# --------------------------------------------------------------------------- streams


def put(text: str) -> None:
    _write(sys.stdout, text)


def say(text: str) -> None:
    _write(sys.stderr, text)


def _write(stream: TextIO, text: str) -> None:
    stream.write(text + "\n")
    stream.flush()


def bad_option(name: str, reason: str) -> BadSettings:
    return BadSettings(f"{name} is wrong: {reason} (nothing was done)")
