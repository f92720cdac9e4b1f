"""Which tasks there are, and whether their data is on this machine.

tasks.json beside this says where the data of each task is from, so that a list
of them does not wait for TensorFlow. It is written from the tasks themselves:

  python -m mtf_conv.prepare.available
"""

import json
import os
import pathlib
import re

from mtf_conv.base import documents, errors, files

LISTING = pathlib.Path(__file__).with_name('tasks.json')


def tasks(data_dir=None):
  """Lists the tasks and mixtures, without a look at the network.

  Args:
    data_dir: TFDS's data folder; TFDS's default when None.

  Returns:
    A list of (name, whether its data is there, where it is or what to do to
    have it).
  """
  data_dir = os.path.expanduser(data_dir or files.tfds_data_dir())
  return [(name, *_data(row, data_dir))
          for name, row in json.loads(LISTING.read_text()).items()]


def _data(row, data_dir):
  """Returns (whether it is there, where or what to do) of a row of LISTING."""
  if 'tasks' in row:
    return True, 'the tasks ' + ', '.join(row['tasks'])
  if row.get('source') == 'text':
    try:
      return True, f'{len(documents.split_files("train"))} text files'
    except errors.UserError as error:
      return False, str(error)
  if 'tfds' not in row:
    return True, 'comes with mtf_conv'
  if files.is_remote(data_dir):
    return True, f'{row["tfds"]} in {data_dir}, which is not looked into'
  info = os.path.join(
      data_dir, row['tfds'].replace(':', '/'), 'dataset_info.json')
  if not os.path.exists(info):
    return False, (f'{row["tfds"]} is not prepared in {data_dir}: '
                   + row['remedy'].format(data_dir=data_dir))
  with open(info) as f:
    rows = _rows(json.load(f), row['train'])
  return True, f'{row["tfds"]} in {data_dir}, {rows:,} examples'


def _rows(info, split):
  """Counts the rows of a TFDS split, such as train or train[2%:].

  Args:
    info: what dataset_info.json holds.
    split: its name, and the part of it in percent.
  """
  name, start, end = re.fullmatch(
      r'(\w+)(?:\[(?:(\d+)%)?:(?:(\d+)%)?\])?', split).groups()
  rows = sum(int(number) for found in info['splits'] if found['name'] == name
             for number in found['shardLengths'])
  first, last = (round(rows * int(percent) / 100)
                 for percent in (start or 0, end or 100))
  return last - first


def registered():
  """Returns what LISTING holds, as the tasks and mixtures are registered."""
  import seqio

  from mtf_conv import tasks as registering  # noqa: F401
  from mtf_conv.tasks import text_files, tfds_source
  listing = {}
  for name in sorted(seqio.TaskRegistry.names()):
    source = seqio.TaskRegistry.get(name).source
    if isinstance(source, text_files.TextFileDataSource):
      listing[name] = {'source': 'text'}
    elif isinstance(source, tfds_source.PreparedTfdsDataSource):
      data = source.tfds_dataset
      listing[name] = {'tfds': data.name, 'train': source.tfds_split('train'),
                       'remedy': source.remedy}
    else:
      listing[name] = {}
  for name in sorted(seqio.MixtureRegistry.names()):
    listing[name] = {'tasks': [
        task.name for task in seqio.MixtureRegistry.get(name).tasks]}
  return listing


if __name__ == '__main__':
  files.write_whole(LISTING, json.dumps(registered(), indent=1) + '\n')
