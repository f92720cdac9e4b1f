"""A trained model as a folder for others, and whether such a folder holds.

It has a checkpoint, the gin, the record and the vocabulary of its model, a card
and pack.json: the sha256 of each file and the scores. It is a model_dir like
any other.
"""

import json
import os
import pathlib
import shutil

import tensorflow.compat.v1 as tf

from mtf_conv import training
from mtf_conv.answer import trained
from mtf_conv.base import errors, files, gin_values
from mtf_conv.model_dir import checkpoints, record

_MANIFEST = 'pack.json'
_VOCABULARY = trained.VOCABULARY

_CARD = '''# {name}

{about}.

Made by mtf_conv {version}. Answers to the lines of a file, with this folder's
own vocabulary:

```sh
mtf_conv predict --model_dir=FOLDER --input=in.txt --output=out.txt
```

## Training

{training}

The command:

```sh
{command}
```

All settings are in operative_config.gin, all starts in record.json.

## Scores

{scores}

`mtf_conv verify FOLDER` compares the files with pack.json and scores the
checkpoint anew; the data of its task has to be prepared.

## Limits

A model answers as its training data does, errors and prejudices included. A
score says how often it is right on rows like those it was scored on, and no
more. Nothing else was looked at.
'''


def write(model_dir, out_dir, scores, step=None):
  """Writes the folder.

  Args:
    model_dir: the folder of a run.
    out_dir: a folder of this machine that does not exist yet, or is empty.
    scores: a list of dicts with task, metric, score and error in percent (None
      where it is not known), and rows; of the checkpoint, on the split
      'validation'.
    step: of the checkpoint; None for the last one that is whole.

  Returns:
    The prefix of the checkpoint that was taken.

  Raises:
    errors.UserError: the folder lacks something; out_dir holds something.
  """
  starts = record.read(model_dir)
  if not starts:
    raise errors.UserError(
        f'{model_dir} has no record.json: what its model was trained on is '
        'not known')
  found = trained.load(model_dir, step)
  vocabulary = getattr(found.vocabulary, 'sentencepiece_model_file', None)
  if not vocabulary:
    raise errors.UserError(
        f'{model_dir} was trained with {type(found.vocabulary).__name__}: only '
        'a SentencePieceVocabulary can be packed')
  name = os.path.basename(found.checkpoint)
  with files.new_folder(out_dir) as new:
    for path in tf.io.gfile.glob(f'{found.checkpoint}.*'):
      if not path.endswith('.meta'):  # The graph, which gin builds anew.
        tf.io.gfile.copy(path, str(new / os.path.basename(path)))
    shutil.copyfile(vocabulary, new / _VOCABULARY)
    (new / 'checkpoint').write_text(f'model_checkpoint_path: "{name}"\n')
    for file in ('operative_config.gin', 'record.json'):
      with files.opened(os.path.join(model_dir, file), 'r') as f:
        text = f.read()
      # Where this machine had them tells others nothing.
      text = text.replace(starts[-1]['vocabulary']['path'], _VOCABULARY)
      (new / file).write_text(text.replace(os.path.abspath(model_dir), '.'))
    (new / 'README.md').write_text(
        _card(os.path.basename(os.path.abspath(out_dir)), found.checkpoint,
              record.read(str(new))[-1], scores))
    (new / _MANIFEST).write_text(json.dumps({
        'step': checkpoints.step_of(found.checkpoint), 'scores': scores,
        'files': {path.name: files.sha256(path)
                  for path in sorted(new.iterdir())}}, indent=1) + '\n')
  return found.checkpoint


def _card(name, prefix, start, scores):
  """Returns the card, Markdown."""
  lines = [
      *_pretraining(gin_values.bound('utils.run.init_checkpoint')),
      f'* Tasks: {", ".join(data["task"] for data in start["data"])}',
      f'* Steps: {checkpoints.step_of(prefix):,}; seed: {start["seed"]}',
      f'* Vocabulary: {start["vocabulary"]["size"]:,} pieces, sha256 '
      f'{start["vocabulary"]["sha256"]}',
      f'* Commit of mtf_conv: {start["commit"] or "not recorded"}; TensorFlow '
      f'{start["versions"]["tensorflow"]}; {start["machine"]}']
  return _CARD.format(
      name=name, about=training.describe(dict(tf.train.list_variables(prefix))),
      version=start['versions']['mtf_conv'], training='\n'.join(lines),
      command=start['command'],
      scores='\n'.join(map(_sentence, scores)) or 'It was not scored.')


def _pretraining(checkpoint):
  """Says what a model was before, where that is still to be read."""
  if not checkpoint:
    return ['* Begun with random weights']
  starts = record.read(os.path.dirname(checkpoint))
  if not starts:
    return [f'* Pre-trained: {checkpoint}']
  tasks = ', '.join(data['task'] for data in starts[-1]['data'])
  return [f'* Pre-trained on {tasks}, {checkpoints.step_of(checkpoint):,} '
          'steps']


def _sentence(score):
  error = '' if score['error'] is None else (
      f' ± {score["error"]:.2f}, the standard error over rows')
  return (f'* {score["task"]}, {score["metric"]}: {score["score"]:.2f}{error} '
          f'({score["rows"]} rows of the split validation)')


def read(folder):
  """Returns pack.json.

  Args:
    folder: one that `write` has written.

  Raises:
    errors.UserError: it is none; or files of it are missing or have changed,
      which the error names.
  """
  folder = pathlib.Path(folder)
  try:
    manifest = json.loads((folder / _MANIFEST).read_text())
    sums = manifest['files']
  except FileNotFoundError:
    raise errors.UserError(
        f'{folder} has no {_MANIFEST}: mtf_conv pack writes one') from None
  except (ValueError, KeyError, TypeError) as error:
    raise errors.UserError(
        f'{folder / _MANIFEST} is damaged: {error}') from error
  missing = [name for name in sums if not (folder / name).is_file()]
  changed = [name for name in sums if name not in missing
             and files.sha256(folder / name) != sums[name]]
  problems = [f'{kind}: {", ".join(names)}' for kind, names in (
      ('missing', missing), ('changed', changed)) if names]
  if problems:
    raise errors.UserError(
        f'{folder} is not what was packed: {"; ".join(problems)}')
  return manifest
