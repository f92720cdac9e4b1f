"""Mistakes in commands and in the files that they read, drawn by a seed."""

import os

VALUES = [
    '-1', '0', '1e9', "'\u00e9'", 'None', '[]', '{}', "''", '@x', '%x', '()',
    'True', "('a', 'b')", '10**9', '0x', "{'inputs': 1}", '1.5', 'nan']
NAMES = [
    'TRAIN_STEPS', 'LEARNING_RATE', 'MIXTURE_NAME', 'PRETRAINED', 'num_layers',
    'd_model', 'num_heads', 'dropout_rate', 'DATA_SEED', 'DECODE_LENGTH',
    'utils.run.batch_size', 'utils.run.sequence_length', 'utils.run.mode',
    'utils.run.save_checkpoints_steps', 'utils.run.mesh_shape',
    'utils.run.dataset_split', 'utils.run.eval_checkpoint_step',
    'utils.run.keep_checkpoint_max', 'Bitransformer.decode.beam_size',
    'mtf_conv.training.train_model.seed',
    'mtf_conv.layers.LightConv.filter_size',
    'mtf_conv.layers.LightConv.num_filters']


def of_command(flags, generator):
  """Makes one mistake in a command.

  Args:
    flags: a list of strings.
    generator: a random.Random.

  Returns:
    Another list.
  """
  flags = list(flags)
  place = generator.randrange(len(flags))
  kind = generator.choice(
      ['drop', 'double', 'misspell', 'cut', 'empty', 'replace', 'replace',
       'unicode', 'swap'])
  if kind == 'drop':
    del flags[place]
  elif kind == 'double':
    flags.append(flags[place])
  elif kind == 'misspell':
    at = generator.randrange(2, len(flags[place]))
    flags[place] = flags[place][:at] + flags[place][at + 1:]
  elif kind == 'cut':
    flags[place] = flags[place][:generator.randrange(2, len(flags[place]))]
  elif kind == 'empty':
    flags[place] = flags[place].partition('=')[0] + '='
  elif kind == 'unicode':
    at = generator.randrange(2, len(flags[place]))
    flags[place] = (flags[place][:at] + generator.choice('\u00e9\u4e2d \t"\'=%')
                    + flags[place][at:])
  elif kind == 'swap':
    other = generator.randrange(len(flags))
    flags[place], flags[other] = flags[other], flags[place]
  else:
    flags.append(f'--gin_param={generator.choice(NAMES)} = '
                 f'{generator.choice(VALUES)}')
  return flags


def of_file(path, generator):
  """Damages a file.

  Args:
    path: of the file.
    generator: a random.Random.

  Returns:
    What was done, a word.
  """
  with open(path, 'rb') as f:
    content = f.read()
  kind = generator.choice(['remove', 'empty', 'cut', 'bytes', 'latin', 'bom'])
  if kind == 'remove':
    os.remove(path)
    return kind
  at = generator.randrange(len(content) + 1)
  with open(path, 'wb') as f:
    f.write({
        'empty': b'',
        'cut': content[:at],
        'bytes': content[:at] + bytes([generator.randrange(256)] * 3)
                 + content[at + 3:],
        'latin': content[:at] + b'\xe9\xff' + content[at:],
        'bom': b'\xef\xbb\xbf' + content}[kind])
  return kind
