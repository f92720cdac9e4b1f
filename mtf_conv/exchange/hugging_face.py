"""A checkpoint of Mesh TensorFlow as a folder of Hugging Face's, and back.

Models with convolutions come with their own modelling file. T5's own models
load into transformers' T5 classes.
"""

import json
import os
import re

import numpy as np
import tensorflow.compat.v1 as tf

from mtf_conv import vocabulary
from mtf_conv.base import errors, files, gin_values
from mtf_conv.exchange import card, description, names, tokenizer
from mtf_conv.model_dir import checkpoints, record

_NOT_WEIGHTS = re.compile(r'_slot_\w+$|/adam_[mv]$|^global_step$')
_GIN_FILES = ('operative_config.gin', 'model.gin')
_DECODED = 128  # Ids, where no length of targets is known.
_VOCABULARY_DIVISOR = 128
_PART_BYTES = 1 << 30  # Of a checkpoint, copied at a time.


def write(path, out_dir, own_code=False):
  """Writes a folder of Hugging Face's.

  Args:
    path: a folder, for its last checkpoint, or the prefix of a checkpoint; its
      model is that of operative_config.gin, or model.gin, beside it. Without
      one it is T5's, and told by the shapes of the variables.
    out_dir: a folder of this machine that does not exist yet, or is empty.
    own_code: whether T5's own model, too, gets the modelling file of this
      package, which knows packed examples.

  Returns:
    A list of strings: what could not be kept, and what was assumed.

  Raises:
    errors.UserError: nothing has been written, because out_dir holds
      something or cannot be written, or because path holds no complete
      checkpoint of a model that PyTorch has a twin of.
  """
  torch = libraries()
  import safetensors
  prefix = checkpoints.resolved(str(path).rstrip('/'))
  if not tf.io.gfile.exists(f'{prefix}.index'):
    raise errors.UserError(
        f'{path} holds no checkpoint: expected a folder with a file named '
        'checkpoint, or a path such as DIR/model.ckpt-1000')
  checkpoints.require_whole(prefix, 'checkpoint')
  folder = os.path.dirname(prefix) or '.'
  reader = tf.train.load_checkpoint(prefix)
  shapes = {name: tuple(shape) for name, shape in
            reader.get_variable_to_shape_map().items()
            if not _NOT_WEIGHTS.search(name)}
  gin_file = next((file for file in (
      os.path.join(folder, name) for name in _GIN_FILES)
                   if tf.io.gfile.exists(file)), None)
  described = (description.from_gin(gin_file) if gin_file else
               description.from_shapes(shapes, prefix))
  if 'encoder/final_layer_norm/scale' in shapes:  # T5's, until 2020.
    described.norms = ('layer_norm', 'final_layer_norm')
  vocab_size, _ = shapes.get('shared/embedding', (0, 0))
  if not vocab_size:
    raise errors.UserError(f'{prefix} has no variable shared/embedding')
  spiece, extra_ids = _vocabulary(folder, vocab_size)
  with torch.device('meta'):
    model = twin(described, vocab_size, own_code)
  model.config.mtf = {
      'step': checkpoints.step_of(prefix),
      'dtype': _dtype(reader, shapes, prefix),
      'norms': list(described.norms), 'scopes': described.scopes}
  weights = _weights(model, reader, shapes, prefix)
  model.load_state_dict(weights, assign=True, strict=False)
  model.tie_weights()
  if not described.tied:  # transformers 5 has tied it.
    model.lm_head.weight = torch.nn.Parameter(weights['lm_head.weight'])
    model.config.tie_word_embeddings = False
  model.generation_config = _generation_config(gin_file is not None)
  try:
    with files.new_folder(out_dir) as new:
      model.save_pretrained(new)
      tokenizer.write(new, spiece, extra_ids)
      if gin_file:
        tf.io.gfile.copy(gin_file, str(new / _GIN_FILES[0]))
      (new / 'README.md').write_text(
          card.text(new, folder, model.config, prefix), encoding='utf-8')
  except (OSError, safetensors.SafetensorError) as error:
    raise errors.UserError(f'{out_dir} cannot be written: {error}') from error
  notes = ['Not kept: the slots of the optimizer.']
  if not gin_file:
    notes.append(f'Assumed: {folder} has no operative_config.gin, so that the '
                 'model is T5\'s of the shapes found, with its activations.')
  return notes


def read(path, out_dir):
  """Writes a checkpoint of Mesh TensorFlow from a folder of Hugging Face's.

  Args:
    path: a folder that `write` wrote, maybe trained further by then; or any T5
      of transformers.
    out_dir: a folder of this machine that does not exist yet, or is empty: for
      model.ckpt-N and operative_config.gin.

  Returns:
    A list of strings: what was assumed.

  Raises:
    errors.UserError: nothing has been written, because out_dir holds
      something or cannot be written, or because path holds no such model.
  """
  torch = libraries()
  model = _loaded(path, torch)
  config = model.config
  if config.vocab_size % _VOCABULARY_DIVISOR:
    raise errors.UserError(
        f'{path} has {config.vocab_size} embeddings: expected a multiple of '
        f'{_VOCABULARY_DIVISOR}, to which Mesh TensorFlow rounds up')
  gin_file = os.path.join(path, _GIN_FILES[0])
  notes = []
  if os.path.exists(gin_file):
    with open(gin_file) as f:
      gin_text = f.read()
  elif config.model_type == 't5':
    gin_text = t5_gin(config)
    notes.append("Assumed: T5's model, as config.json describes it.")
  else:
    raise errors.UserError(f'{gin_file} is missing: expected the one that '
                           'mtf_conv convert --to=hf wrote there')
  found = variables(model)
  parameters = dict(model.named_parameters())
  dtype = config.mtf['dtype']
  if dtype == 'bfloat16' and not all(
      torch.equal(parameters[name].bfloat16().float(), parameters[name])
      for name in found):
    dtype = 'float32'
    gin_text += "\nutils.get_variable_dtype.master_dtype = 'float32'\n"
    notes.append('The weights are not bfloat16 any more: operative_config.gin '
                 'asks for float32.')
  dtype = tf.as_dtype(dtype).as_numpy_dtype
  step = config.mtf['step']

  def parts():
    part = {'global_step': np.int64(step)}
    for name, (variable, _, transposed) in found.items():
      array = parameters[name].detach().numpy()
      part[variable] = (array.T if transposed else array).astype(dtype)
      if sum(array.nbytes for array in part.values()) > _PART_BYTES:
        yield part
        part = {}
    yield part

  try:
    with files.new_folder(out_dir) as new:
      checkpoints.write(str(new / f'model.ckpt-{step}'), parts())
      (new / _GIN_FILES[0]).write_text(gin_text)
  except (OSError, tf.errors.OpError) as error:
    raise errors.UserError(
        f'{out_dir} cannot be written: {str(error).splitlines()[0]}'
    ) from error
  return notes


def _loaded(path, torch):
  """The model of a folder, in float32; runs no code from there."""
  import transformers

  from mtf_conv.exchange import modeling_mtf_conv
  try:
    with open(os.path.join(path, 'config.json')) as f:
      model_type = json.load(f).get('model_type')
  except (OSError, ValueError) as error:
    raise errors.UserError(
        f"{path} is no folder of Hugging Face's: config.json: {error}"
    ) from error
  classes = {'mtf_conv': modeling_mtf_conv.MtfConvForConditionalGeneration,
             't5': transformers.T5ForConditionalGeneration}
  if model_type not in classes:
    raise errors.UserError(
        f'{path} holds a {model_type!r}: expected one of {[*classes]}'
        f'{errors.nearest(model_type, classes)}')
  try:
    model, loading = classes[model_type].from_pretrained(
        path, dtype=torch.float32, output_loading_info=True)
  except Exception as error:  # Of safetensors, torch and transformers.
    raise errors.UserError(
        f'{path} cannot be read: {str(error).splitlines()[0]}') from error
  for problem in ('missing_keys', 'unexpected_keys', 'mismatched_keys'):
    if loading[problem]:
      raise errors.UserError(
          f'{path}: {problem.replace("_", " ")}: {sorted(loading[problem])[0]}')
  if not getattr(model.config, 'mtf', None):
    model.config.mtf = {
        'step': 0, 'dtype': 'float32', 'norms': ['rms_norm', 'rms_norm'],
        'scopes': {stack: description.t5_scopes(stack, layers) for stack, layers
                   in (('encoder', model.config.num_layers),
                       ('decoder', model.config.num_decoder_layers))}}
  return model


def t5_gin(config):
  """Returns the model gin of a transformers.T5Config."""
  if config.feed_forward_proj not in ('relu', 'gated-gelu'):
    raise errors.UserError(
        f'feed_forward_proj (={config.feed_forward_proj!r}) must be '
        "'relu' or 'gated-gelu'")
  lines = ['# T5, from a config.json of transformers.',
           "include 'models/bi_v1.gin'", "include 'models/vocabulary.gin'", '']
  lines += [f'{name} = {getattr(config, name)}' for name in (
      'd_model', 'd_ff', 'num_layers', 'num_heads', 'd_kv', 'dropout_rate')]
  lines += [
      'decoder/transformer.make_layer_stack.num_layers = '
      f'{config.num_decoder_layers}',
      'transformer_layers.SelfAttention.relative_attention_num_buckets = '
      f'{config.relative_attention_num_buckets}',
      'transformer.Unitransformer.shared_embedding_and_softmax_weights = '
      f'{config.scale_decoder_outputs}']
  if config.feed_forward_proj == 'gated-gelu':
    lines.append("DenseReluDense.activation = ['gelu', 'linear']")
  if config.mtf['norms'][0] == 'layer_norm':  # T5's, until 2020.
    lines += [f'transformer.LayerStack.dropout_rate = {config.dropout_rate}',
              'transformer.LayerStack.norm_epsilon = '
              f'{config.layer_norm_epsilon}']
  return '\n'.join([*lines, ''])


def libraries():
  """Returns torch; raises errors.UserError where it is not installed."""
  try:
    import torch
    import transformers
  except ImportError as error:
    raise errors.UserError(
        f"no package {error.name}: pip install 'mtf_conv[torch]' brings "
        'PyTorch and transformers') from error
  transformers.logging.set_verbosity_error()
  transformers.logging.disable_progress_bar()
  return torch


def twin(described, vocab_size, own_code=False):
  """The model in PyTorch, of transformers' class where that computes it."""
  import torch
  import transformers

  from mtf_conv.exchange import modeling_mtf_conv
  shared = dict(
      vocab_size=vocab_size, d_model=described.d_model,
      dropout_rate=described.dropout_rate, layer_norm_epsilon=described.epsilon,
      tie_word_embeddings=described.tied, decoder_start_token_id=0)
  if described.is_t5 and not own_code:
    first, *_, last = described.blocks['encoder'][0]
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(
        num_layers=len(described.blocks['encoder']),
        num_decoder_layers=len(described.blocks['decoder']),
        num_heads=first['num_heads'], d_kv=first['d_kv'], d_ff=last['d_ff'],
        relative_attention_num_buckets=first['num_buckets'],
        feed_forward_proj='gated-gelu' if len(last['activations']) > 1
        else 'relu', **shared))
    if not described.tied:  # transformers 5 has tied it.
      model.lm_head = torch.nn.Linear(described.d_model, vocab_size, bias=False)
    return model
  modeling_mtf_conv.MtfConvConfig.register_for_auto_class()
  modeling_mtf_conv.MtfConvForConditionalGeneration.register_for_auto_class(
      'AutoModelForSeq2SeqLM')
  return modeling_mtf_conv.MtfConvForConditionalGeneration(
      modeling_mtf_conv.MtfConvConfig(
          encoder_blocks=described.blocks['encoder'],
          decoder_blocks=described.blocks['decoder'],
          norm_first=described.norm_first,
          max_positions=described.max_positions, **shared))


def variables(model):
  """Finds the variables of Mesh TensorFlow that a model's parameters are.

  Args:
    model: with a config whose `mtf` says what they are called.

  Returns:
    A dict from names of parameters to (names of variables, shapes, whether
    they are transposed).
  """
  mtf_names = model.config.mtf
  found = {}
  for name, parameter in model.named_parameters():
    if name == 'lm_head.weight' and is_tied(model):
      continue
    variable, transposed = names.of_variable(
        name, mtf_names['scopes'], mtf_names['norms'])
    shape = tuple(parameter.shape)
    found[name] = variable, shape[::-1] if transposed else shape, transposed
  return found


def is_tied(model):
  """Whether a model's embedding gives the logits, too."""
  return getattr(model.config, 'scale_decoder_outputs',
                 model.config.tie_word_embeddings)


def _weights(model, reader, shapes, prefix):
  """The parameters of a model, in float32, from a checkpoint."""
  import torch
  expected = variables(model)
  for variable, shape, _ in expected.values():
    found = shapes.get(variable)
    if found != shape:
      raise errors.UserError(
          f'{variable} in {prefix} ' + (
              f'has shape {list(found)}' if found else 'is missing')
          + f': expected shape {list(shape)}')
  unknown = sorted({*shapes} - {variable for variable, *_ in expected.values()})
  if unknown:
    raise errors.UserError(
        f'{prefix} has a variable {unknown[0]}, which its model does not have')
  weights = {}
  for name, (variable, _, transposed) in expected.items():
    try:
      array = reader.get_tensor(variable).astype(np.float32)
    except tf.errors.OpError as error:
      raise errors.UserError(
          f'{prefix} cannot be read at {variable}: {error.message}') from error
    weights[name] = torch.from_numpy(
        np.ascontiguousarray(array.T if transposed else array))
  return weights


def _dtype(reader, shapes, prefix):
  """The dtype of all variables, by name."""
  dtypes = reader.get_variable_to_dtype_map()
  found = sorted({dtypes[name].name for name in shapes})
  if found not in (['bfloat16'], ['float32']):
    raise errors.UserError(
        f'{prefix} has variables of {" and ".join(found)}: expected bfloat16 '
        'or float32 for all')
  return found[0]


def _vocabulary(folder, vocab_size):
  """The path of the SentencePiece model, and the number of sentinels."""
  starts = record.read(folder)
  trained = starts[-1]['vocabulary'] if starts else {}
  path = trained.get('path')
  if not path or not os.path.exists(path):
    path = vocabulary.model_path()
  if trained and files.sha256(path) != trained.get('sha256'):
    raise errors.UserError(
        f'{folder} was trained with the vocabulary {trained.get("path")} '
        f'(sha256 {trained.get("sha256", "")[:12]}), and {path} is another: '
        'set MTF_CONV_VOCAB to the former')
  pieces = len(tokenizer.read(path).pieces)
  extra_ids = trained.get('size', pieces + vocabulary.EXTRA_IDS) - pieces
  if pieces + extra_ids > vocab_size:
    raise errors.UserError(
        f'{path} has {pieces} pieces and {extra_ids} sentinels, {folder} '
        f'embeds {vocab_size}: set MTF_CONV_VOCAB to the vocabulary that it '
        'was trained with')
  return path, extra_ids


def _generation_config(has_gin):
  """How `generate` decodes unless told otherwise: greedily, as T5 does."""
  import transformers
  lengths = has_gin and gin_values.bound('utils.run.sequence_length') or {}
  return transformers.GenerationConfig(
      pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
      max_new_tokens=lengths.get('targets', _DECODED))
