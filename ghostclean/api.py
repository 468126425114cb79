"""What programs call: one reconcile run, one auto-manage run; both raise only BadSettings (and KeyboardInterrupt)."""

from __future__ import annotations

import secrets as random_bytes
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ghostclean.durations import parse_duration
from ghostclean.errors import BadSettings
from ghostclean.wiring import channels, connected

if TYPE_CHECKING:
    from ghostclean.app.deadline import Deadline
    from ghostclean.app.operate.fleet import Account
    from ghostclean.app.parts import Progress
    from ghostclean.app.ports import Lease
    from ghostclean.result import ManageResult, Result
    from ghostclean.settings import Settings

_LONGEST_NAME = 200
_RECONCILE_FIRST_SECONDS = 3.0  # of auto-manage


def reconcile(
    *,
    settings: Settings | Mapping[str, Any] | None = None,
    dry_run: bool = False,
    max: int = 500,
    close_reason: str = "reconciled_not_in_alpaca",
    close: bool = True,
    sync: bool = True,
    source: str = "python",
    run_id: str | None = None,
    deadline: float | str = 60,
    orphans: str = "report",
    allow_mass_close: bool = False,
    counted_from_start: bool = False,
    progress: Progress | None = None,
) -> Result:
    """One reconcile run; raises only BadSettings, every other failure is in the Result.

    `deadline`: seconds or text such as `3s`, counted from process start with `counted_from_start`. `progress` is
    called with what is being done and how much of how much.
    """
    from ghostclean.app.parts import Options
    from ghostclean.app.reconcile import run_reconcile

    loaded = _loaded(settings)
    if orphans not in ("report", "adopt", "flatten"):
        raise BadSettings(f"orphans must be report, adopt or flatten, not {orphans!r:.40} (nothing was done)")
    whole: object = max
    if not isinstance(whole, int) or max < 1:
        raise BadSettings("max must be a whole number of at least 1 (nothing was done)")
    close_reason, source = name_of(close_reason, "close_reason"), name_of(source, "source")
    run_id = new_run_id("reconcile") if run_id is None else name_of(run_id, "run_id")
    policy = loaded.policy(
        close=close,
        sync=sync,
        close_reason=close_reason,
        orphans=orphans,
        allow_mass_close=allow_mass_close,
        max_trades=max,
    )
    told = channels(loaded)  # before the time of the run begins: they change no run
    limit = _deadline(deadline, counted_from_start=counted_from_start, writes=not dry_run)
    with connected(loaded, told, progress) as parts:
        return run_reconcile(parts, Options(run_id, source, limit, policy, dry_run))


def auto_manage(
    *,
    settings: Settings | Mapping[str, Any] | None = None,
    dry_run: bool = False,
    force: bool = False,
    source: str = "python",
    run_id: str | None = None,
    deadline: float | str = 60,
    counted_from_start: bool = False,
    progress: Progress | None = None,
) -> ManageResult:
    """One auto-manage run, its reconcile first; as `reconcile` otherwise."""
    from ghostclean.app.auto_manage import ManageOptions, run_auto_manage
    from ghostclean.app.deadline import Deadline
    from ghostclean.app.observation import observe_for_orders
    from ghostclean.app.parts import Options
    from ghostclean.app.reconcile import run_reconcile

    loaded = _loaded(settings)
    source = name_of(source, "source")
    run_id = new_run_id("auto-manage") if run_id is None else name_of(run_id, "run_id")
    policy = loaded.policy()
    told = channels(loaded)  # before the time of the run begins: they change no run
    limit = _deadline(deadline, counted_from_start=counted_from_start, writes=not dry_run)
    options = ManageOptions(
        run_id=run_id,
        source=source,
        deadline=limit,
        manage=loaded.manage(),
        grace=policy.grace,
        interval=policy.interval,
        dry_run=dry_run,
        force=force,
    )
    with connected(loaded, told, progress) as parts:

        def reconcile_first(lease: Lease | None) -> Result:
            short = Deadline(min(_RECONCILE_FIRST_SECONDS, limit.left()), writes=not dry_run)
            inner = Options(f"{run_id}-reconcile", "auto-manage", short, policy, dry_run)
            return run_reconcile(parts, inner, lease=lease)

        return run_auto_manage(
            parts,
            options,
            reconcile_first=reconcile_first,
            observe=lambda: observe_for_orders(parts, limit, policy),
        )


def account_of(env_file: str) -> Account:
    """What the env file of one account of a fleet says; what is wrong with it stands in `error`."""
    from pathlib import Path

    from ghostclean.app.operate.fleet import ENDING, Account
    from ghostclean.settings import Settings, environment_secrets

    name, secrets = Path(env_file).name.removesuffix(ENDING), environment_secrets(env_file)
    try:
        settings = Settings.of_account(env_file)
        ledger = settings.ledger_at.identity + settings.mapping_of(settings.ledger_at).rows
    except BadSettings as error:
        return Account(name, env_file, error=str(error), secrets=secrets)
    return Account(
        name,
        env_file,
        settings.account_kind,
        ledger,
        settings.key_mark,
        settings.interval,
        secrets=secrets,
    )


def fleet_job(account: str, folder: str, command: str, options: Mapping[str, Any]) -> str:
    """What a worker of the fleet's queue does: one run of one account, its outcome as JSON text.

    The env file is in the folder of the worker's GHOSTCLEAN_FLEET, else in that of who enqueued.
    """
    import json
    import socket
    from pathlib import Path

    from ghostclean.app.operate.fleet import ENDING
    from ghostclean.render.text import said
    from ghostclean.scrub import scrub
    from ghostclean.settings import Settings, environment_secrets, fleet_folder

    env_file = str(Path(fleet_folder() or folder) / f"{account}{ENDING}")
    try:
        if not Path(env_file).is_file():
            raise BadSettings(
                f"the worker on {socket.gethostname()} has no {env_file}: nothing was done; put the file there, or set "
                "GHOSTCLEAN_FLEET of the worker to the folder that holds it"
            )
        settings = Settings.of_account(env_file)
        asked = {"settings": settings, "source": "queue", **options}
        result = reconcile(**asked) if command == "reconcile" else auto_manage(**asked)
    except BadSettings as error:
        return json.dumps({"exitCode": error.exit_code, "result": error.code, "said": "", "detail": str(error)})
    document = result.to_dict()
    detail = scrub(document["detail"], environment_secrets(env_file)) if document["detail"] else None
    word = document["error"] or document.get("outcome") or "ok"
    return json.dumps({"exitCode": result.exit_code, "result": word, "said": said(command, document), "detail": detail})


def name_of(text: object, what: str) -> str:
    """A name that is stored and printed: one printable line; raises BadSettings."""
    stripped = text.strip() if isinstance(text, str) else ""
    if not stripped or len(stripped) > _LONGEST_NAME or not stripped.isprintable():
        raise BadSettings(f"{what} is wrong: it must be 1 to {_LONGEST_NAME} printable characters (nothing was done)")
    return stripped


def new_run_id(kind: str) -> str:
    """A run id that sorts by time: `reconcile-20261122T073812-1f3a9c`."""
    return f"{kind}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{random_bytes.token_hex(3)}"


def _loaded(settings: object) -> Settings:
    from ghostclean.settings import Settings

    if settings is None:
        return Settings.load()
    if isinstance(settings, Settings):
        return settings
    if not isinstance(settings, Mapping):
        raise BadSettings("settings must be a Settings or a mapping of variables (nothing was done)")
    return Settings.of(settings)


def _deadline(deadline: float | str, *, counted_from_start: bool, writes: bool) -> Deadline:
    from ghostclean.app.deadline import Deadline, process_age

    try:
        seconds = parse_duration(str(deadline))
    except ValueError as error:
        raise BadSettings(f"deadline is wrong: {error} (nothing was done)") from None
    # Start-up counts, but never more than half: a run that may not even ask says nothing about the broker.
    used = min(process_age(), seconds / 2) if counted_from_start else 0.0
    return Deadline(seconds, already_used=used, writes=writes)
