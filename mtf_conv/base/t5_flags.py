"""The flags of t5_mesh_conv, known before T5 and TensorFlow are imported.

A wrong flag and `--help` are answered at once; both would otherwise wait for
five seconds of imports.
"""

import os
import re
from importlib import machinery

from mtf_conv.base import errors

OWN = {
    'verbose': 'Show all that TensorFlow and T5 print.',
    'check': 'Look at what the run is told and end before it begins.',
    'check_settings': 'As --check, but look at no folder: the checkpoints that '
                      'the run reads may still be to come.',
}

HELP = '''\
usage: t5_mesh_conv --model_dir=DIR --gin_file=FILE ... [--gin_param=BINDING]...

T5's own binary, with this package's layers, tasks and gin files.

  --model_dir=DIR         the folder of the run; the same command goes on there
  --gin_file=FILE         repeatable, a later one wins: a model, a run, the
                          hardware; `mtf_conv list gin` says what there is
  --gin_param=BINDING     repeatable, after all files: "TRAIN_STEPS = 1000"
  --t5_tfds_data_dir=DIR  TFDS's data, as `mtf_conv prepare` writes it
  --module_import=MODULE  repeatable: your layers and tasks, imported first
  --tpu=NAME              with --tpu_zone and --gcp_project: the TPU
  --check                 look at what the run is told and end before it begins
  --check_settings        the same, but look at no folder
  --verbose               show all that TensorFlow and T5 print
  --helpfull              all flags of T5 and TensorFlow

for instance:
  t5_mesh_conv --model_dir=runs/pretrain --gin_file=models/lightconv.tiny.gin \\
    --gin_file=objectives/span_3_15.gin --gin_file=runs/demo_pretrain.gin \\
    --gin_file=hardware/cpu.gin
'''

# What T5's main imports that defines flags, besides absl.app and absl.logging.
_FILES = {
    'absl': ('testing/absltest.py',),
    'mesh_tensorflow': ('simd_mesh_impl.py', 'transformer/utils.py'),
    't5': ('models/mesh_transformer_main.py',),
    'tensorflow': (
        'python/ops/parallel_for/pfor.py', 'python/tpu/client/client.py',
        'python/tpu/tensor_tracer_flags.py'),
    'tensorflow_datasets': ('core/community/register_path.py',),
    'tensorflow_hub': ('resolver.py',),
}


def names():
  """Returns the names of all flags, as the installed files define them."""
  from absl import app, flags, logging  # noqa: F401, define flags
  found = {*OWN, *flags.FLAGS}
  for package, files in _FILES.items():
    spec = machinery.PathFinder.find_spec(package)
    for file in files if spec else ():
      path = os.path.join(spec.submodule_search_locations[0], file)
      if os.path.exists(path):
        with open(path) as f:
          found |= set(re.findall(r'\bDEFINE_\w+\(\s*[\'"](\w+)', f.read()))
  return found


def wrong(argv):
  """Says which flag of a command line is meant for another.

  Args:
    argv: the command line, the program's name first.

  Returns:
    A line, or None where all are known. A flag that is like no other is left
    to absl: a module that T5 imports may define it.
  """
  known = names()
  for before, arg in zip(['', *argv[1:]], argv[1:]):
    flag = re.fullmatch(r'--?(\w+)(=.*)?', arg, re.S)
    # What follows a flag without a value may be its value.
    if arg == '--' or not flag or re.fullmatch(r'--?\w+', before):
      continue
    name = flag[1]
    if name not in known and name.removeprefix('no') not in known:
      meant = errors.nearest(f'--{name}', [f'--{flag}' for flag in known])
      if meant:
        return f"unknown flag '--{name}'{meant}; --help says what there is"
  return None
