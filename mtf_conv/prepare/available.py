"""Which tasks there are, and whether their data is on this machine."""

import seqio

import mtf_conv.tasks  # noqa: F401, registers
from mtf_conv.base import errors, files
from mtf_conv.tasks import text_files, tfds_source


def tasks():
  """Lists the tasks and mixtures as (name, whether it has data, data)."""
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
  try:
    if isinstance(source, text_files.TextFileDataSource):
      return True, f'{len(source.list_shards("train"))} text files'
    if isinstance(source, tfds_source.PreparedTfdsDataSource):
      data = source.tfds_dataset
      data_dir = data.data_dir or tfds_source.default_data_dir()
      if files.is_remote(data_dir):
        return True, f'{data.name} in {data_dir}, which is not looked into'
      rows = source.num_input_examples('train')
      return True, f'{data.name} in {data_dir}, {rows:,} examples'
  except errors.UserError as error:
    return False, str(error)
  return True, 'comes with mtf_conv'
