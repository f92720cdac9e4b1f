"""A vocabulary of one's own: T5 can use it; what it cannot write is told."""

import re
from unittest import mock

import gin
import pytest
import sentencepiece
import seqio
import tiny_vocabulary
from t5.models import mesh_transformer  # noqa: F401, registers

from mtf_conv import cli, vocabulary
from mtf_conv.base import terminal
from mtf_conv.model_dir import before_run


@pytest.fixture(scope='module')
def text(tmp_path_factory):
  """200 lines of 20 words; two of them have capitals and what no other has."""
  lines = [' '.join(tiny_vocabulary.words(20, seed)) for seed in range(200)]
  lines[7] = lines[7].title() + ' ☃'
  path = tmp_path_factory.mktemp('text') / 'words.txt'
  path.write_text('\n\n'.join(lines), encoding='utf-8')
  return path


def run(capsys, *flags):
  code = cli.main(['mtf_conv', 'train_vocabulary', *flags])
  out, err = capsys.readouterr()
  return code, out, err


def test_t5_can_use_it(text, tmp_path, capsys, monkeypatch):
  path = tmp_path / 'new' / 'my.model'
  code, out, err = run(capsys, f'--text={text}', '--size=250', f'--out={path}')
  assert (code, err) == (0, '')
  assert out.startswith(f'{path}: 250 pieces, sha256 ')
  assert out.endswith(f'To use it: export MTF_CONV_VOCAB={path}\n')

  monkeypatch.setenv('MTF_CONV_VOCAB', str(path))
  assert vocabulary.model_path() == str(path)
  vocab = vocabulary.ConfiguredVocabulary()
  assert (vocab.pad_id, vocab.eos_id, vocab.unk_id) == (0, 1, 2)
  assert vocab.bos_id is None or vocab.bos_id < 0
  assert vocab.vocab_size == 350
  assert vocab.encode('<extra_id_0>') == [349]
  everything = 'bako Limu ' + ' '.join(map(chr, range(33, 127)))
  assert vocab.decode(vocab.encode(everything)) == everything

  plain = sentencepiece.SentencePieceProcessor(model_file=str(path))
  sentences = text.read_text(encoding='utf-8').split('\n\n')
  ratio = (sum(len(plain.encode(s)) for s in sentences)
           / sum(len(s.split()) for s in sentences))
  assert f'A word takes {ratio:.2f} pieces.' in out
  characters = set(''.join(sentences))
  assert f"It cannot write 1 of {len(characters)} characters, " in out
  assert "of the text: '☃'" in out
  assert 'labels' not in out  # All of them can be written.


def test_all_characters(text, tmp_path, capsys):
  _, out, _ = run(capsys, f'--text={text}', '--size=250',
                  '--character_coverage=1', f'--out={tmp_path}/my.model')
  characters = set(text.read_text(encoding='utf-8')) - {'\n'}
  assert f'It can write all {len(characters)} characters of the text.' in out


def test_labels_in_capitals_are_told_here_and_before_training(
    text, tmp_path, capsys, monkeypatch):
  path = tmp_path / 'my.model'
  _, out, _ = run(capsys, f'--text={text}', '--size=180', '--lowercase',
                  f'--out={path}')
  told = re.search('It cannot write (.*) labels of ag_news: (.*)', out)
  assert told.group(1) == '4 of 4'
  assert "'Sci/Tech' comes back as 'sci/tech'" in told.group(2)
  assert 'labels of imdb' not in out and 'demo_finetune' not in out

  monkeypatch.setenv('MTF_CONV_VOCAB', str(path))
  for task, lines in ('ag_news', 1), ('imdb', 0), ('demo_finetune', 0):
    gin.clear_config()
    with gin.unlock_config():
      gin.bind_parameter('utils.run.mode', 'train')
      gin.bind_parameter('mesh_train_dataset_fn.mixture_or_task_name', task)
    with mock.patch.object(terminal, 'say') as say:
      before_run.check(str(tmp_path / 'run'))
    assert say.call_count == lines
    if lines:
      assert say.call_args.args[0] == (
          "The vocabulary cannot write 4 of 4 labels of ag_news ('World' comes "
          "back as 'world'): no answer with them is ever right")


def test_long_lines_are_read_to_their_end(tmp_path, capsys):
  path = tmp_path / 'long.txt'
  path.write_text(' '.join(tiny_vocabulary.words(3000)), encoding='utf-8')
  code, _, _ = run(capsys, f'--text={path}', '--size=200',
                   f'--out={tmp_path}/my.model')
  assert code == 0
  vocab = seqio.SentencePieceVocabulary(f'{tmp_path}/my.model')
  assert len(vocab.encode('bakoli')) < 4


@pytest.mark.parametrize('flags, told', [
    (['--size=9000'], r'no vocabulary of --size=9000 can be trained on \S+: '
     'Vocabulary size too high'),
    (['--size=20'], 'Vocabulary size is smaller than required_chars'),
    (['--size=0'], r'--size \(=0\) must be at least 1'),
    (['--size=250', '--character_coverage=95'], r'\(=95.0\) must be above 0'),
    (['--size=250', '--text=/nowhere/*.txt'], "no text file matches '/nowhere"),
    (['--size=250', '--text={empty}'], 'holds no text'),
])
def test_wrong_input_is_told_in_one_line(flags, told, text, tmp_path, capsys):
  (tmp_path / 'empty.txt').write_text('\n')
  flags = [flag.replace('{empty}', f'{tmp_path}/empty.txt') for flag in flags]
  code, out, err = run(
      capsys, f'--text={text}', *flags, f'--out={tmp_path}/my.model')
  assert code == 1 and out == ''
  assert re.search(told, err) and err.count('\n') == 1
  assert not (tmp_path / 'my.model').exists()
