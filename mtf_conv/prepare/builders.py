"""Prepares a task's data through its TFDS builder, with or without network.

TFDS's download manager takes a URL as fetched when the file it would have
written is there. So the raw files, downloaded or given, are checked and put at
that place, and the builder does the rest. TFDS writes to a folder of another
name and renames it at the end; a lock keeps a second call waiting, and what a
killed call left is removed by the next.

Beside the data, `DATA_DIR/mtf_conv/<builder>-<version>.json` tells what it was
made from, and whether that is all of the original.
"""

import glob
import json
import os
import shutil
import sys

import seqio
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import resource

from mtf_conv import tasks  # noqa: F401, registers
from mtf_conv.base import errors, files, network
from mtf_conv.prepare import raw_files
from mtf_conv.tasks import tfds_source


def _registered(source, builder):
  """Returns the URL of a source and what TFDS registered of it."""
  return next((url, info) for url, info in builder.url_infos.items()
              if source.name in (url.rsplit('/', 1)[-1], info.filename))


def _stage(source, raw_dir, builder, staging):
  """Checks the raw files of one URL and puts them where TFDS looks for them.

  Args:
    source: a raw_files.Source.
    raw_dir: the folder of the raw files; they are downloaded when None.
    builder: the TFDS builder.
    staging: TFDS's download folder.

  Returns:
    What the manifest says of the files.
  """
  url, registered = _registered(source, builder)
  if raw_dir is None:
    raw_dir = os.path.join(staging, 'raw')
    network.download(
        [url], os.path.join(raw_dir, source.name), source.name,
        'fetch it elsewhere and give --raw_dir', sha256=registered.checksum)
  target = os.path.join(
      staging, resource.get_dl_fname(url, registered.checksum))
  counts = raw_files.stage(
      source, raw_dir, target, os.path.join(staging, 'scratch'))
  with open(target + '.INFO', 'w') as f:
    json.dump({
        'urls': [url], 'dataset_names': [builder.name],
        # From it TFDS knows how to unpack it.
        'original_fname': 'raw.zip' if source.is_archive else source.name}, f)
  staged = []
  for name, rows in counts.items():
    paths = raw_files.matching(raw_dir, name)
    file = {'file': name, 'size': sum(map(os.path.getsize, paths)),
            'sha256': files.sha256(*paths), 'rows': rows}
    if name == source.name:
      file['registered_sha256'] = registered.checksum
    staged.append(file)
  return staged


def _raw_folder(raw_dir, task):
  """Returns the folder of a task's raw files: raw_dir, or one in it."""
  own = os.path.join(raw_dir, task.replace('cogs_gen', 'cogs'))
  return own if os.path.isdir(own) else raw_dir


def _check_same(manifest, raw_dir, folder):
  """Raises UserError if prepared data was made from other files than given."""
  for file in manifest['files']:
    name = file['file']
    paths = raw_files.matching(raw_dir, name)
    if paths and files.sha256(*paths) != file['sha256']:
      raise errors.UserError(
          f'{folder} is already there and was made from another {name} than '
          f'{os.path.join(raw_dir, name)} (sha256 {file["sha256"]}): remove '
          'the folder, or give another --data_dir')


def _tfds_dataset(task):
  """Returns the TFDS loader of a task, with the task's name checked."""
  task, = task_names([task])
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


def task_names(names):
  """Returns the tasks that tasks, mixtures or 'all' stand for.

  Args:
    names: a list of them.

  Raises:
    errors.UserError: one is none of these, or nothing is prepared for it.
  """
  known = [*raw_files.DATASETS, *_other_tasks()]
  found = []
  for name in names:
    if name == 'all':
      found += raw_files.DATASETS
    elif name in seqio.MixtureRegistry.names():
      found += [task.name for task in seqio.MixtureRegistry.get(name).tasks]
    elif name in known:
      found.append(name)
    else:
      choices = [*known, *seqio.MixtureRegistry.names(), 'all', 'vocabulary']
      raise errors.UserError(
          f'there is nothing to prepare for {name!r}: prepare knows '
          f'{", ".join(choices)}{errors.nearest(name, choices)}')
  return list(dict.fromkeys(found))


def _other_tasks():
  """Lists the tasks of TFDS whose raw files this package does not know."""
  sources = {name: seqio.TaskRegistry.get(name).source
             for name in sorted(seqio.TaskRegistry.names())}
  return [name for name, source in sources.items()
          if name not in raw_files.DATASETS
          and isinstance(source, tfds_source.PreparedTfdsDataSource)
          and 'mtf_conv prepare' in source.remedy]


def prepare_all(names, raw_dir=None, data_dir=None):
  """Prepares the data of tasks, of those of mixtures, or of all tasks.

  Args:
    names: a list of tasks, mixtures and 'all'.
    raw_dir: see prepare; of several tasks, those are prepared whose raw files
      are in a folder of the task's name in it.
    data_dir: see prepare.

  Raises:
    errors.UserError: see prepare. Of several tasks, all others are prepared.
  """
  failed = []
  names = task_names(names)
  for task in names:
    if len(names) > 1 and raw_dir and _raw_folder(raw_dir, task) == raw_dir:
      print(f'{task}: no folder {task} in {raw_dir}')
      continue
    try:
      prepare(task, raw_dir, data_dir)
    except errors.UserError as error:
      if len(names) == 1:
        raise
      print(f'{task}: {error}')
      failed.append(task)
  if failed:
    raise errors.UserError(f'not prepared: {", ".join(failed)}')


def prepare(task, raw_dir=None, data_dir=None):
  """Prepares the data of a task; does nothing if it is there.

  Args:
    task: the name of the task.
    raw_dir: the folder of the raw files, under their original names, or one
      that holds it under the task's name; they are downloaded when None.
    data_dir: TFDS's data folder, a local one; TFDS's default when None.

  Returns:
    The folder of the prepared data.

  Raises:
    errors.UserError: an unknown task, a missing or malformed raw file, no
      network, a full disk. What was there before is as it was.
  """
  data = _tfds_dataset(task)
  data_dir = os.path.abspath(os.path.expanduser(
      data_dir or data.data_dir or files.tfds_data_dir()))
  if task not in raw_files.DATASETS:
    return _prepare_by_tfds(task, data.name, raw_dir, data_dir)
  if raw_dir:
    raw_dir = _raw_folder(os.path.expanduser(raw_dir), task)
  try:
    return _prepare(task, data.name, raw_dir, data_dir)
  except (OSError, tf.errors.OpError) as error:
    raise errors.UserError(
        f'cannot prepare {task} in {data_dir}: '
        + getattr(error, 'message', str(error))) from error


def _prepare_by_tfds(task, tfds_name, raw_dir, data_dir):
  """Lets TFDS download and prepare what this package has no raw files of."""
  if raw_dir:
    raise errors.UserError(
        f'--raw_dir is not for {task}: its raw files are known to '
        f"TFDS's builder {tfds_name} alone")
  folder = tfds_source.prepared_dir(tfds_name, data_dir)
  if folder:
    print(f'{task} is already prepared in {folder}')
    return folder
  try:
    builder = tfds.builder(tfds_name, data_dir=data_dir)
    if builder.url_infos:
      network.require(next(iter(builder.url_infos)), task,
                      'prepare it where there is a network')
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False))
  except errors.UserError:
    raise
  except Exception as error:
    first_line = str(error).partition('\n')[0]
    raise errors.UserError(
        f"TFDS's builder {tfds_name} cannot prepare {task}: "
        f'{type(error).__name__}: {first_line}') from error
  folder = tfds_source.prepared_dir(tfds_name, data_dir)
  print(f'{task} is prepared in {folder}')
  return folder


def _prepare(task, tfds_name, raw_dir, data_dir):
  """Does the work of `prepare` in a folder that can be written."""
  work = os.path.join(data_dir, 'mtf_conv', tfds_name.replace(':', '-'))
  os.makedirs(os.path.dirname(work), exist_ok=True)
  staging, manifest_path = work + '.raw', work + '.json'
  with files.lock(work + '.lock', on_wait=lambda: print(
      'Another process is preparing this; waiting for it.')):
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
      staged = []
      for source in raw_files.DATASETS[task].sources:
        staged += _stage(source, raw_dir, builder, staging)
      for file in staged:
        _report(file)
      manifest = {
          'task': task, 'builder': tfds_name, 'files': staged,
          'original': all(_is_original(file) for file in staged)}
      # Written first: data without a manifest would be data of unknown origin,
      # a manifest without data is replaced by the next call.
      files.write_whole(manifest_path, json.dumps(manifest, indent=2))
      _build(builder, staging, manifest_path)
      splits = _splits(task, builder)
      files.write_whole(manifest_path, json.dumps(
          {**manifest, 'splits': splits}, indent=2))
    finally:
      shutil.rmtree(staging, ignore_errors=True)
    folder = tfds_source.prepared_dir(tfds_name, data_dir)
    print(f'{task} is prepared in {folder} '
          f'({", ".join(map(_describe_split, splits))})')
    return folder


def _build(builder, staging, manifest_path):
  """Lets TFDS prepare from the staged files; nothing is left if it cannot."""
  if not sys.stderr.isatty():
    tfds.disable_progress_bar()
  try:
    builder.download_and_prepare(
        download_dir=staging,
        download_config=tfds.download.DownloadConfig(try_download_gcs=False))
  except Exception as error:
    os.remove(manifest_path)
    # TFDS wraps what the system says, such as that the disk is full.
    cause = error
    while cause and not isinstance(cause, (OSError, tf.errors.OpError)):
      cause = cause.__cause__
    if cause:
      raise cause from None
    first_line = str(error).partition('\n')[0]
    # What the checks of the files let pass, such as a split without rows.
    raise errors.UserError(
        f"TFDS's builder {builder.info.full_name} cannot read the files: "
        f'{type(error).__name__}: {first_line}') from error


def _splits(task, builder):
  """Returns what the manifest says of the splits."""
  originals = raw_files.DATASETS[task].rows
  return [{'split': name, 'rows': split.num_examples,
           'original_rows': originals[name]}
          for name, split in builder.info.splits.items()]


def _describe_split(split):
  if split['rows'] == split['original_rows']:
    return f'{split["split"]} {split["rows"]}'
  return f'{split["split"]} {split["rows"]} of {split["original_rows"]}'


def _is_original(file):
  return file['sha256'] == file.get('registered_sha256')


def _report(file):
  """Says whether a raw file is the one that TFDS registered."""
  if _is_original(file):
    verdict = 'its sha256 is the registered one'
  elif 'registered_sha256' in file:
    verdict = (f'sha256 {file["sha256"]}, registered '
               f'{file["registered_sha256"]}: not the original, taken as a '
               'subset of it')
  else:
    verdict = (f'sha256 {file["sha256"]}; registered is only that of the '
               'archive it comes in')
  print(f'{file["file"]}: {file["rows"]} rows, {verdict}')
