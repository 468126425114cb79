"""Ready-made schedules for this installation: crontab lines, systemd units, a workflow.

`flock` is not needed around any of them: ghostclean takes its own lock, in the state that all
machines share, and a run that finds it taken exits 7 without doing anything.
"""

from __future__ import annotations

from importlib.resources import files


def schedule_text(kind: str, program: str, folder: str, environment_file: str) -> str:
    """The text of a schedule, with absolute paths of this installation filled in."""
    text = files("ghostclean").joinpath("schedules", f"{kind}.txt").read_text(encoding="utf-8")
    for mark, value in (("@PROGRAM@", program), ("@FOLDER@", folder), ("@ENVIRONMENT@", environment_file)):
        text = text.replace(mark, value)
    return text
