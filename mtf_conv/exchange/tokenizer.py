"""A SentencePiece model as the files of a tokenizer of Hugging Face's.

transformers' T5Tokenizer takes each model for a unigram model with T5's
normalisation. What is written here gives the ids of training for others, too.
"""

import json
import shutil

from sentencepiece import sentencepiece_model_pb2

from mtf_conv.base import errors

_SPACE = '▁'
_UNIGRAM, _BPE = 1, 2  # SentencePiece's numbers.


def write(folder, spiece, extra_ids):
  """Writes spiece.model, tokenizer.json and tokenizer_config.json.

  Args:
    folder: a pathlib.Path.
    spiece: the path of a SentencePiece model.
    extra_ids: the number of sentinels, of which <extra_id_0> is the last id.

  Raises:
    errors.UserError: the model is neither unigram nor BPE.
  """
  model = read(spiece)
  sentinels = [f'<extra_id_{i}>' for i in range(extra_ids)]
  _tokenizer(model, sentinels).save(str(folder / 'tokenizer.json'))
  shutil.copyfile(spiece, folder / 'spiece.model')
  pad, eos, unk = (piece.piece for piece in model.pieces[:3])
  (folder / 'tokenizer_config.json').write_text(json.dumps({
      'tokenizer_class': 'PreTrainedTokenizerFast',
      'model_input_names': ['input_ids', 'attention_mask'],
      'pad_token': pad, 'eos_token': eos, 'unk_token': unk,
      'extra_ids': extra_ids, 'additional_special_tokens': sentinels,
      'clean_up_tokenization_spaces': False}, indent=2) + '\n')


def read(spiece):
  """Returns a SentencePiece model as its protocol buffer."""
  with open(spiece, 'rb') as f:
    model = sentencepiece_model_pb2.ModelProto.FromString(f.read())
  kind = model.trainer_spec.model_type
  if kind not in (_UNIGRAM, _BPE):
    raise errors.UserError(
        f'{spiece}: model_type (={kind}) must be {_UNIGRAM} (unigram) or '
        f'{_BPE} (BPE)')
  return model


def _tokenizer(model, sentinels):
  import tokenizers
  from tokenizers import decoders, models, normalizers, pre_tokenizers
  from tokenizers.processors import TemplateProcessing
  pieces = [(piece.piece, piece.score) for piece in model.pieces]
  pieces += [(sentinel, 0.0) for sentinel in reversed(sentinels)]
  pad, eos, unk = (piece for piece, _ in pieces[:3])
  fallback = model.trainer_spec.byte_fallback
  if model.trainer_spec.model_type == _UNIGRAM:
    made = models.Unigram(pieces, unk_id=2, byte_fallback=fallback)
  else:
    ids = {piece: i for i, (piece, _) in enumerate(pieces)}
    made = models.BPE(ids, _merges(pieces, ids), unk_token=unk, fuse_unk=True,
                      byte_fallback=fallback)
  tokenizer = tokenizers.Tokenizer(made)
  spec = model.normalizer_spec
  steps = []
  if spec.precompiled_charsmap:
    steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
  if spec.remove_extra_whitespaces:
    steps += [normalizers.Replace(tokenizers.Regex(' {2,}'), ' '),
              normalizers.Replace(tokenizers.Regex('^ | $'), '')]
  tokenizer.normalizer = normalizers.Sequence(steps)
  scheme = 'always' if spec.add_dummy_prefix else 'never'
  tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, scheme)
  tokenizer.decoder = decoders.Metaspace(_SPACE, scheme)
  tokenizer.post_processor = TemplateProcessing(
      single=f'$A {eos}', pair=f'$A {eos} $B {eos}', special_tokens=[(eos, 1)])
  tokenizer.add_special_tokens([pad, eos, unk, *sentinels])
  return tokenizer


def _merges(pieces, ids):
  """The pairs that BPE joins, the first ones first."""
  found = []
  for piece, score in pieces:
    pairs = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
    pairs = [pair for pair in pairs if pair[0] in ids and pair[1] in ids]
    found += [(-score, ids[left], ids[right], (left, right))
              for left, right in pairs]
  return [pair for *_, pair in sorted(found)]
