"""The record of a run, beside its checkpoints.

<model_dir>/record.json says what a number in this folder comes from: for each
start of a training there, the command, gin as parsed, versions, the commit, the
data, the vocabulary, the seed, the machine and the times. A training that was
killed and started again has several entries; one that was killed has no
`ended`.
"""

import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from importlib import metadata

import gin
import seqio
import tensorflow.compat.v1 as tf

from mtf_conv.base import errors, files, gin_values, machine
from mtf_conv.tasks import text_files, tfds_source

_DISTRIBUTIONS = ('mtf_conv', 't5', 'mesh-tensorflow', 'tensorflow', 'seqio',
                  'tensorflow-datasets', 'gin-config', 'numpy')
_WRITE_SECONDS = 30  # How often the step and the time of a run are written.


def read(model_dir):
  """Returns the entries of a folder, oldest first; [] if it has none.

  Args:
    model_dir: the folder.

  Raises:
    errors.UserError: the file is there and is not such a record.
  """
  path = _path(model_dir)
  try:
    with tf.io.gfile.GFile(path) as f:
      return json.loads(f.read())['starts']
  except tf.errors.NotFoundError:
    return []
  except (ValueError, TypeError, KeyError) as error:
    raise errors.UserError(
        f'{path} is damaged ({error}): move it away to go on without what '
        'it says of earlier runs') from error


def _path(model_dir):
  return os.path.join(model_dir, 'record.json')


def _write(model_dir, starts):
  """Replaces the record, whole or not at all."""
  files.write_whole(
      _path(model_dir), json.dumps({'starts': starts}, indent=1))


class Recorder(tf.train.SessionRunHook):
  """Writes the entry of one training."""

  def __init__(self, model_dir, vocabulary, seed):
    """Constructor; writes nothing.

    Args:
      model_dir: the folder of the checkpoints.
      vocabulary: a seqio.Vocabulary, or a pair of them.
      seed: of the weights; None for Estimator's own.
    """
    self._model_dir = model_dir
    self._vocabulary = vocabulary
    self._seed = seed

  def begin(self):
    """Finds the step and counts the parameters of the graph."""
    self._step = tf.train.get_or_create_global_step()
    self._parameters = count_parameters(
        {v.op.name: v.shape.as_list() for v in tf.global_variables()})

  def after_create_session(self, session, coord):
    """Adds the entry."""
    self._earlier = read(self._model_dir)
    self._start = self._written = time.monotonic()
    step = int(session.run(self._step))
    self._entry = {
        'command': shlex.join(sys.argv),
        'started': _now(),
        'ended': None,
        'seconds': 0,
        'first_step': step,
        'last_step': step,
        'parameters': self._parameters,
        'seed': self._seed,
        'vocabulary': describe_vocabulary(self._vocabulary),
        'data': _describe_data(),
        'machine': machine.processor() + f', {machine.cores()} cores',
        'commit': _commit(),
        'versions': {'python': platform.python_version(), **_versions()},
        'environment': {
            name: value for name, value in sorted(os.environ.items())
            if name.startswith(('MTF_CONV_', 'OMP_', 'TF_', 'TFDS_', 'XLA_'))},
        'gin': gin.config_str().splitlines(),
    }
    self._update(step)

  def after_run(self, run_context, run_values):
    """Notes now and then how far the run is."""
    if time.monotonic() > self._written + _WRITE_SECONDS:
      self._update(int(run_context.session.run(self._step)))

  def end(self, session):
    """Notes that the run ended by itself."""
    self._entry['ended'] = _now()
    self._update(int(session.run(self._step)))

  def _update(self, step):
    self._written = time.monotonic()
    self._entry.update(
        last_step=step, seconds=round(self._written - self._start, 1))
    _write(self._model_dir, [*self._earlier, self._entry])


def count_parameters(shapes):
  """Counts weights.

  Args:
    shapes: a dictionary from names of variables to their shapes.

  Returns:
    The number of trained weights, without the optimizer's slots.
  """
  total = 0
  for name, shape in shapes.items():
    if is_weight(name):
      count = 1
      for size in shape:
        count *= size
      total += count
  return total


def is_weight(name):
  """Returns whether a variable is trained: neither a slot nor the step."""
  return '_slot_' not in name and 'global_step' not in name


def describe_vocabulary(vocabulary):
  """Tells one vocabulary from every other.

  Args:
    vocabulary: a seqio.Vocabulary, or a pair of them, of which the second
      counts: they are the same in T5's models.

  Returns:
    A dictionary: path and sha256 of a SentencePiece model, else its name; and
    the number of pieces.
  """
  if isinstance(vocabulary, (tuple, list)):
    vocabulary = vocabulary[-1]
  path = getattr(vocabulary, 'sentencepiece_model_file', None)
  if not path:
    return {'name': type(vocabulary).__name__, 'size': vocabulary.vocab_size}
  return {'path': path, 'sha256': files.sha256(path),
          'size': vocabulary.vocab_size}


def check_vocabulary(model_dir, vocabulary):
  """Refuses a folder whose model was trained with another vocabulary.

  With another one a model reads and writes plausible nonsense.

  Args:
    model_dir: a folder; one without a record passes.
    vocabulary: as describe_vocabulary takes it.

  Raises:
    errors.UserError: names both vocabularies.
  """
  starts = read(model_dir)
  if not starts:
    return
  trained, found = starts[-1]['vocabulary'], describe_vocabulary(vocabulary)
  if {**trained, 'path': None} != {**found, 'path': None}:
    raise errors.UserError(
        f'{model_dir} was trained with the vocabulary {_name(trained)}, this '
        f'run has {_name(found)}: set MTF_CONV_VOCAB to the former, or choose '
        'another model_dir')


def _name(vocabulary):
  if 'path' not in vocabulary:
    return f'{vocabulary["name"]} of {vocabulary["size"]} pieces'
  return (f'{vocabulary["path"]} of {vocabulary["size"]} pieces '
          f'(sha256 {vocabulary["sha256"][:12]})')


def tasks_of_run():
  """Returns the tasks that the run of the gin files trains on, a list."""
  name = (gin_values.bound('mesh_train_dataset_fn.mixture_or_task_name')
          or gin_values.bound('get_vocabulary.mixture_or_task_name'))
  if not name:
    return []
  mixture = seqio.get_mixture_or_task(name)
  return mixture.tasks if isinstance(mixture, seqio.Mixture) else [mixture]


def _describe_data():
  """Says what the tasks of the run read: manifests, or the text's files."""
  return [{'task': task.name, **_describe_source(task.source)}
          for task in tasks_of_run()]


def _describe_source(source):
  if isinstance(source, text_files.TextFileDataSource):
    paths = text_files.split_files('train')
    return {'files': len(paths), 'bytes': sum(map(os.path.getsize, paths)),
            'first': paths[0], 'last': paths[-1]}
  if isinstance(source, tfds_source.PreparedTfdsDataSource):
    data = source.tfds_dataset
    manifest = tfds_source.read_manifest(data.name, data.data_dir)
    return {'builder': data.name, 'manifest': manifest}
  return {'source': type(source).__name__}


def _versions():
  found = {}
  for name in _DISTRIBUTIONS:
    try:
      found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      found[name] = None
  return found


def _commit():
  """Returns the commit of this code, with '+' if it was changed since.

  Returns:
    None where the package does not lie in a repository of its own.
  """
  package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
  try:
    top, commit = _git(package, 'rev-parse', '--show-toplevel', 'HEAD').split()
    if not os.path.samefile(top, os.path.dirname(package)):
      return None  # It is installed within somebody's repository.
    return commit + ('+' if _git(package, 'status', '--porcelain') else '')
  except (OSError, ValueError, subprocess.SubprocessError):
    return None


def _git(folder, *args):
  return subprocess.run(
      ['git', '-C', folder, *args], check=True, capture_output=True, text=True,
      timeout=10).stdout


def _now():
  return datetime.datetime.now(datetime.timezone.utc).isoformat(
      timespec='seconds')
