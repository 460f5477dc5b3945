"""Shell text to commands: quotes, continued lines, comments, prompts; redirections are cut off."""

import re

from msgspec import Struct

MAXIMUM_CHARACTERS = 262_144

_PLAIN = re.compile(r"[^\s'\"\\;&|<>()#$]+")
_SPACE = re.compile(r"[ \t\r\f\v]+")
# A backslash followed by blanks and the end of the line continues nothing: a common slip of copying.
_BROKEN_CONTINUATION = re.compile(r"\\[ \t\r]+(?=\n)")
_REDIRECTION = re.compile(r"\d*(?:&>>?|>>?&?|<<?<?&?)")


class Command(Struct, frozen=True):
    """One simple command: its words, and what is wrong with how it was written."""

    words: tuple[str, ...]
    problems: tuple[str, ...] = ()


def commands(text: str) -> tuple[Command, ...]:
    """The simple commands of a shell text, in order; variables and substitutions stay as they are written."""
    reader = _Reader(text[:MAXIMUM_CHARACTERS])
    reader.read()
    return tuple(reader.commands)


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.commands: list[Command] = []
        self.words: list[str] = []
        self.problems: list[str] = []
        self.word: list[str] | None = None
        self.skip_next = False

    def read(self) -> None:
        while self.at < len(self.text):
            self._step(self.text[self.at])
        self._end_command()

    def _step(self, character: str) -> None:
        if character == "\\":
            self._escape()
        elif character in "'\"":
            self._quote(character)
        elif character == "$" and self.text.startswith("$(", self.at):
            self._substitution()
        elif character == "#" and self.word is None:
            end = self.text.find("\n", self.at)
            self.at = len(self.text) if end < 0 else end
        elif space := _SPACE.match(self.text, self.at):
            self._end_word()
            self.at = space.end()
        elif character in "\n;|()" or (character == "&" and not self.text.startswith("&>", self.at)):
            self._end_command()
            self.at += 1
        elif redirection := self._redirection():
            self._end_word()
            self.skip_next = True
            self.at = redirection
        else:
            self._plain(character)

    def _plain(self, character: str) -> None:
        plain = _PLAIN.match(self.text, self.at)
        self._add(plain[0] if plain else character)
        self.at = plain.end() if plain else self.at + 1

    def _redirection(self) -> int | None:
        """Where the operator ends; a number right before it belongs to it."""
        start = self.at
        if self.word is not None and "".join(self.word).isdecimal() and self.text[start] in "<>":
            self.word = None
        match = _REDIRECTION.match(self.text, start) if self.text[start] in "<>&" else None
        if match is None or not match[0]:
            return None
        return match.end()

    def _escape(self) -> None:
        broken = _BROKEN_CONTINUATION.match(self.text, self.at)
        if broken:
            self.problems.append(
                "a blank after the backslash at the end of a line: the shell does not continue the line"
            )
            self._end_word()
            self.at = broken.end() + 1
        elif self.text.startswith("\\\n", self.at):
            self.at += 2
        else:
            self._add(self.text[self.at + 1 : self.at + 2])
            self.at += 2

    def _quote(self, mark: str) -> None:
        self.at += 1
        parts: list[str] = []
        while True:
            end = self.text.find(mark, self.at)
            escape = self.text.find("\\", self.at, end if end >= 0 else len(self.text)) if mark == '"' else -1
            if escape >= 0:
                following = self.text[escape + 1 : escape + 2]
                keep = "" if following == "\n" else (following if following in '"\\$`' else "\\" + following)
                parts.append(self.text[self.at : escape] + keep)
                self.at = escape + 2
                continue
            if end < 0:
                self.problems.append(f"a quote {mark} is never closed")
                end = len(self.text)
            parts.append(self.text[self.at : end])
            self.at = end + 1
            break
        self._add("".join(parts))

    def _substitution(self) -> None:
        depth, end = 1, self.at + 2
        while end < len(self.text) and depth:
            depth += {"(": 1, ")": -1}.get(self.text[end], 0)
            end += 1
        self._add(self.text[self.at : end])
        self.at = end

    def _add(self, text: str) -> None:
        if self.word is None:
            self.word = []
        self.word.append(text)

    def _end_word(self) -> None:
        if self.word is None:
            return
        if self.skip_next:
            self.skip_next = False
        else:
            self.words.append("".join(self.word))
        self.word = None

    def _end_command(self) -> None:
        self._end_word()
        self.skip_next = False
        words = self.words[1:] if self.words[:1] in (["$"], ["%"], [">"]) else self.words
        if (words and not words[0].startswith("```")) or self.problems:
            self.commands.append(Command(tuple(words), tuple(dict.fromkeys(self.problems))))
        self.words, self.problems = [], []
