"""The error a user can mend, told in one line."""

import difflib
import re


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


def user_message(error):
  """Finds the line meant for the user in an exception.

  A UserError raised under gin comes with lines about gin's calls, and one
  raised while tf.data reads a file comes inside an error of TensorFlow's.

  Args:
    error: any exception.

  Returns:
    The line, or None when no UserError is at the bottom of it.
  """
  text = str(error)
  if not isinstance(error, UserError):
    found = re.search(r'\bUserError: (.*)', text)
    text = found.group(1) if found else ''
  return text.partition('\n')[0] or None
