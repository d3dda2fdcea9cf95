"""The packages of the distribution: an installed package holds the experiments, too."""

import setuptools

folders = setuptools.find_namespace_packages('experiments', exclude=['victims*', '*__pycache__*'])
setuptools.setup(
    packages=[
        *setuptools.find_packages(include=['ssl_extract*']),
        'ssl_extract.experiments',
        *(f'ssl_extract.experiments.{name}' for name in folders),
    ],
    package_dir={'ssl_extract.experiments': 'experiments'},
)
