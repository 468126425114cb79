"""Foreign text on a person's screen: as one harmless line, and in a command that can be pasted into a shell."""

from __future__ import annotations

import shlex


def printable(text: object, most: int | None = 400) -> str:
    """One line that no terminal can be tricked by: control characters become `?`."""
    line = "".join(c if c.isprintable() else " " if c in "\t\r\n" else "?" for c in str(text))
    return line if most is None or len(line) <= most else line[: most - 1] + "…"


def command(name: str, subject: str, *options: str) -> str:
    """The command line about a subject, whatever that is called; in full, for half a name is another one."""
    word = shell_word(subject)
    words = (*options, "--", word) if subject.startswith("-") else (word, *options)
    return " ".join(("ghostclean", name, *words))


def shell_word(text: str) -> str:
    """One word for bash and zsh; what cannot be seen is spelled out."""
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(_spelled, text))}'"


def _spelled(character: str) -> str:
    if character in "'\\":
        return f"\\{character}"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode(errors="surrogatepass"))
