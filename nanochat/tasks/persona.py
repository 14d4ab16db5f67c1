"""
What the assistant is called and who made it: `--name` and `--made_by` of mid_train and chat_sft.

All generated conversations call it nanochat (kindergarten/talk.txt, manners.txt). Another name is put into
what both sides say there, and into what graders look for. People's own data are left as they are.
"""
import re
from dataclasses import dataclass
from typing import Any

NAME = "nanochat"
MADE_BY = "the person who ran this code"
_EITHER = re.compile(rf"\b(?:{NAME}|{MADE_BY})\b", re.IGNORECASE)
_SPELLED = re.compile(r"n\d*-a\d*-n\d*-o|t-a-h-c")  # then the word itself is spoken of


@dataclass(frozen=True)
class Persona:
    name: str = NAME
    made_by: str = MADE_BY  # ends the sentence "I was trained from scratch by .."

    def speaks(self, value: Any) -> Any:
        """A conversation, or a part of one, as it is with this assistant."""
        if self == USUAL or _SPELLED.search(str(value)):
            return value
        return self._in(value)

    def _in(self, value):
        if isinstance(value, str):
            return _EITHER.sub(self._word, value)
        if isinstance(value, list):
            return [self._in(part) for part in value]
        if isinstance(value, dict):
            return {key: self._in(part) for key, part in value.items()}
        return value

    def _word(self, found: re.Match[str]) -> str:
        if found[0].lower() == NAME:
            return self.name
        begins = found[0][0].isupper()  # a sentence
        return self.made_by[0].upper() + self.made_by[1:] if begins else self.made_by


USUAL = Persona()
