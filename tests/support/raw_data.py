"""Small raw files in the formats of the originals, and what tasks make of them.

WRITERS holds, for each task, a function that writes its raw files into a folder
under their original names; EXAMPLES the examples that follow, by split.
"""

import json

_WIKI_HEADER = ('id,comment_text,toxic,severe_toxic,obscene,threat,insult,'
                'identity_hate')
_SQUAD_CONTEXT = 'Aspen is a town (a resort) in Colorado. It is cold.'


def _write(folder, files):
  for name, text in files.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def _civil_comments(folder):
  header = ('id,comment_text,parent_text,parent_id,publication_id,created_date,'
            'article_id,split,toxicity,severe_toxicity,obscene,threat,insult,'
            'identity_attack,sexual_explicit,rating')
  zeros = '0.0,0.0,0.0,0.0,0.0,0.0,approved'
  _write(folder, {'civil_comments.csv': '\n'.join([
      header,
      f'1,"So, ""nice"".\nA caf\u00e9.",,,21,2015-09-29,6,train,0.5,{zeros}',
      f'2,Thank you!,Welcome.,1.0,21,2015-09-29,6,train,0.49,{zeros}',
      # The originals hold comments without text, and rows without a score.
      f'3,,,,21,2015-09-29,6,train,0.0,{zeros}',
      f'4,No score.,,,21,2015-09-29,6,train,,{zeros}',
      f'5,Stupid.,,,54,2016-10-01,7,test_public,1.0,{zeros}',
      f'6,Fine.,,,54,2016-10-01,7,test_private,0.1,{zeros}',
  ]) + '\n'})


def _wiki_toxicity(folder):
  _write(folder, {
      'wikidata_train.csv': (
          f'{_WIKI_HEADER},lang\n'
          '0a,"Explanation\nWhy the edits?",0,0,0,0,0,0,en\n'
          '0b,You fool,1,0,0,0,1,0,en\n'),
      'wikidata_test.csv': f'{_WIKI_HEADER},lang\n0c,Go away,1,1,0,0,0,0,en\n'})


def wiki_toxicity_of_kaggle(folder):
  """The same as the competition published it."""
  labels = _WIKI_HEADER.replace('comment_text,', '')
  _write(folder, {
      'train.csv': (
          f'{_WIKI_HEADER}\n'
          '0a,"Explanation\nWhy the edits?",0,0,0,0,0,0\n'
          '0b,You fool,1,0,0,0,1,0\n'),
      'test.csv': 'id,comment_text\n0d,Not scored\n0c,Go away\n',
      'test_labels.csv': (
          f'{labels}\n0d,-1,-1,-1,-1,-1,-1\n0c,1,1,0,0,0,0\n')})


def _imdb(folder):
  _write(folder, {
      'aclImdb/README': 'Large Movie Review Dataset v1.0',
      'aclImdb/train/neg/0_3.txt': 'Dull.<br /><br />And long.',
      'aclImdb/train/pos/0_9.txt': 'A caf\u00e9 of wonders.',
      'aclImdb/train/unsup/0_0.txt': 'Seen it.',
      'aclImdb/test/neg/0_1.txt': 'Awful.',
      'aclImdb/test/pos/0_10.txt': 'Great!'})


def _sst2(folder):
  _write(folder, {
      'SST-2/train.tsv': ('sentence\tlabel\n'
                          'hide new secretions from the parental units \t0\n'
                          'a "smart , witty follow-up \t1\n'),
      'SST-2/dev.tsv': 'sentence\tlabel\nbleak and desperate \t0\n',
      'SST-2/test.tsv': 'index\tsentence\n0\tuneasy mishmash .\n'})


def _sentiment140(folder):
  def tweet(polarity, id, text):
    return (f'"{polarity}","{id}","Mon Apr 06 22:19:45 PDT 2009","NO_QUERY",'
            f'"ann","{text}"\n').encode('latin-1')

  _write(folder, {
      'training.1600000.processed.noemoticon.csv': (
          tweet(0, 1467810369, '@bob awww, that is a bummer')
          + tweet(4, 1467810672, 'caf\u00e9 &amp; sun')),
      'testdata.manual.2009.06.14.csv': (
          tweet(4, 3, 'i love my kindle2') + tweet(2, 4, 'at the zoo')
          + tweet(0, 5, 'time warner, again'))})


def _trec(folder):
  _write(folder, {
      'train_5500.label': (
          b'DESC:manner How did serfdom develop in Russia ?\n'
          b'LOC:city Which is the sister\xf0city of Los Angeles ?\n'
          b'ENTY:food What is caf\xe9 au lait ?\n'),
      'TREC_10.label': 'NUM:dist How far is it from Denver to Aspen ?\n'})


def _ag_news(folder):
  _write(folder, {
      'ag_news_csv/train.csv': (
          '"3","Wall St. Bears","Reuters - Short-sellers, ""bears"""\n'
          # As in copies that have lost most titles.
          '"1","","The talks go on."\n'),
      'ag_news_csv/test.csv': (
          '"4","The Race","A second\\team of rocketeers"\n')})


def _mnli(folder):
  parse = '\t'.join(
      ['index', 'promptID', 'pairID', 'genre', 'sentence1_binary_parse',
       'sentence2_binary_parse', 'sentence1_parse', 'sentence2_parse'])
  cells = '\t'.join(['0', '31193', '31193n', 'government', '( )', '( )',
                     '(ROOT )', '(ROOT )'])

  def table(premise, hypothesis, labels, gold):
    names = [f'label{i + 1}' for i in range(labels)]
    header = '\t'.join([parse, 'sentence1', 'sentence2', *names])
    row = '\t'.join([cells, premise, hypothesis, *[gold] * labels])
    if labels:
      header, row = f'{header}\tgold_label', f'{row}\t{gold}'
    return f'{header}\n{row}\n'

  _write(folder, {
      'MNLI/train.tsv': table(
          'Cream skimming has "two dimensions .', 'It has two .', 1, 'neutral'),
      'MNLI/dev_matched.tsv': table(
          'The new rights are nice .', 'They are nice .', 5, 'entailment'),
      'MNLI/dev_mismatched.tsv': table(
          'Your gift is seen .', 'No one sees it .', 5, 'contradiction'),
      'MNLI/test_matched.tsv': table('A .', 'B .', 0, ''),
      'MNLI/test_mismatched.tsv': table('C .', 'D .', 0, '')})


def write_squad(folder, *answers):
  """SQuAD's files, with these answers to the question of validation."""
  def content(*questions):
    return json.dumps({'version': '1.1', 'data': [{
        'title': 'Aspen', 'paragraphs': [
            {'context': _SQUAD_CONTEXT, 'qas': list(questions)}]}]})

  def question(id, text, *answers):
    return {'id': id, 'question': text, 'answers': [
        {'text': answer, 'answer_start': _SQUAD_CONTEXT.index(answer)}
        for answer in answers]}

  _write(folder, {
      'train-v1.1.json': content(question('1', 'What is Aspen?', 'a town')),
      'dev-v1.1.json': content(
          question('2', 'Where is it?', *answers))})


def _squad(folder):
  write_squad(folder, 'in Colorado', 'Colorado')


def _cogs(folder):
  _write(folder, {
      'train.tsv': (
          'Emma rolled .\troll . agent ( x _ 1 , Emma )\tin_distribution\n'
          'Paula\tPaula\tprimitive\n'),
      'dev.tsv': (
          'The hen ran .\t* hen ( x _ 1 ) ; run . agent ( x _ 2 , x _ 1 )\t'
          'in_distribution\n'),
      'test.tsv': 'Liam ran .\trun . agent ( x _ 1 , Liam )\tin_distribution\n',
      'gen.tsv': (
          'Paula ran .\trun . agent ( x _ 1 , Paula )\tprim_to_subj_proper\n'
          'A hen ran .\then ( x _ 1 ) AND run . agent ( x _ 2 , x _ 1 )\t'
          'subj_to_obj_common\n')})


WRITERS = {
    'civil_comments': _civil_comments, 'wiki_toxicity': _wiki_toxicity,
    'imdb': _imdb, 'sst2': _sst2, 'sentiment140': _sentiment140, 'trec': _trec,
    'ag_news': _ag_news, 'mnli': _mnli, 'squad': _squad, 'cogs': _cogs,
    'cogs_gen': _cogs,
}

_WIKI_TEST = [('wiki_toxicity comment: Go away', 'toxic')]
_IMDB_TEST = [('imdb review: Awful.', 'negative'),
              ('imdb review: Great!', 'positive')]
_S140_TEST = [
    ('sentiment140 tweet: at the zoo', 'neutral'),
    ('sentiment140 tweet: i love my kindle2', 'positive'),
    ('sentiment140 tweet: time warner, again', 'negative')]
_TREC_TEST = [
    ('trec question: How far is it from Denver to Aspen ?', 'dist')]
_NEWS_TEST = [('ag_news title: The Race description: A second\\team of '
               'rocketeers', 'Sci/Tech')]
_COGS_TRAIN = [
    ('cogs sentence: Emma rolled .', 'roll . agent ( x _ 1 , Emma )'),
    ('cogs sentence: Paula', 'Paula')]
_COGS_GEN = [
    ('cogs sentence: A hen ran .',
     'hen ( x _ 1 ) AND run . agent ( x _ 2 , x _ 1 )'),
    ('cogs sentence: Paula ran .', 'run . agent ( x _ 1 , Paula )')]

# Sorted by their inputs.
EXAMPLES = {
    'civil_comments': {
        'train': [
            ('civil_comments comment: ', 'not toxic'),
            ('civil_comments comment: So, "nice".\nA caf\u00e9.', 'toxic'),
            ('civil_comments comment: Thank you!', 'not toxic')],
        'validation': [('civil_comments comment: Stupid.', 'toxic')],
        'test': [('civil_comments comment: Fine.', 'not toxic')]},
    'wiki_toxicity': {
        'train': [
            ('wiki_toxicity comment: Explanation\nWhy the edits?', 'not toxic'),
            ('wiki_toxicity comment: You fool', 'toxic')],
        'validation': _WIKI_TEST, 'test': _WIKI_TEST},
    'imdb': {
        'train': [
            ('imdb review: A caf\u00e9 of wonders.', 'positive'),
            ('imdb review: Dull.<br /><br />And long.', 'negative')],
        'validation': _IMDB_TEST, 'test': _IMDB_TEST},
    'sst2': {
        'train': [
            ('sst2 sentence: a "smart , witty follow-up ', 'positive'),
            ('sst2 sentence: hide new secretions from the parental units ',
             'negative')],
        'validation': [('sst2 sentence: bleak and desperate ', 'negative')]},
    'sentiment140': {
        'train': [
            ('sentiment140 tweet: @bob awww, that is a bummer', 'negative'),
            ('sentiment140 tweet: caf\u00e9 &amp; sun', 'positive')],
        'validation': _S140_TEST, 'test': _S140_TEST,
        'validation_not_neutral': _S140_TEST[1:]},
    'trec': {
        'train': [
            ('trec question: How did serfdom develop in Russia ?', 'manner'),
            # TFDS makes the byte 0xf0 a space; others are Latin-1.
            ('trec question: What is caf\u00e9 au lait ?', 'food'),
            ('trec question: Which is the sister city of Los Angeles ?',
             'city')],
        'validation': _TREC_TEST, 'test': _TREC_TEST},
    'ag_news': {
        'train': [
            ('ag_news title:  description: The talks go on.', 'World'),
            ('ag_news title: Wall St. Bears description: Reuters - '
             'Short-sellers, "bears"', 'Business')],
        'validation': _NEWS_TEST, 'test': _NEWS_TEST},
    'mnli': {
        'train': [('mnli hypothesis: It has two . premise: Cream skimming has '
                   '"two dimensions .', 'neutral')],
        'validation': [('mnli hypothesis: They are nice . premise: The new '
                        'rights are nice .', 'entailment')],
        'validation_mismatched': [
            ('mnli hypothesis: No one sees it . premise: Your gift is seen .',
             'contradiction')]},
    # T5 parts punctuation from words.
    'squad': {
        'train': [('question: What is Aspen ? context: Aspen is a town ( a '
                   'resort ) in Colorado . It is cold . ', 'a town')],
        'validation': [('question: Where is it ? context: Aspen is a town ( a '
                        'resort ) in Colorado . It is cold . ',
                        'in Colorado')]},
    'cogs': {
        'train': _COGS_TRAIN,
        'validation': [('cogs sentence: The hen ran .', '* hen ( x _ 1 ) ; '
                        'run . agent ( x _ 2 , x _ 1 )')],
        'test': [('cogs sentence: Liam ran .',
                  'run . agent ( x _ 1 , Liam )')]},
    'cogs_gen': {
        'train': _COGS_TRAIN, 'validation': _COGS_GEN, 'test': _COGS_GEN},
}
