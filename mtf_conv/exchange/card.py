"""The model card of a folder: what it holds and what it comes from."""

import os

from mtf_conv.base import files
from mtf_conv.model_dir import checkpoints, events, record

_HOW = '''```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

folder = '.'  # Where this file lies.
tokenizer = AutoTokenizer.from_pretrained(folder{trust})
model = AutoModelForSeq2SeqLM.from_pretrained(folder{trust})
batch = tokenizer(['a text', 'another one'], padding=True, return_tensors='pt')
answers = model.generate(**batch, num_beams=4)
print(tokenizer.batch_decode(answers, skip_special_tokens=True))
```'''


def text(folder, model_dir, config, prefix):
  """Writes the card.

  Args:
    folder: a pathlib.Path, with all other files in it.
    model_dir: what it was made from.
    config: of the model.
    prefix: of the checkpoint.

  Returns:
    Markdown; transformers reads the lines at its top.
  """
  own_code = config.model_type == 'mtf_conv'
  starts = record.read(model_dir)
  last = starts[-1] if starts else {}
  lines = [
      '---', 'library_name: transformers',
      'pipeline_tag: text2text-generation', 'tags: [t5, mtf_conv]', '---', '',
      f'# {os.path.basename(os.path.abspath(model_dir))}', '',
      f'{_layers(config)}. Converted from {os.path.basename(prefix)} of Mesh '
      'TensorFlow by `mtf_conv convert --to=hf`; `--to=mtf` leads back.', '',
      _HOW.format(trust=', trust_remote_code=True' if own_code else ''), '']
  if last:
    tasks = ', '.join(data['task'] for data in last['data'])
    lines += [
        '## Training', '',
        f'* Task: {tasks or "not recorded"}',
        f'* Steps: {last["last_step"]:,}; parameters: '
        f'{last["parameters"]:,}; seed: {last["seed"]}',
        f'* Vocabulary: sha256 {last["vocabulary"].get("sha256")}',
        f'* Commit of mtf_conv: {last["commit"] or "not recorded"}; '
        f'TensorFlow {last["versions"]["tensorflow"]}',
        f'* Started: {last["started"]}, on {last["machine"]}', '']
  scores = events.evaluation(model_dir, checkpoints.step_of(prefix))
  if scores:
    lines += ['## Scores of this checkpoint, validation', '',
              *(f'* {name}: {score:.4g}' for name, score in scores.items()), '']
  lines += ['## Files', '', '| file | sha256 |', '|---|---|', *(
      f'| {path.name} | {files.sha256(path)} |'
      for path in sorted(folder.iterdir())), '']
  return '\n'.join(lines)


def _layers(config):
  """Says what a model is made of."""
  if config.model_type == 't5':
    return (f'T5 of {config.num_layers} + {config.num_decoder_layers} blocks, '
            f'd_model {config.d_model}')
  mixers = [block[0]['layer'] for blocks in (
      config.encoder_blocks, config.decoder_blocks) for block in blocks]
  return (f'T5 with {" and ".join(dict.fromkeys(mixers))}, '
          f'{len(config.encoder_blocks)} + {len(config.decoder_blocks)} '
          f'blocks, d_model {config.d_model}')
