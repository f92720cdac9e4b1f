"""The terminal for people, a log file for everything else.

TensorFlow writes to the process's standard error from Python and from C++.
`quiet` sends both to a file, and keeps the terminal for what is said here.
"""

import logging
import os
import re
import sys

_stream = None

# What T5 logs that a person waits for.
_SHOWN = re.compile(r'eval/\S+ at step \d+: \S+')


def stream():
  """The terminal's stream, also while standard error goes to a file."""
  return _stream or sys.stderr


def say(text):
  """Prints one line for people."""
  print(text, file=stream(), flush=True)


def shows_progress():
  """Whether progress bars are wanted: not with MTF_CONV_PROGRESS=0."""
  return os.environ.get('MTF_CONV_PROGRESS', '1') != '0'


class _Shown(logging.Handler):
  """Passes the scores that T5 logs, and errors, on to the terminal."""

  def emit(self, record):
    message = record.getMessage()
    shown = _SHOWN.search(message)
    if shown:
      say(shown.group())
    elif record.levelno >= logging.ERROR:
      say(message)


def quiet(log_path):
  """Sends standard error, Python's and C++'s, to the end of log_path."""
  global _stream
  os.makedirs(os.path.dirname(log_path) or '.', exist_ok=True)
  terminal_fd = os.dup(2)
  log_fd = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
  sys.stderr.flush()
  os.dup2(log_fd, 2)
  os.close(log_fd)
  _stream = os.fdopen(terminal_fd, 'w', buffering=1)
  logging.getLogger('tensorflow').addHandler(_Shown())
