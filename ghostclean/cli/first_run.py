"""The steps of `ghostclean init`: find, propose, compare, agree, write, prove."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghostclean.cli.dialog import Dialog
from ghostclean.cli.output import Common, Outcome, bad_option
from ghostclean.errors import AccountMismatch, BadSettings, BrokerError, GhostcleanError, LedgerFailed

if TYPE_CHECKING:
    from ghostclean.adapters.survey import Sample
    from ghostclean.core.ledger import LedgerMapping
    from ghostclean.core.proposal import Line, Overlap, Proposal
    from ghostclean.places import Place
    from ghostclean.settings import Settings

_MAPPING_FILE = "mapping.toml"
_NAMED = 5  # places that are named where none can be taken
_SHOWN = 3  # records
_WRONG_KEYS = (401, 403)
_PARTS = ("ledger", "records", "mapping", "account", "files", "checks", "dryRun", "schedule")


@dataclass
class FirstRun:
    """The steps, in their order; `flags` are settings that were chosen here, `words` the owner's names of fields."""

    common: Common
    dialog: Dialog
    flags: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    zone: str | None = None
    document: dict[str, Any] = field(default_factory=lambda: dict.fromkeys(_PARTS))

    sample: Sample = field(init=False)
    proposal: Proposal | None = field(init=False, default=None)  # None where a mapping file stands already
    mapping: LedgerMapping = field(init=False)
    overlap: Overlap = field(init=False)

    # ------------------------------------------------------------------ the owner's words

    def say(self, text: str, option: str) -> None:
        """FIELD=NAME, zone=NAME, or of words FIELD.MEANING=WORD,WORD; raises BadSettings."""
        from zoneinfo import ZoneInfo

        from ghostclean.core.proposal import FIELDS, WORDS

        name, sign, value = (part.strip() for part in text.partition("="))
        if name == "zone":
            try:
                self.zone = str(ZoneInfo(value))
            except (OSError, ValueError, KeyError):
                raise bad_option(option, f"{value!r} is no time zone; write one such as America/New_York") from None
        elif not sign or name not in (*FIELDS, *WORDS):
            known = f"{', '.join(FIELDS)}, or of a word {', '.join(WORDS)}"
            raise bad_option(option, f"it must be FIELD=NAME, with one of {known}")
        else:
            self.words[name] = value

    def settings(self) -> Settings:
        """With what was chosen here; the file that is to be written may be missing."""
        from ghostclean.settings import Settings

        return Settings.load(self.flags, self.common.env_file, may_be_missing=True)

    # ------------------------------------------------------------------ which ledger

    def choose(self, ledger: str | None) -> None:
        """The one place whose records may be trades, or the one that was named."""
        settings = self.settings()
        asked = ledger or settings.given.get("GHOSTCLEAN_LEDGER")
        if asked is None and settings.redis_url is None and self.dialog.asks:
            asked = self.dialog.ask("Where are the trades? A URL, or Enter to look around", "") or None
        samples = list(_look(settings, asked))
        judged = [(sample, *self._judged(sample)) for sample in samples]
        good = [(sample, proposal) for sample, proposal, why in judged if not why]
        if not good and asked is not None and len(judged) == 1 and judged[0][0].records and self.dialog.asks:
            good = [(judged[0][0], self._corrected(judged[0][0], judged[0][2]))]
        if not good:
            raise _nothing([(sample, why) for sample, _, why in judged], asked)
        self.sample, self.proposal = good[0] if len(good) == 1 else self._one_of(good)
        self._take_place(settings)

    def _judged(self, sample: Sample) -> tuple[Proposal | None, str]:
        """What is proposed, and nothing where a mapping file stands that fits; else why it is no ledger."""
        from ghostclean.core.proposal import NoLedger, propose

        if sample.why_not:
            return None, sample.why_not
        if (standing := self._standing(sample.place)) is not None:
            own = [record for record in sample.records if standing.belongs(record)]
            fits = own and all(standing.id_of(record) and standing.symbol_of(record) for record in own)
            return None, "" if fits else f"{standing.source} stands already and gives its records no id and symbol"
        try:
            proposal = propose(sample.records, self.words)
        except NoLedger as error:
            return None, str(error)
        return proposal.zoned(self.zone) if self.zone else proposal, ""

    def _standing(self, place: Place) -> LedgerMapping | None:
        """The mapping of a file that stands already."""
        from ghostclean.places import mapping_path

        settings = self.settings()
        return settings.mapping_of(place) if mapping_path(settings.mapping, place) is not None else None

    def _corrected(self, sample: Sample, why: str) -> Proposal:
        """The proposal after the owner's words, asked until there is one."""
        while True:
            self.dialog.tell([f"{sample.place.describe()} is no ledger as it stands: {why}"], always=True)
            answer = self.dialog.ask("FIELD=NAME to say which column it is, Enter to stop", "")
            if not answer:
                raise LedgerFailed(f"{sample.place.describe()} is no ledger: {why}; nothing was written")
            self.say(answer, "the answer")
            proposal, why = self._judged(sample)
            if proposal is not None:
                return proposal

    def _one_of(self, good: list[tuple[Sample, Proposal | None]]) -> tuple[Sample, Proposal | None]:
        names = [f"{sample.place.describe()}, {_records(sample.total)}" for sample, _ in good]
        if not self.dialog.asks:
            raise BadSettings(
                f"several places look like a ledger: {'; '.join(names[:_NAMED])}; nothing was written; "
                "choose one with --ledger"
            )
        self.dialog.tell([f"  {number}. {name}" for number, name in enumerate(names, 1)], always=True)
        answer = self.dialog.ask(f"Which one? 1-{len(names)}", "1")
        if not answer.isdecimal() or not 1 <= int(answer) <= len(names):
            raise bad_option("the choice", f"it must be a number from 1 to {len(names)}")
        return good[int(answer) - 1]

    def _take_place(self, settings: Settings) -> None:
        place = self.sample.place
        self.document["ledger"] = {"place": place.describe(), "records": self.sample.total}
        if settings.ledger_at.identity == place.identity:  # as it is set already
            return
        one_redis = settings.redis_url is None or settings.redis_url.identity == replace(place, key="").identity
        if place.kind == "redis" and settings.ledger is None and one_redis:
            self.flags |= {"REDIS_URL": place.where, "GHOSTCLEAN_LEDGER_KEY": place.key}
        else:
            self.flags["GHOSTCLEAN_LEDGER"] = place.url
        for name, value in self.flags.items():
            if os.environ.get(name) not in (None, "", value):
                raise BadSettings(
                    f"{name} of the environment names another ledger than {place.describe()}: nothing was written; "
                    "unset it, or leave out --ledger"
                )

    # ------------------------------------------------------------------ what the account says

    def meet(self) -> None:
        """Reads the ledger through the mapping and asks the account about it; makes lines sure that it proves."""
        from ghostclean import wiring
        from ghostclean.app.operate.first_run import meet, open_trades
        from ghostclean.core.proposal import confirmed, measure
        from ghostclean.core.safety import short
        from ghostclean.render.terminal import progress

        settings = self._with_keys()
        self.mapping = self._mapping()
        trades = open_trades(self.sample.records, self.mapping)
        try:
            with progress("asking the broker", not self.dialog.asks), closing(wiring.broker(settings)) as broker:
                met = meet(broker, trades)
        except BrokerError as error:
            if error.status not in _WRONG_KEYS or self.flags.pop("ALPACA_API_KEY", None) is None:
                raise
            self.dialog.tell([f"{error}; other keys, or the other kind of account?"], always=True)
            for name in ("ALPACA_SECRET_KEY", "ALPACA_LIVE_TRADE"):
                self.flags.pop(name, None)
            self.meet()
            return
        if self.proposal is not None:
            self.proposal = confirmed(self.proposal, trades, met.orders)
        self.overlap = measure(trades, met.orders, met.positions)
        account = {"id": short(met.account.id), "kind": settings.account_kind, "status": met.account.status}
        self.document["account"] = account | asdict(self.overlap)
        self.document["mapping"] = self._mapping_document()

    def _with_keys(self) -> Settings:
        """The settings with the keys of the account, asked for where they are not set."""
        settings = self.settings()
        if settings.broker.kind == "alpaca" and not settings.key_mark:
            if not self.dialog.asks:
                settings.require_credentials()
            self.flags["ALPACA_API_KEY"] = self.dialog.ask("Alpaca API key")
            self.flags["ALPACA_SECRET_KEY"] = self.dialog.ask_secret("Alpaca secret key (not shown)")
            if self.dialog.ask("Is that the live account? paper or live", "paper").lower() == "live":
                self.flags["ALPACA_LIVE_TRADE"] = "true"
            settings = self.settings()
        return settings

    def _mapping(self) -> LedgerMapping:
        """The proposed mapping, or that of a file that stands already."""
        from ghostclean.core.ledger import IDENTITY, BadMapping, read_mapping
        from ghostclean.core.proposal import is_native, mapping_text

        if self.proposal is None:
            return self._standing(self.sample.place) or IDENTITY
        if is_native(self.proposal):
            return IDENTITY
        try:
            return read_mapping(mapping_text(self.proposal, self.sample.place.describe()))
        except BadMapping as error:  # two words of the owner's
            raise BadSettings(f"{str(error).partition(': ')[2]}: nothing was written; say it otherwise") from None

    def _mapping_document(self) -> dict[str, Any]:
        lines = self.proposal.lines if self.proposal is not None else ()
        return {
            "proposed": self.proposal is not None,
            "lines": [
                {"field": line.field, "name": line.name, "certainty": str(line.trust), "why": line.why,
                 "words": {ours: list(theirs) for ours, theirs in line.words}, "form": line.form}
                for line in lines
            ],
            "notes": list(self.proposal.notes) if self.proposal is not None else [],
            "leftAlone": self._left_alone(),
            "unplaced": list(self.mapping.unplaced),
        }  # fmt: skip

    def _left_alone(self) -> list[str]:
        from ghostclean.core.proposal import columns_of

        named = {".".join(there.path) for there in self.mapping.fields.values()}
        return [] if self.mapping.whole else [name for name in columns_of(self.sample.records) if name not in named]

    # ------------------------------------------------------------------ the owner's yes

    def agree(self, *, yes: bool) -> None:
        """Shows all of it and waits for a yes; without anybody to ask, `yes` has been said, but not to a doubt."""
        self._show_records()
        self._show_mapping()
        if not self.dialog.asks:
            self._agreed_before(yes=yes)
            return
        while True:
            safe = not self.overlap.is_strange and not self._doubtful()
            answer = self.dialog.ask("Is that right? y, n, or FIELD=NAME (zone=NAME) to change a line", "yn"[not safe])
            if answer.lower() in ("y", "yes"):
                return
            if answer.lower() in ("n", "no"):
                raise BadSettings("nothing was written, as you said; ask again with `ghostclean init`")
            self._change(answer)

    def _agreed_before(self, *, yes: bool) -> None:
        if yes and self.overlap.is_strange:
            raise AccountMismatch(
                f"nothing says that {self.sample.place.describe()} is the ledger of this account: it knows none of the "
                f"{self.overlap.asked} orders that were asked about and covers no open trade; nothing was written; "
                "check keys, paper or live, and the mapping, or say yes at a terminal"
            )
        if doubtful := self._doubtful():
            said = "; ".join(f"{line.field} = {line.name} ({line.why})" for line in doubtful)
            cure = " ".join(f"--set {shlex.quote(f'{line.field}={line.name}')}" for line in doubtful)
            raise BadSettings(f"not sure of {said}: nothing was written; if it is right, say so: {cure}")
        if not yes:
            raise BadSettings("nothing was written: look at what is proposed and say --yes, or ask at a terminal")

    def _doubtful(self) -> tuple[Line, ...]:
        return self.proposal.doubtful if self.proposal is not None else ()

    def _change(self, answer: str) -> None:
        """Another proposal after the owner's word; one that makes it no ledger is not taken."""
        before = dict(self.words), self.zone, self.proposal
        try:
            if self.proposal is None:
                raise BadSettings(f"{self.mapping.source} stands already: change it there")
            self.say(answer, "the answer")
            self.proposal, why = self._judged(self.sample)
            if self.proposal is None:
                raise BadSettings(f"then it is no ledger: {why}")
            self.meet()
        except BadSettings as error:
            self.words, self.zone, self.proposal = before
            self.dialog.tell([str(error)], always=True)
            return
        self._show_mapping()

    def _show_records(self) -> None:
        from ghostclean.core.ledger import json_value
        from ghostclean.render.first_run import record_lines

        over = [self.mapping.is_final(record) for record in self.sample.records]
        order = sorted(range(len(over)), key=lambda at: (over[at], -at))
        shown = [self.sample.records[at] for at in (*order[: _SHOWN - 1], *order[: _SHOWN - 2 : -1][:1])]
        self.document["records"] = json_value(shown)
        self.dialog.tell([f"The ledger: {self.sample.place.describe()}"])
        self.dialog.tell([*record_lines(shown, self.sample.total), ""])

    def _show_mapping(self) -> None:
        from ghostclean.render.first_run import mapping_lines, overlap_lines, standing_lines

        about = self.document["mapping"]
        if self.proposal is None:
            self.dialog.tell(standing_lines(self.mapping.source))
        else:
            self.dialog.tell(mapping_lines(self.proposal, about["leftAlone"], about["unplaced"]))
        self.dialog.tell(["", *overlap_lines(self.document["account"], self.overlap), ""])

    # ------------------------------------------------------------------ files

    def write(self) -> None:
        """The two files; what stands already stays, and what is then missing is an error that says which lines."""
        from ghostclean.adapters.env_file import env_text
        from ghostclean.adapters.private_file import write_private
        from ghostclean.core.proposal import is_native, mapping_text
        from ghostclean.scrub import scrub
        from ghostclean.settings import ENV_FILE, file_values, secrets_in

        self.document["files"] = files = list[dict[str, Any]]()
        env_file = Path(self.common.env_file or ENV_FILE)
        if self.proposal is not None and not is_native(self.proposal):
            text = mapping_text(self.proposal, self.sample.place.describe())
            self._written(files, write_private(_MAPPING_FILE, text, new=True))
            self.flags["GHOSTCLEAN_MAPPING"] = files[-1]["file"]
        if not env_file.exists():
            self._written(files, write_private(env_file, env_text(self.settings().given), new=True))
            return
        there = file_values(env_file)
        missing = {name: value for name, value in self.flags.items() if there.get(name) != value}
        files.append({"file": str(env_file.absolute()), "written": False})
        if missing:
            lines = scrub(", ".join(f"{name}={value}" for name, value in missing.items()), secrets_in(missing))
            raise BadSettings(
                f"{env_file} stands already and is never written over: put {lines} into it and say `ghostclean init` "
                "again, or name another file with --env-file"
            )

    def _written(self, files: list[dict[str, Any]], path: str) -> None:
        files.append({"file": path, "written": True})
        self.dialog.tell([f"written: {path}"], always=True)

    # ------------------------------------------------------------------ the proof

    def prove(self, schedule: str) -> Outcome:
        """Doctor and a dry run with what the files say, and the schedule for it."""
        from ghostclean import api
        from ghostclean.cli.operate import doctor, schedule_for
        from ghostclean.cli.reconcile import lines

        checked = doctor(self.common)
        self.document["checks"] = checked.document["checks"]
        self.dialog.tell(["", "ghostclean doctor"])
        self.dialog.show(checked.lines())
        tried = api.reconcile(settings=self.common.settings(), dry_run=True, source="init")
        self.document["dryRun"] = tried.to_dict()
        self.dialog.tell(["", "ghostclean reconcile --dry-run"])
        self.dialog.show(lines(self.document["dryRun"], self.common))
        self.document["schedule"] = text = schedule_for(self.common, schedule)
        self.dialog.show(["", f"The schedule (ghostclean schedule {schedule}):", "", *text.splitlines()])
        worst = next((outcome for outcome in (checked, tried) if outcome.exit_code), checked)
        if not worst.exit_code:
            self.dialog.show(["", "All is set. The real run is `ghostclean reconcile`; then paste the schedule."])
        error, detail = worst.error, worst.detail
        document = {**self.document, "ok": error is None, "error": error, "detail": detail}
        return Outcome(document, worst.exit_code, error=error, detail=detail)


# --------------------------------------------------------------------------- where to look


def _look(settings: Settings, asked: str | None) -> Iterator[Sample]:
    """What was asked for; else the Redis and the database of the environment, and the files here."""
    from ghostclean.adapters.survey import is_database, look_around, look_at

    key = settings.given.get("GHOSTCLEAN_LEDGER_KEY", "")
    if asked is not None:
        return look_at(asked)
    redis = settings.redis_url.with_key(key) if settings.redis_url is not None else None
    if redis is not None and redis.key:
        return look_at(redis.url)
    database = os.environ.get("DATABASE_URL", "")
    urls = [redis.url] if redis is not None else []
    return look_around([*urls, database] if is_database(database) else urls, Path.cwd())


def _nothing(judged: list[tuple[Sample, str]], asked: str | None) -> GhostcleanError:
    """Why there is no ledger, of each place that has records, or of the one that was named."""
    told = [(s, why) for s, why in judged if s.records or asked is not None or s.place.kind != "file"]
    reasons = [f"{sample.place.describe()}: {why}" for sample, why in told]
    more = f"; and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
    if asked is None:
        looked = f" ({'; '.join(reasons[:_NAMED])}{more})" if reasons else ""
        return BadSettings(f"nothing here looks like a ledger{looked}; nothing was written; name it with --ledger")
    said = "; ".join(reasons[:_NAMED]) or "there is no table and no key with records"
    return LedgerFailed(f"no ledger: {said}{more}; nothing was written")


def _records(count: int) -> str:
    return f"{count} record{'' if count == 1 else 's'}"
