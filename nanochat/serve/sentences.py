"""
What pydantic finds wrong with a request, as a sentence for people who know the API and not pydantic.
"""
import json
from typing import Any

from pydantic import ValidationError

# By pydantic's kind of error, with what is in its context.
WRONG = {
    "missing": "is missing",
    "string_type": "must be a text",
    "string_pattern_mismatch": "must be a token's number",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "literal_error": "must be {expected}",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must not have fewer than {min_length} entries",
    "too_long": "must not have more than {max_length} entries",
    "value_error": "{error}",  # our own words
}


def complaint(error: ValidationError, body: Any) -> tuple[str, str | None]:
    """(a sentence, the field or None) of the first thing that is wrong in `body`, the request's JSON.

    Of a field's several types, each of which pydantic complains of, the client meant that which got furthest.
    """
    problems = [(_place(problem, body), problem) for problem in error.errors(include_url=False)]
    first = problems[0][0][:1]
    field = max((place for place, _ in problems if place[:1] == first), key=len)
    wrong = []
    for place, problem in problems:
        words = WRONG.get(problem["type"], "has a form that is not understood")
        words = words.format(**problem.get("ctx", {}))
        if place == field and words not in wrong:
            wrong.append(words)
            got = _got(problem)
    name = ".".join(str(step) for step in field)
    return f"{name or 'The body'} {' or '.join(wrong)}{got}.", name or None


def _place(problem, body):
    """The steps that lead to the field, without the names of types that pydantic puts among them."""
    place = []
    for step in problem["loc"]:
        in_object = isinstance(body, dict) and step in body
        if in_object or (isinstance(body, list) and isinstance(step, int)):
            body = body[step]
            place.append(step)
    if problem["type"] == "missing":
        place.append(problem["loc"][-1])
    return place


def _got(problem):
    told = problem["type"] in ("missing", "value_error") or isinstance(problem["input"], (list, dict))
    return "" if told else f", not {json.dumps(problem['input'])[:50]}"
