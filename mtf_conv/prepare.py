"""Prepares a task's data through its TFDS builder, with or without network.

TFDS's download manager takes a URL as fetched when the file it would have
written is there. So the raw files, downloaded or given, are checked and put at
that place, and the builder does the rest. TFDS writes to a folder of another
name and renames it at the end; a lock keeps a second call waiting, and what a
killed call left is removed by the next.

Beside the data, `DATA_DIR/mtf_conv/<builder>-<version>.json` tells what it was
made from.
"""

import contextlib
import dataclasses
import fcntl
import glob
import hashlib
import json
import os
import shutil
from typing import Callable

import seqio
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import resource

from mtf_conv import errors, network, tasks  # noqa: F401, for the registry
from mtf_conv.tasks import tfds_source


def _trec_line(line, builder):
  """Returns a line of a .label file as TFDS's builder can read it.

  Args:
    line: bytes such as b'LOC:city What is the capital of Peru ?'.
    builder: the TFDS builder, which knows the labels.

  Raises:
    ValueError: what is wrong with it.
  """
  # The builder itself makes the one 0xf0 of the original a space, and takes the
  # rest for UTF-8. Other files in Latin-1 are translated.
  try:
    text = line.replace(b'\xf0', b' ').decode()
  except UnicodeDecodeError:
    text = line.decode('latin-1')
    line = text.encode()
  label, _, question = text.strip().partition(' ')
  coarse, colon, fine = label.partition(':')
  if not colon:
    raise ValueError(f"expected 'COARSE:fine question', found {label!r}")
  for name, feature in ((coarse, 'label-coarse'), (fine, 'label-fine')):
    names = builder.info.features[feature].names
    if name not in names:
      raise ValueError(
          f'unknown {feature} {name!r}{errors.nearest(name, names)}')
  if not question.strip():
    raise ValueError(f'no question after {label!r}')
  return line


@dataclasses.dataclass(frozen=True)
class RawFile:
  """A raw file that a builder downloads as it is.

  Attributes:
    name: its name, with which a URL of the builder ends.
    line: from one line of it, as bytes, and the builder to what the builder is
      given; raises ValueError.
  """

  name: str
  line: Callable


RAW_FILES = {
    'trec': (RawFile('train_5500.label', _trec_line),
             RawFile('TREC_10.label', _trec_line)),
}


def _stage(raw, path, builder, staging):
  """Checks one raw file and puts it where TFDS looks for its download.

  Args:
    raw: its RawFile.
    path: where it is.
    builder: the TFDS builder.
    staging: TFDS's download folder.

  Returns:
    What the manifest says of it.

  Raises:
    errors.UserError: the file and the line that is malformed.
  """
  url, registered = _registered(raw, builder)
  staged = os.path.join(
      staging, resource.get_dl_fname(url, registered.checksum))
  digest, size, rows = hashlib.sha256(), 0, 0
  with open(path, 'rb') as source, open(staged, 'wb') as target:
    for line in source:
      digest.update(line)
      size, rows = size + len(line), rows + 1
      try:
        target.write(raw.line(line, builder))
      except ValueError as error:
        raise errors.UserError(f'{path}:{rows}: {error}') from error
  if not rows:
    raise errors.UserError(f'{path} is empty')
  with open(staged + '.INFO', 'w') as f:
    json.dump({'urls': [url], 'dataset_names': [builder.name]}, f)
  return {'file': raw.name, 'size': size, 'sha256': digest.hexdigest(),
          'rows': rows, 'registered_sha256': registered.checksum}


def _registered(raw, builder):
  """Returns the URL of a raw file and what TFDS registered of it."""
  return next((url, info) for url, info in builder.url_infos.items()
              if url.endswith('/' + raw.name))


def _raw_path(raw, raw_dir, builder, staging):
  """Returns the path of a raw file, downloaded when there is no raw_dir."""
  if raw_dir is None:
    url, registered = _registered(raw, builder)
    path = os.path.join(staging, raw.name)
    network.download(
        url, path, raw.name, 'fetch it elsewhere and give --raw_dir',
        sha256=registered.checksum)
    return path
  path = os.path.join(os.path.expanduser(raw_dir), raw.name)
  if not os.path.isfile(path):
    raise errors.UserError(f'{path} does not exist: --raw_dir names the folder '
                           f'that holds {raw.name}')
  return path


def _sha256(path):
  digest = hashlib.sha256()
  with open(path, 'rb') as f:
    while chunk := f.read(1 << 20):
      digest.update(chunk)
  return digest.hexdigest()


def _check_same(manifest, raw_dir, folder):
  """Raises UserError if prepared data was made from other files than given."""
  for file in manifest['files']:
    path = os.path.join(os.path.expanduser(raw_dir), file['file'])
    if os.path.isfile(path) and _sha256(path) != file['sha256']:
      raise errors.UserError(
          f'{folder} is already there and was made from another '
          f'{file["file"]} than {path} (sha256 {file["sha256"]}): remove the '
          'folder, or give another --data_dir')


@contextlib.contextmanager
def _lock(path):
  """Holds a lock on a file; the system frees it if the process is killed."""
  with open(path, 'w') as f:
    try:
      fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      print('Another process is preparing this; waiting for it.')
      fcntl.flock(f, fcntl.LOCK_EX)
    yield


def _tfds_dataset(task):
  """Returns the TFDS loader of a task, with the task's name checked."""
  if task not in RAW_FILES:
    raise errors.UserError(
        f'there is nothing to prepare for {task!r}: prepare knows '
        f'{", ".join(RAW_FILES)}{errors.nearest(task, RAW_FILES)}')
  return seqio.TaskRegistry.get(task).source.tfds_dataset


def prepared_dir(task, data_dir=None):
  """Returns the folder of a task's prepared data, or None if it is not there.

  Args:
    task: the name of the task.
    data_dir: TFDS's data folder; TFDS's default when None.

  Raises:
    errors.UserError: the task is not one that is prepared.
  """
  data = _tfds_dataset(task)
  return tfds_source.prepared_dir(data.name, data_dir or data.data_dir)


def prepare(task, raw_dir=None, data_dir=None):
  """Prepares the data of a task; does nothing if it is there.

  Args:
    task: the name of the task.
    raw_dir: the folder of the raw files, under their original names; they are
      downloaded when None.
    data_dir: TFDS's data folder, a local one; TFDS's default when None.

  Returns:
    The folder of the prepared data.

  Raises:
    errors.UserError: an unknown task, a missing or malformed raw file, no
      network, a full disk. What was there before is as it was.
  """
  data = _tfds_dataset(task)
  data_dir = os.path.abspath(os.path.expanduser(
      data_dir or data.data_dir or tfds_source.default_data_dir()))
  try:
    return _prepare(task, data.name, raw_dir, data_dir)
  except (OSError, tf.errors.OpError) as error:
    raise errors.UserError(
        f'cannot prepare {task} in {data_dir}: {error}') from error


def _prepare(task, tfds_name, raw_dir, data_dir):
  """Does the work of `prepare` in a folder that can be written."""
  work = os.path.join(data_dir, 'mtf_conv', tfds_name.replace(':', '-'))
  os.makedirs(os.path.dirname(work), exist_ok=True)
  staging, manifest_path = work + '.raw', work + '.json'
  with _lock(work + '.lock'):
    folder = tfds_source.prepared_dir(tfds_name, data_dir)
    if folder:
      if raw_dir and os.path.exists(manifest_path):
        with open(manifest_path) as f:
          _check_same(json.load(f), raw_dir, folder)
      print(f'{task} is already prepared in {folder}')
      return folder
    builder = tfds.builder(tfds_name, data_dir=data_dir)
    parent, version = os.path.split(builder.data_dir)
    for left in [staging, *glob.glob(
        os.path.join(glob.escape(parent), f'incomplete.*_{version}'))]:
      shutil.rmtree(left, ignore_errors=True)
    os.mkdir(staging)
    try:
      files = [
          _stage(raw, _raw_path(raw, raw_dir, builder, staging), builder,
                 staging) for raw in RAW_FILES[task]]
      for file in files:
        _report(file)
      # Written first: data without a manifest would be data of unknown origin,
      # a manifest without data is replaced by the next call.
      with open(manifest_path, 'w') as f:
        json.dump({
            'task': task, 'builder': tfds_name, 'files': files,
            'original': all(_is_original(file) for file in files),
        }, f, indent=2)
      builder.download_and_prepare(
          download_dir=staging,
          download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    finally:
      shutil.rmtree(staging, ignore_errors=True)
    folder = tfds_source.prepared_dir(tfds_name, data_dir)
    sizes = ', '.join(f'{name} {split.num_examples}'
                      for name, split in builder.info.splits.items())
    print(f'{task} is prepared in {folder} ({sizes})')
    return folder


def _is_original(file):
  return file['sha256'] == file['registered_sha256']


def _report(file):
  """Says whether a raw file is the one that TFDS registered."""
  if _is_original(file):
    verdict = 'its sha256 is the registered one'
  else:
    verdict = (f'sha256 {file["sha256"]}, registered '
               f'{file["registered_sha256"]}: not the original, taken as a '
               'subset of it')
  print(f'{file["file"]}: {file["rows"]} rows, {verdict}')
