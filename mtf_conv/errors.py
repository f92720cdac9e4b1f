"""The error a user can mend, told in one line."""

import difflib


class UserError(ValueError):
  """Something the user gave is wrong; the message says what and the remedy."""


def nearest(name, choices):
  """Returns the end of an error message that proposes the nearest choice.

  Args:
    name: what the user wrote.
    choices: an iterable of the valid names.

  Returns:
    A string such as "; did you mean 'trec'?", or '' when nothing is near.
  """
  matches = difflib.get_close_matches(str(name), [str(c) for c in choices], n=1)
  return f'; did you mean {matches[0]!r}?' if matches else ''
