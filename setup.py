"""Installs mtf_conv, with gin/ and tasks/ of this repository inside it."""

import setuptools

setuptools.setup(
    name='mtf_conv',
    version='0.1.0',
    description=(
        'Pre-trained convolutions for the T5 codebase: lightweight, dynamic '
        'and dilated convolutions in Mesh TensorFlow.'),
    packages=['mtf_conv', 'mtf_conv.tasks', 'mtf_conv.gin'],
    # tasks/ and gin/ stay at the top of the repository, where T5's users look
    # for them, and are installed inside the package.
    package_dir={'mtf_conv.tasks': 'tasks', 'mtf_conv.gin': 'gin'},
    package_data={'mtf_conv.gin': ['*/*.gin', '*/*/*.gin']},
    python_requires='>=3.9,<3.12',
    install_requires=[
        'absl-py',
        'gin-config>=0.5',
        'importlib_resources',
        'matplotlib',
        'mesh-tensorflow[transformer]>=0.1.21',
        'pandas',
        'scikit-learn',
        'sentencepiece<0.2.1',
        'seqio>=0.0.20',
        'setuptools<81',  # T5 imports pkg_resources.
        't5>=0.9.4',
        'tensorflow>=2.12,<2.16',
        'tensorflow-datasets>=4.9',
        'tensorflow-metadata<1.16',  # Later ones need protobuf 5.
        'tf-keras<2.16',
        'tqdm',
    ],
    extras_require={'test': ['hypothesis', 'pytest', 'ruff']},
    entry_points={
        'console_scripts': [
            't5_mesh_conv = mtf_conv.t5_main:console_entry_point',
            'mtf_conv = mtf_conv.cli:main',
        ],
    },
)
