"""The scale `demo` with one block and a few steps of each training."""

import json

from mtf_conv.replicate import grid


def write(folder, steps):
  """Writes a scale that saves checkpoints halfway and at the end.

  Args:
    folder: a pathlib.Path.
    steps: of each training, an even number.

  Returns:
    The path of the JSON file.
  """
  scale = grid.load_scale('demo')
  scale['gin_params'].append('num_layers = 1')
  for stage in (scale['pretrain'], scale['tasks']['demo_finetune']):
    stage['steps'] = steps
    stage['gin_params'] += [
        f'utils.run.train_steps = {steps}',
        f'utils.run.save_checkpoints_steps = {steps // 2}']
  path = folder / 'tiny.json'
  path.write_text(json.dumps(scale))
  return path
