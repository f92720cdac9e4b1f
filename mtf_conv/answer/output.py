"""A file that is whole, or not there yet, and goes on after a kill.

What is done is in FILE.partial; FILE.partial.json says how much of it counts,
and of what it was made.
"""

import contextlib
import hashlib
import json
import os
import sys

from mtf_conv.base import errors, files, lines


class Output:
  """Answers, written in order.

  Use as a context manager, which keeps other processes from the file.

  Attributes:
    done: how many records were answered before.
  """

  def __init__(self, path, settings, overwrite=False,
               header=lambda records: b'', converted=lambda path: path):
    """Finds what is done; writes nothing.

    Args:
      path: the file; '-' for standard output, which is not gone on with.
      settings: what the answers depend on, a dictionary for JSON.
      overwrite: whether to replace a file that exists, and to start anew.
      header: of a file of so many records, a function that returns bytes, of
        the same length for any number.
      converted: a function of the path of what was written, once it is whole;
        returns that of what is to have the name instead.

    Raises:
      errors.UserError: the file exists, or what is done was made otherwise.
    """
    self.path = path
    self._settings = settings
    self._partial = f'{path}.partial'
    self._header = header
    self._converted = converted
    self._digest = hashlib.sha256()
    self.done, self._bytes, self._earlier = 0, len(self._header(0)), None
    if path == lines.STANDARD:
      return
    folder = os.path.dirname(path) or '.'
    if files.is_remote(path) or not os.path.isdir(folder):
      raise errors.UserError(f'{path}: {folder} is no folder of this machine')
    if os.path.isdir(path):
      raise errors.UserError(f'{path} is a folder: give the name of a file')
    if os.path.exists(path) and not overwrite:
      raise errors.UserError(
          f'{path} exists and is kept: --overwrite replaces it')
    if not overwrite:
      self._go_on()

  def _go_on(self):
    try:
      with open(self._state_path) as f:
        state = json.load(f)
      whole = os.path.getsize(self._partial) >= state['bytes']
    except (OSError, ValueError, KeyError):
      return  # There is nothing to go on with.
    for name, value in self._settings.items():
      found = state['settings'].get(name)
      if found != value:
        raise errors.UserError(
            f'{self._partial} was begun with {name}={found}, and now it is '
            f'{value}: give the same, or --overwrite to start anew')
    if whole:
      self.done, self._bytes = state['records'], state['bytes']
      self._earlier = state['sha256']

  @property
  def _state_path(self):
    return f'{self._partial}.json'

  def __enter__(self):
    with contextlib.ExitStack() as stack:
      if self.path == lines.STANDARD:
        self._file = sys.stdout.buffer
      else:
        try:
          stack.enter_context(files.lock(f'{self._partial}.lock', patience=0))
          self._file = stack.enter_context(open(
              self._partial, 'r+b' if self.done else 'wb'))
          self._file.truncate(self._bytes)
          self._file.seek(self._bytes)
        except TimeoutError as error:
          raise errors.UserError(
              f'{self.path} is being written by another process') from error
        except OSError as error:
          raise self._failure(error) from error
      self._stack = stack.pop_all()
    return self

  def __exit__(self, *exception):
    with contextlib.suppress(OSError):  # A write that failed is tried again.
      self._stack.close()
    if self.path != lines.STANDARD:
      with contextlib.suppress(OSError):
        os.remove(f'{self._partial}.lock')

  def skip(self, of_lines):
    """Compares the lines that were answered before with those of the input.

    Args:
      of_lines: the first `done` lines of the input, or fewer.

    Raises:
      errors.UserError: they are others.
    """
    for line in of_lines:
      self._note(line)
    if self.done and self._digest.hexdigest() != self._earlier:
      raise errors.UserError(
          f'{self._partial} has the answers to other lines than the first '
          f'{self.done} of the input: give the same input, or --overwrite to '
          'start anew')

  def _note(self, line):
    self._digest.update(line.encode() + b'\n')

  def add(self, content, of_lines):
    """Adds answers.

    Args:
      content: of the answers, bytes.
      of_lines: of the input, which they answer.

    Raises:
      errors.UserError: they cannot be written; those before are kept.
    """
    try:
      self._file.write(content)
      self._file.flush()
      for line in of_lines:
        self._note(line)
      self.done += len(of_lines)
      self._bytes += len(content)
      if self.path != lines.STANDARD:
        files.write_whole(self._state_path, json.dumps({
            'settings': self._settings, 'records': self.done,
            'bytes': self._bytes, 'sha256': self._digest.hexdigest()}))
    except BrokenPipeError:
      raise
    except OSError as error:
      raise self._failure(error) from error

  def finish(self):
    """Gives the file its name."""
    if self.path == lines.STANDARD:
      return
    try:
      self._file.seek(0)
      self._file.write(self._header(self.done))
      self._file.flush()
      os.fsync(self._file.fileno())
      os.replace(self._converted(self._partial), self.path)
      for path in (self._partial, self._state_path):
        # Renamed already; not written when there was no answer.
        with contextlib.suppress(FileNotFoundError):
          os.remove(path)
    except OSError as error:
      raise self._failure(error) from error

  def _failure(self, error):
    return errors.UserError(
        f'{self._partial}: {error.strerror}: {self.done} answers are kept '
        'there, and the same command goes on with it')
