"""docs/use.md leads from a table to answers, as it says."""

import json
import re
import socket

import numpy as np
import pages
import pytest
import tiny_vocabulary

PAGE = 'docs/use.md'
HEADINGS = ['Fine-tune on your own table', 'Predict', 'Score', 'Embed',
            'Export and serve', 'Give it to others']
PORT = '8501'  # As the page has it.
# The server ends with the shell, whatever happens in between.
END = ('sh', "trap 'jobs -p | xargs -r kill' EXIT")
T5_S_OWN = 'By gin, or from Python'


@pytest.fixture
def run(tmp_path):
  """Runs what is under headings; returns what was printed."""
  def blocks(headings):
    found = [block for heading in headings
             for block in pages.blocks(PAGE, heading)]
    pages.write_files(found, tmp_path)
    port = _free_port()
    found = [END, *((language, text.replace(PORT, port))
                    for language, text in found)]
    return pages.run(found, tmp_path, MTF_CONV_VOCAB=tiny_vocabulary.write(
        tmp_path / 'tiny.model'))
  return blocks


def _free_port():
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    return str(free.getsockname()[1])


def _lines(path):
  return path.read_text().splitlines()


def test_from_a_table_to_answers(run, tmp_path):
  printed = run(HEADINGS)
  assert 'eval/my_table/accuracy at step 150: ' in printed
  assert _lines(tmp_path / 'out.txt') == ['dog', '', 'cat']
  beams = [json.loads(line) for line in _lines(tmp_path / 'beams.jsonl')]
  assert [beam['predictions'][:1] for beam in beams] == [['dog'], [''], ['cat']]
  assert all(beam['scores'] == sorted(beam['scores'], reverse=True)
             for beam in beams)
  rows = [line.split('\t') for line in _lines(tmp_path / 'scores.tsv')]
  assert [row[:2] for row in rows] == [
      line.split('\t') for line in _lines(
          tmp_path / 'my_code' / 'animals' / 'validation.tsv')]
  classes = [line.split('\t') for line in _lines(tmp_path / 'classes.tsv')]
  assert [row[1:2] for row in classes] == [['dog'], [''], ['cat']]
  assert np.load(tmp_path / 'states.npy').shape == (3, 64)
  assert '(3, 64)' in printed
  assert re.search(r'my_table, accuracy: (\S+) when packed, \1 here: the same',
                   printed)
  assert '* Tasks: my_table' in printed
  assert "[b'dog' b'' b'cat']" in printed
  assert json.loads((tmp_path / 'served.json').read_text()) == {
      'predictions': ['dog', '', 'cat']}
  served, = json.loads(
      (tmp_path / 'served_scores.json').read_text())['predictions']
  assert served == pytest.approx(float(rows[0][2]), abs=1e-4)


@pytest.mark.slow
def test_by_gin_and_from_python(run, tmp_path):
  run([*HEADINGS, T5_S_OWN])
  rows = [line.split('\t') for line in _lines(tmp_path / 'scores.tsv')]
  by_gin = _lines(tmp_path / 'by_gin.txt-150')
  assert (by_gin[0], by_gin[2]) == ('dog', 'cat') and len(by_gin) == 3
  assert [float(score) for score in _lines(tmp_path / 'by_gin.scores')] == (
      pytest.approx([float(row[2]) for row in rows], rel=1e-4))
  assert _lines(tmp_path / 'by_gin.targets') == [row[1] for row in rows]
  assert _lines(tmp_path / 'by_api.targets') == [row[1] for row in rows]
  assert len(_lines(tmp_path / 'by_api.txt-160')) == 2
