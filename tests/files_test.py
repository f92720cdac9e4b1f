"""Folders that are whole or not there."""

import os
import signal
import subprocess
import sys

import pytest

from mtf_conv.base import errors, files

_MAKES = '''
import pathlib, sys, time
from mtf_conv.base import files
with files.new_folder(sys.argv[1]) as folder:
  (folder / 'half').touch()
  print('begun', flush=True)
  time.sleep(60)
'''


def _begun(path):
  """A process that is in the midst of making a folder."""
  process = subprocess.Popen(
      [sys.executable, '-c', _MAKES, str(path)], stdout=subprocess.PIPE,
      text=True)
  assert process.stdout.readline() == 'begun\n'
  return process


def test_what_a_killed_process_left_goes(tmp_path):
  path = tmp_path / 'out'
  process = _begun(path)
  process.send_signal(signal.SIGKILL)
  process.wait()
  left, = os.listdir(tmp_path)
  assert left.startswith('out.unfinished.')
  with files.new_folder(path) as folder:
    (folder / 'file').touch()
  assert os.listdir(tmp_path) == ['out'] and os.listdir(path) == ['file']


def test_what_another_process_makes_is_left_alone(tmp_path):
  process = _begun(tmp_path / 'out')
  try:
    with files.new_folder(tmp_path / 'out'):
      pass
    assert len(os.listdir(tmp_path)) == 2
  finally:
    process.kill()
    process.wait()


def test_a_folder_that_holds_something_is_kept(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(errors.UserError, match='must be a new or an empty'):
    with files.new_folder(tmp_path):
      pass
  assert os.listdir(tmp_path) == ['file']
