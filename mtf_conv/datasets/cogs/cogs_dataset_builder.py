"""COGS: from English sentences to logical forms (Kim and Linzen, 2020)."""

import csv

import tensorflow_datasets as tfds
from etils import epath

# The files that the paper's experiments can have used. In September 2022
# roles in the type obj_pp_to_subj_pp of gen.tsv were corrected.
_COMMIT = '86c9be5929c3b86b510afdfe56a4df9d5d341ab9'
_URL = f'https://raw.githubusercontent.com/najoungkim/COGS/{_COMMIT}/data/'

_DESCRIPTION = """
Sentences of a fragment of English and their logical forms. The split `gen`
holds 1,000 sentences of each of 21 types, which combine words and structures in
ways that no sentence of `train` does; `distribution` names the type of a row.
"""

_CITATION = """
@inproceedings{kim-linzen-2020-cogs,
  title = {{COGS}: A Compositional Generalization Challenge Based on Semantic
           Interpretation},
  author = {Kim, Najoung and Linzen, Tal},
  booktitle = {Proceedings of the 2020 Conference on Empirical Methods in
               Natural Language Processing (EMNLP)},
  year = {2020},
  pages = {9087--9105},
  doi = {10.18653/v1/2020.emnlp-main.731},
}
"""


class Builder(tfds.core.GeneratorBasedBuilder):
  """Builder of the splits train, dev, test and gen."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': f'The data of commit {_COMMIT[:7]}.'}

  def _info(self):
    return tfds.core.DatasetInfo(
        builder=self,
        description=_DESCRIPTION,
        features=tfds.features.FeaturesDict({
            'sentence': tfds.features.Text(),
            'logical_form': tfds.features.Text(),
            'distribution': tfds.features.Text(),
        }),
        supervised_keys=('sentence', 'logical_form'),
        homepage='https://github.com/najoungkim/COGS',
        citation=_CITATION,
        license='MIT License, copyright (c) 2020 najoungkim',
    )

  def _split_generators(self, dl_manager):
    paths = dl_manager.download(
        {split: f'{_URL}{split}.tsv'
         for split in ('train', 'dev', 'test', 'gen')})
    return {split: self._generate_examples(path)
            for split, path in paths.items()}

  def _generate_examples(self, path):
    """Yields (number of the line, example)."""
    with epath.Path(path).open() as f:
      reader = csv.reader(f, delimiter='\t', quoting=csv.QUOTE_NONE)
      for i, (sentence, logical_form, distribution) in enumerate(reader):
        yield i, {'sentence': sentence, 'logical_form': logical_form,
                  'distribution': distribution}
