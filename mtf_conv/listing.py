"""mtf_conv list: the models, tasks and gin files there are."""

import re

from mtf_conv import gin_files


def models():
  """Lists the models.

  Returns:
    A list of (name, size, parameters as its gin file states them, gin file),
    the sizes of a model from small to large.
  """
  found = []
  for name, size, path in gin_files.models():
    stated = re.search(r'# ([\d,]+) parameters', gin_files.read(path))
    found.append((name, size, stated.group(1) if stated else '', path))
  return found


def gin_descriptions():
  """Lists the gin files as (path, first line of its comment)."""
  return [(path, gin_files.read(path).split('\n', 1)[0].lstrip('# '))
          for path in gin_files.list_gin_files()]


def tasks():
  """Lists the tasks and mixtures as (name, whether it has data, data)."""
  # Imported here: it takes TensorFlow's ten seconds.
  import seqio

  from mtf_conv import tasks as _  # noqa: F401
  found = [(name, *data_of(seqio.TaskRegistry.get(name).source))
           for name in sorted(seqio.TaskRegistry.names())]
  found += [(name, True, 'the tasks ' + ', '.join(
      task.name for task in seqio.MixtureRegistry.get(name).tasks))
            for name in sorted(seqio.MixtureRegistry.names())]
  return found


def data_of(source):
  """Says where a task's data is, without a look at the network.

  Args:
    source: the task's seqio.DataSource.

  Returns:
    (whether it is there, where it is or what to do to have it).
  """
  from mtf_conv import errors
  from mtf_conv.tasks import text_files, tfds_source
  try:
    if isinstance(source, text_files.TextFileDataSource):
      return True, f'{len(source.list_shards("train"))} text files'
    if isinstance(source, tfds_source.PreparedTfdsDataSource):
      data = source.tfds_dataset
      data_dir = data.data_dir or tfds_source.default_data_dir()
      if '://' in data_dir:
        return True, f'{data.name} in {data_dir}, which is not looked into'
      rows = source.num_input_examples('train')
      return True, f'{data.name} in {data_dir}, {rows:,} examples'
  except errors.UserError as error:
    return False, str(error)
  return True, 'comes with mtf_conv'


def show(kind=None):
  """Prints what there is.

  Args:
    kind: 'models', 'tasks' or 'gin'; all of them when None.
  """
  if kind in (None, 'models'):
    _print_table('Models', models(), numbers=(2,))
  if kind in (None, 'gin'):
    _print_table('gin files in ' + ', '.join(gin_files.folders()),
                 gin_descriptions())
  if kind in (None, 'tasks'):
    _print_table('Tasks and their data', [
        (name, 'ready' if there else 'not ready', text)
        for name, there, text in tasks()])


def _print_table(title, rows, numbers=()):
  widths = [max(map(len, column)) for column in zip(*rows)]
  print(f'{title}:')
  for row in rows:
    cells = (cell.rjust(width) if i in numbers else cell.ljust(width)
             for i, (cell, width) in enumerate(zip(row, widths)))
    print('  ' + '  '.join(cells).rstrip())
  print(flush=True)
