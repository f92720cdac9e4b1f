"""Files: written whole, told apart by sha256, locked."""

import contextlib
import hashlib
import os
import pathlib
import platform
import shutil
import tempfile
import time

import portalocker

from mtf_conv.base import errors

_POLL_SECONDS = 0.1


def is_remote(path) -> bool:
  """Returns whether a path is in a bucket, such as gs://bucket/folder."""
  return '://' in str(path)


def tfds_data_dir() -> str:
  """Returns the folder in which TFDS looks for data unless told another."""
  return os.environ.get('TFDS_DATA_DIR') or os.path.join(
      os.path.expanduser('~'), 'tensorflow_datasets')


def write_whole(path, content):
  """Replaces a file, so that nobody ever reads half of one.

  Args:
    path: a local file or one in a bucket; its folder is there.
    content: text or bytes.
  """
  mode = 'wb' if isinstance(content, bytes) else 'w'
  if is_remote(path):
    from tensorflow.io import gfile
    with opened(f'{path}.new', mode) as f:
      f.write(content)
    gfile.rename(f'{path}.new', path, overwrite=True)
    return
  # Another process may write the same file at this moment.
  partial = f'{path}.{os.getpid()}.new'
  with open(partial, mode) as f:
    f.write(content)
  os.replace(partial, path)


def opened(path, mode):
  """Opens a file, which may be in a bucket."""
  if is_remote(path):
    from tensorflow.io import gfile  # Slow to import, and knows buckets.
    return gfile.GFile(path, mode)
  return open(path, mode)


@contextlib.contextmanager
def new_folder(path, replaces=None):
  """Makes a folder that has its name when it is whole, and not before.

  What a process that was killed has left of one goes when it is made anew.

  Args:
    path: a folder of this machine that does not exist yet, or is empty.
    replaces: None, or the name of a file: the path may be a folder that has
      it, which then goes when the new one is whole.

  Yields:
    A pathlib.Path, where its files are to be written.

  Raises:
    errors.UserError: the path holds something; nothing was written.
  """
  is_replaced = replaces and os.path.isfile(os.path.join(path, replaces))
  if is_remote(path) or os.path.isfile(path) or (
      os.path.isdir(path) and os.listdir(path) and not is_replaced):
    raise errors.UserError(
        f'{path} must be a new or an empty folder of this machine: nothing '
        'was written')
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  prefix = f'{path.name}.unfinished.{platform.node()}.'
  for left in path.parent.iterdir():
    if left.name.startswith(prefix) and not _is_alive(
        left.name[len(prefix):].partition('.')[0]):
      shutil.rmtree(left, ignore_errors=True)
  with tempfile.TemporaryDirectory(
      prefix=f'{prefix}{os.getpid()}.', dir=path.parent) as unfinished:
    folder = pathlib.Path(unfinished, 'finished')
    folder.mkdir()
    yield folder
    if is_replaced:
      path.rename(pathlib.Path(unfinished, 'replaced'))
    folder.rename(path)


def _is_alive(pid):
  """Whether a process of this machine has this number, given as text."""
  try:
    os.kill(int(pid), 0)
  except (ProcessLookupError, ValueError):
    return False
  except PermissionError:
    pass
  return True


def sha256(*paths) -> str:
  """Returns the sha256 of files, joined, in hexadecimal digits."""
  digest = hashlib.sha256()
  for path in paths:
    with opened(path, 'rb') as f:
      while chunk := f.read(1 << 20):
        digest.update(chunk)
  return digest.hexdigest()


@contextlib.contextmanager
def lock(path, patience=None, on_wait=None):
  """Holds a file against all other processes.

  Processes forked meanwhile hold it too. The lock goes with the processes, so
  that nothing needs to be removed after a crash.

  Args:
    path: the file, made if need be.
    patience: seconds to wait for it; None to wait as long as it takes.
    on_wait: a function that is called once if there is a wait.

  Yields:
    None.

  Raises:
    TimeoutError: another process still has it after `patience` seconds.
  """
  deadline = None if patience is None else time.monotonic() + patience
  with open(path, 'w') as f:
    while True:
      try:
        portalocker.lock(f, portalocker.LOCK_EX | portalocker.LOCK_NB)
        break
      except portalocker.LockException:
        if deadline is not None and time.monotonic() > deadline:
          raise TimeoutError(f'{path} is in use by another process') from None
        if on_wait:
          on_wait()
          on_wait = None
        time.sleep(_POLL_SECONDS)
    yield
